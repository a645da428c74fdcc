"""Large bodies: they arrive identical, and the sidecars stay small."""

import contextlib
import hashlib
import json
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import frames
from mesh import TESTKIT, free_ports, service
from process import wait_until

PEAK_MIB = 48
PIECE = bytes((i * 131 + 7) % 251 for i in range(65_521))
MIB = 1 << 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def pattern(total):
    """The testkit's pattern, piece by piece."""
    sent = 0
    while sent < total:
        piece = PIECE[: total - sent]
        yield piece
        sent += len(piece)


def pattern_hash(total):
    digest = hashlib.sha256()
    for piece in pattern(total):
        digest.update(piece)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def big(shared_mesh, soak):
    """`files` (HTTP), `sink` and `source` (TCP), and how much to move."""
    mesh = shared_mesh
    mesh.total = (1024 if soak else 256) * MIB
    mesh.expected = pattern_hash(mesh.total)
    mesh.apply(service("files"), service("sink", app_protocol="tcp"), service("source"), service("trickle"))
    mesh.files = mesh.instance("files")
    for name, behaviour, total in (("sink", "sink", 0), ("source", "source", mesh.total), ("trickle", "source", 64 * MIB)):
        port = free_ports()
        mesh.program(name, [TESTKIT, "tcp", "--listen", f"127.0.0.1:{port}", "--behaviour", behaviour, "--bytes", total])
        wait_until(lambda: _connects(port), what=name)
        setattr(mesh, name, mesh.workload(name, ports={"http": port}))
        mesh.wait_port_up(getattr(mesh, name), port)
    mesh.web = mesh.workload("web")
    mesh.wait_endpoints(mesh.web, 1, "files.shop")
    yield mesh


def _connects(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def assert_small(*workloads):
    for workload in workloads:
        peak = workload.process.peak_rss_mib()
        assert peak < PEAK_MIB, f"{workload.name}'s sidecar had {peak:.0f} MiB"


def curl(mesh, protocol, *arguments, stdin=None, stdout=subprocess.PIPE):
    """curl through the sidecar by either HTTP version."""
    address = f"{mesh.web.outbound[0]}:{mesh.web.outbound[1]}"
    version = {"http1": ["--http1.1"], "http2": ["--http2-prior-knowledge"]}[protocol]
    command = ["curl", "-sSf", "--noproxy", "*", *version, "--connect-to", f"files.shop:80:{address}", *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout)


@pytest.mark.parametrize("protocol", ["http1", "http2"])
def test_a_large_download_arrives_identical(big, protocol):
    running = curl(big, protocol, f"http://files.shop/bytes/{big.total}")
    digest = hashlib.file_digest(running.stdout, "sha256").hexdigest()
    assert running.wait(60) == 0
    assert digest == big.expected
    assert_small(big.web, big.files)


@pytest.mark.parametrize("protocol", ["http1", "http2"])
def test_a_large_upload_arrives_identical(big, protocol):
    running = curl(big, protocol, "-T", "-", "-H", "Expect:", "http://files.shop/up", stdin=subprocess.PIPE)

    def feed():
        for piece in pattern(big.total):
            running.stdin.write(piece)
        running.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    answer = json.loads(running.stdout.read())
    feeder.join()
    assert running.wait(60) == 0
    assert answer["body_length"] == big.total and answer["body_sha256"] == big.expected
    assert_small(big.web, big.files)


def tunnel(big, name):
    client = big.web.http1(timeout=120)
    client.send(f"CONNECT {name}.shop:80 HTTP/1.1\r\nHost: {name}.shop:80\r\n\r\n")
    assert client.read("CONNECT").status == 200
    return client


def test_tcp_up(big):
    with tunnel(big, "sink") as client:
        for piece in pattern(big.total):
            client.send(piece)
        client.socket.shutdown(1)
        count, digest = client.rest().decode().split()
    assert int(count) == big.total and digest == big.expected
    assert_small(big.web, big.sink)


def test_tcp_down(big):
    with tunnel(big, "source") as client:
        digest = hashlib.sha256()
        buffer = bytearray(1 << 18)
        while count := client.socket.recv_into(buffer):
            digest.update(memoryview(buffer)[:count])
    assert digest.hexdigest() == big.expected
    assert_small(big.web, big.source)


@pytest.mark.parametrize("protocol", ["http1", "http2"])
def test_a_slow_reader_slows_the_writer(big, protocol, soak):
    """The reader takes 1 MiB/s; the rest must wait in the application, not in the sidecars."""
    seconds = 60 if soak else 6
    running = curl(big, protocol, "--limit-rate", "1M", "--max-time", str(seconds), f"http://files.shop/bytes/{big.total}", stdout=subprocess.DEVNULL)  # fmt: skip
    assert running.wait(seconds + 20) == 28, "curl should have been cut by --max-time"
    assert_small(big.web, big.files)


def test_a_slow_tcp_reader_slows_the_writer(big, soak):
    with tunnel(big, "trickle") as client:
        end = time.monotonic() + (60 if soak else 5)
        while time.monotonic() < end:
            assert client.socket.recv(1 << 17)
            time.sleep(1 / 8)
    assert_small(big.web, big.trickle)


def test_many_large_answers_at_once_stay_within_the_limit(big):
    each = big.total // 16
    downloads = [curl(big, p, f"http://files.shop/bytes/{each}") for p in ("http1", "http2") * 8]
    with ThreadPoolExecutor(16) as pool:
        digests = set(pool.map(lambda one: hashlib.file_digest(one.stdout, "sha256").hexdigest(), downloads))
    assert [one.wait(60) for one in downloads] == [0] * 16
    assert digests == {pattern_hash(each)}
    assert_small(big.web, big.files)


def test_readers_that_stand_still_hold_up_nobody_else(big):
    """Their answers share connections between the sidecars with everybody else's."""
    with contextlib.ExitStack() as still:
        for _ in range(32):
            reader = still.enter_context(big.web.http1())
            reader.send("GET /bytes/10000000 HTTP/1.1\r\nHost: files.shop\r\n\r\n")
            assert reader.read_head().status == 200
        time.sleep(1)
        for _ in range(5):
            assert big.web.get("/alive", "files.shop").status == 200
        other = curl(big, "http1", "-m", "20", "http://files.shop/bytes/10000000")
        assert hashlib.file_digest(other.stdout, "sha256").hexdigest() == pattern_hash(10_000_000)
    assert_small(big.web, big.files)


def test_a_thousand_streams_that_nobody_reads_stay_within_the_bound(big):
    """Each holds its window in each sidecar at most, and they hold up nobody else."""
    big.apply(service("heap"))
    heap, still = big.instance("heap"), big.workload("still")
    big.wait_endpoints(still, 1, "heap.shop")
    request = [(":method", "GET"), (":scheme", "http"), (":authority", "heap.shop"), (":path", "/bytes/10000000")]
    windows = frames.settings((frames.WINDOW, 1 << 20)) + frames.window_update(0, 1 << 30)
    streams = b"".join(frames.headers(1 + 2 * number, request) for number in range(125))
    sidecars = (still.process, heap.process)
    idle = sum(one.rss_mib() for one in sidecars)
    # The smallest window of each stream: a short round trip leaves it at that (proxy/README.md).
    windows_mib = 1000 * 65_500 / MIB
    with contextlib.ExitStack() as clients:
        for _ in range(8):
            client = clients.enter_context(socket.create_connection(still.outbound))
            client.sendall(frames.PREFACE + windows + streams)

        def memory_at_rest():
            before = [one.rss_mib() for one in sidecars]
            time.sleep(1)
            return sum(before) > idle + windows_mib and [one.rss_mib() for one in sidecars] <= [mib + 1 for mib in before]

        wait_until(memory_at_rest, 60, what="windows that are full")
        assert still.get("/alive", "heap.shop").status == 200
        # 1,000 windows of 256 KiB, what has gathered for 8 connections on each side, and what a sidecar takes itself.
        bound = 1000 / 4 + 16 / 4 + PEAK_MIB
        for one in sidecars:
            assert one.peak_rss_mib() < bound, f"{one.name} had {one.peak_rss_mib():.0f} MiB of {bound:.0f}"
    assert still.get("/afterwards", "heap.shop").status == 200
