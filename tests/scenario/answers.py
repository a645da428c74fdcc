"""An HTTP/1 application whose answer is what reached it, byte by byte."""

import re

from scripted import Scripted

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# What a sidecar adds to every request; everything else that reaches an application is checked.
ADDED = re.compile(rb"^(traceparent|tracestate): [^\r]*\r\n", re.MULTILINE | re.IGNORECASE)


class Input:
    """What a connection brings."""

    def __init__(self, peer):
        self.peer = peer
        self.buffer = b""

    def fill(self):
        piece = self.peer.recv(65536)
        if not piece:
            raise EOFError
        self.buffer += piece

    def until(self, mark):
        while mark not in self.buffer:
            self.fill()
        before, self.buffer = self.buffer.split(mark, 1)
        return before + mark

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def body(self, head):
        """The content and the trailer section."""
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked\r\n" in lower:
            content = b""
            while size := int(self.until(b"\r\n"), 16):
                content += self.take(size)
                assert self.take(2) == b"\r\n"
            trailers = b""
            while (line := self.until(b"\r\n")) != b"\r\n":
                trailers += line
            return content, trailers
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", lower)
        return self.take(int(length[1])) if length else b"", b""


def sized(content, head=b"HTTP/1.1 200 OK\r\n"):
    return head + b"Content-Length: %d\r\n\r\n" % len(content) + content


def play(server, peer):
    """Answers by the request's path, until the connection ends."""
    given = Input(peer)
    while True:
        head = given.until(b"\r\n\r\n")
        server.heads.append(head)
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        name, _, argument = target.partition(b"?")
        match name:
            case b"/hold":
                while peer.recv(65536):
                    pass
                return
            case b"/stall":
                # Nothing of the body is ever read.
                server.released.wait(20)
                return
            case b"/unread":
                # The answer comes before the body, which is never read.
                peer.sendall(sized(b"early", b"HTTP/1.1 200 OK\r\nConnection: close\r\n"))
                while peer.recv(65536):
                    pass
                return
            case b"/continue":
                peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            case b"/early":
                peer.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            case b"/switch":
                assert b"\r\nupgrade: rot13\r\n" in head.lower()
                peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: rot13\r\n\r\n")
                while piece := given.buffer or peer.recv(65536):
                    given.buffer = b""
                    peer.sendall(piece.swapcase())
                return
        content, trailers = given.body(head)
        match name:
            case b"/echo" | b"*":
                shown = ADDED.sub(b"", head) + content + trailers
                peer.sendall(sized(b"" if method == b"HEAD" else shown))
            case b"/bytes":
                peer.sendall(sized(b"x" * int(argument)))
            case b"/length":
                peer.sendall(sized(b"%d" % len(content)))
            case b"/head":
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
            case b"/204":
                peer.sendall(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")
            case b"/304":
                peer.sendall(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 500\r\n\r\n')
            case b"/empty":
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            case b"/chunked":
                peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
            case b"/trailers":
                peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n")
            case b"/cut":
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
                return
            case b"/until-close":
                peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end")
                return
            case b"/private":
                peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nX-End: 1\r\nContent-Length: 2\r\n\r\nok")  # fmt: skip
            case _:
                peer.sendall(OK)


def application():
    """The application, listening."""
    import threading

    made = Scripted(play)
    made.released = threading.Event()
    return made
