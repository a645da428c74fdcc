"""What is measured. Every scenario is one line of the table."""

from dataclasses import dataclass

from servers import APPLICATION, COUNT, ECHO, FILES_H2C, HTTP1, SOURCE


@dataclass(frozen=True)
class Scenario:
    """One kind of load over one kind of path."""

    name: str
    about: str
    # How the load is made (see load.py): requests, bulk, new, latency or idle.
    kind: str
    # What the application speaks: http1, h2c or tcp.
    wire: str
    # The application's port.
    port: int
    # Whether two proxies with mTLS between them stand in the way, or one without TLS.
    pair: bool = False
    # Whether the one that stands in the way is the called side's, and the caller has none.
    called: bool = False
    connections: int = 32
    streams: int = 1
    path: str = "/"
    # Length of the request's body; 0 is a GET.
    post: int = 0
    # How much a measurement takes, and one of a quick run: requests, TCP connections, bytes of bulk, or
    # seconds for new HTTP connections and latency.
    amount: int = 0
    quick: int = 0

    @property
    def unit(self):
        """What a figure is counted for."""
        return {"bulk": "s/GiB", "latency": "µs", "idle": "MiB"}.get(self.kind, "s/100k")


GIB = 1024**3
MIB = 1024**2
H1 = {"kind": "requests", "wire": "http1", "port": HTTP1}
H2 = {"kind": "requests", "wire": "h2c", "port": APPLICATION, "connections": 8, "streams": 32}
UNARY = {**H2, "post": 128, "path": "/grpc/1"}
H2_LATENCY = {**H2, "kind": "latency", "connections": 4, "path": "/bytes/128"}
BULK = {"kind": "bulk", "wire": "tcp", "amount": GIB, "quick": GIB // 4}
NEW = {**H1, "kind": "new", "amount": 3, "quick": 2}

ALL = (
    Scenario("s1", "HTTP/1.1, one hop, 32 connections, 128 B", **H1, amount=60_000, quick=25_000),
    Scenario("s1-16k", "as s1 with 16 KiB bodies", **H1, path="/16k", amount=30_000, quick=10_000),
    Scenario("s1-1m", "as s1 with 1 MiB bodies", **H1, path="/1m", amount=1_500, quick=500),
    Scenario("s2", "gRPC-like h2c, one hop, 8 × 32 streams, 128 B", **UNARY, amount=100_000, quick=40_000),
    Scenario("s1-called", "as s1, at the called side: plaintext in", **H1, called=True, amount=60_000, quick=25_000),
    Scenario("s2-called", "as s2, at the called side: plaintext in", **UNARY, called=True, amount=100_000, quick=40_000),
    Scenario("s2-16k", "as s2, GET of 16 KiB", **{**H2, "port": FILES_H2C}, path="/16k", amount=20_000, quick=8_000),
    Scenario("s3", "mTLS pair, HTTP/1.1 application, 32 connections", **H1, pair=True, amount=50_000, quick=20_000),
    Scenario("s3-16k", "as s3 with 16 KiB bodies", **H1, pair=True, path="/16k", amount=15_000, quick=6_000),
    Scenario("s3h2", "mTLS pair, HTTP/2 application, GET", **H2, path="/bytes/128", pair=True, amount=60_000, quick=25_000),
    Scenario("s3h2-post", "as s3h2, POST of 128 B", **H2, path="/bytes/128", post=128, pair=True, amount=60_000, quick=25_000),
    Scenario("grpc", "unary gRPC over the pair, 8 × 32 streams", **UNARY, pair=True, amount=40_000, quick=15_000),
    Scenario(
        "grpc-stream",
        "as grpc with 100 messages an answer",
        **{**UNARY, "path": "/grpc/100"},
        pair=True,
        amount=4_000,
        quick=2_000,
    ),
    Scenario("tcp-up", "TCP, one hop, 4 connections upload", **BULK, port=COUNT, connections=4),
    Scenario("tcp-down", "TCP, one hop, 4 connections download", **BULK, port=SOURCE, connections=4),
    Scenario("tcp-pair-up", "TCP, mTLS pair, upload", **BULK, port=COUNT, connections=4, pair=True),
    Scenario("tcp-pair-down", "TCP, mTLS pair, download", **BULK, port=SOURCE, connections=4, pair=True),
    Scenario("new", "HTTP/1.1, one hop, a connection each request", **NEW),
    Scenario("new-pair", "as new over the mTLS pair", **NEW, pair=True),
    Scenario("new-tcp-pair", "new TCP connections over the mTLS pair", "new", "tcp", ECHO, True, amount=3_000, quick=1_000),
    Scenario("latency-h1", "added at 2,000/s: HTTP/1.1, one hop", "latency", "http1", HTTP1, amount=4, quick=2),
    Scenario("latency-h2c", "as latency-h1 with h2c", **H2_LATENCY, amount=4, quick=2),
    Scenario("latency-pair-h1", "as latency-h1 over the mTLS pair", "latency", "http1", HTTP1, True, amount=4, quick=2),
    Scenario("latency-pair-h2", "as latency-h2c over the mTLS pair", **H2_LATENCY, pair=True, amount=4, quick=2),
    Scenario("idle-1k", "1,000 idle HTTP/1.1 connections, one hop", "idle", "http1", HTTP1, connections=1_000),
    Scenario("idle-10k", "as idle-1k with 10,000", "idle", "http1", HTTP1, connections=10_000),
    Scenario("idle-pair-1k", "1,000 idle TCP connections over the pair", "idle", "tcp", ECHO, True, connections=1_000),
)
BY_NAME = {scenario.name: scenario for scenario in ALL}
QUICK = ("s1", "s2", "s3", "s3h2", "tcp-pair-down")
