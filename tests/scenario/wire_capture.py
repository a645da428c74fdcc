"""Reads a capture of the wire: who spoke TCP to whom, and the first bytes of each connection."""

import socket
import struct
from dataclasses import dataclass, field


@dataclass
class Flow:
    """One direction of a TCP connection."""

    source: tuple
    destination: tuple
    data: bytearray = field(default_factory=bytearray)
    _next: int | None = None

    def add(self, sequence, payload):
        # A retransmission comes again with an older number; what is lost here is lost on the wire too.
        if self._next is None or (sequence - self._next) % 2**32 < 2**31:
            self.data += payload
            self._next = (sequence + len(payload)) % 2**32


def flows(file):
    """Every direction of every TCP connection in a pcap file of Ethernet frames."""
    data = file.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at, found = 24, {}
    while at + 16 <= len(data):
        length = struct.unpack(order + "I", data[at + 8 : at + 12])[0]
        packet = data[at + 16 : at + 16 + length]
        at += 16 + length
        _take(packet, found)
    return list(found.values())


def _take(packet, found):
    kind = struct.unpack(">H", packet[12:14])[0]
    if kind == 0x0800 and packet[23] == 6:
        size = (packet[14] & 15) * 4
        total = struct.unpack(">H", packet[16:18])[0]
        source, destination = socket.inet_ntoa(packet[26:30]), socket.inet_ntoa(packet[30:34])
        # A packet larger than its field allows (segmentation offload) says 0.
        segment = packet[14 + size : 14 + total] if total else packet[14 + size :]
    elif kind == 0x86DD and packet[20] == 6:
        source = socket.inet_ntop(socket.AF_INET6, packet[22:38])
        destination = socket.inet_ntop(socket.AF_INET6, packet[38:54])
        total = struct.unpack(">H", packet[18:20])[0]
        segment = packet[54 : 54 + total] if total else packet[54:]
    else:
        return
    source_port, destination_port, sequence = struct.unpack(">HHI", segment[:8])
    payload = segment[(segment[12] >> 4) * 4 :]
    if payload:
        key = (source, source_port, destination, destination_port)
        flow = found.setdefault(key, Flow(key[:2], key[2:]))
        flow.add(sequence, payload)


def tls_version_chosen(server_flow):
    """The version in a ServerHello: 0x0304 is TLS 1.3 (RFC 8446 4.2.1)."""
    data = bytes(server_flow.data)
    assert data[:1] == b"\x16" and data[5:6] == b"\x02", f"no ServerHello: {data[:16].hex()}"
    at = 9 + 2 + 32
    at += 1 + data[at] + 2 + 1
    end = at + 2 + struct.unpack(">H", data[at : at + 2])[0]
    at += 2
    while at < end:
        kind, length = struct.unpack(">HH", data[at : at + 4])
        if kind == 43:
            return struct.unpack(">H", data[at + 4 : at + 6])[0]
        at += 4 + length
    return struct.unpack(">H", data[9:11])[0]
