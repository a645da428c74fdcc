"""Other people's HTTP programs, as clients and as servers, through a pair of sidecars and through one alone."""

import hashlib
import json
import re
import shutil
import subprocess

import pytest

from mesh import APPS, endpoint_slice, free_ports, service
from process import wait_until
from test_big import pattern, pattern_hash

MIB = 1 << 20
# An application is asked through its own sidecar too, over mutual TLS, or by the caller's sidecar alone.
WAYS = ["pair", "alone"]
CURL = {"http1": "--http1.1", "http2": "--http2-prior-knowledge"}


@pytest.fixture(scope="module")
def peers(shop, tmp_path_factory):
    """Servers of several makers, each known by two names: with a sidecar of its own and without."""
    shop.files = tmp_path_factory.mktemp("files")
    shop.upload = shop.files / "upload"
    shop.upload.write_bytes(b"".join(pattern(8 * MIB)))
    (shop.files / "small").write_bytes(b"small\n")
    node = shutil.which("node")
    nghttpd = shutil.which("nghttpd", path="/usr/sbin:/usr/bin:/usr/local/bin")
    flags = ["--no-tls", "--echo-upload", "--padding=100", "--trailer=x-end: done", "--window-bits=20", "-d", shop.files]
    for name, protocol, command in (
        ("node1", "http", lambda port: [node, APPS / "node_server.js", "http1", port]),
        ("node2", "kubernetes.io/h2c", lambda port: [node, APPS / "node_server.js", "http2", port]),
        ("nghttpd", "kubernetes.io/h2c", lambda port: [nghttpd, *flags, "--address=127.0.0.1", port]),
    ):
        with_sidecar, alone = free_ports(), free_ports()
        shop.program(name, command(with_sidecar))
        shop.program(f"{name}-alone", command(alone))
        shop.offer(name, with_sidecar, app_protocol=protocol)
        document = service(f"{name}-alone", app_protocol=protocol)
        del document["spec"]["selector"]
        shop.apply(document, endpoint_slice(f"{name}-alone-1", f"{name}-alone", ["127.0.0.1"], alone))
    for name in ("node1", "node2", "nghttpd"):
        for way in WAYS:
            asked = ["-o", "/dev/null", "-w", "%{http_code}", f"http://{host(name, way)}/small"]
            wait_until(lambda: curl(shop, "http1", host(name, way), *asked).stdout == b"200", what=host(name, way))
    return shop


def host(name, way):
    return f"{name}.shop" if way == "pair" else f"{name}-alone.shop"


def run(*command, timeout=60, check=True):
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=timeout)
    assert not check or done.returncode == 0, (command, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def curl(shop, protocol, name, *arguments, check=True):
    """curl, by either version, as if the sidecar's port were the service's."""
    via = f"{name}:80:{shop.web.outbound[0]}:{shop.web.outbound[1]}"
    return run("curl", "-sS", "--noproxy", "*", CURL[protocol], "--connect-to", via, *arguments, check=check)


def nghttp(shop, name, *arguments, path):
    return run("nghttp", "--no-dep", f"-H:authority: {name}", *arguments, f"http://127.0.0.1:{shop.web.outbound[1]}{path}")


def sha256(octets):
    return hashlib.sha256(octets).hexdigest()


# ---- Node, at both ends


NODE = {
    "http1": [
        "keep_alive", "upload", "download_slowly", "both_ways_at_once", "trailers", "early_hints", "continue_100", "upgrade",
        "cut_by_the_server", "left_by_the_client", "methods_and_no_content",
    ],
    "http2": [
        "concurrent", "upload", "download_slowly", "both_ways_at_once", "trailers", "early_hints", "continue_100",
        "reset_by_the_server", "reset_by_the_client", "goaway_while_requests_are_in_flight", "ping",
        "settings_of_the_client_change", "settings_of_the_server_change",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def node_results(peers):
    """Each client's results, asked for once."""
    known = {}

    def results(version, way):
        if (version, way) not in known:
            name = host({"http1": "node1", "http2": "node2"}[version], way)
            done = run("node", APPS / "node_client.js", version, peers.web.outbound[1], name, timeout=110)
            known[version, way] = json.loads(done.stdout)
        return known[version, way]

    return results


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("version", "case"), [(version, case) for version, cases in NODE.items() for case in cases])
def test_node_by_both_versions(node_results, version, case, way):
    results = node_results(version, way)
    assert sorted(results) == sorted(NODE[version])
    assert results[case] == "ok", results[case]


# ---- curl


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", ["node1", "node2"])
@pytest.mark.parametrize("protocol", CURL)
def test_curl_sends_when_it_is_told_to_continue(peers, protocol, server, way):
    """Whichever version either end speaks: Node's servers answer an expectation, and curl counts the heads."""
    name = host(server, way)
    path = {"node1": "up", "node2": "continue"}[server]
    heads = peers.files / "heads"
    flags = ["-T", peers.upload, "-H", "Expect: 100-continue", "-D", heads, "--expect100-timeout", "30"]
    seen = json.loads(curl(peers, protocol, name, *flags, f"http://{name}/{path}").stdout)
    assert (seen["length"], seen["sha256"]) == (8 * MIB, pattern_hash(8 * MIB))
    assert re.findall(r"^HTTP/\S+ (\d+)", heads.read_text(), re.M) == ["100", "200"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", ["node1", "node2"])
@pytest.mark.parametrize("protocol", CURL)
def test_curl_gets_trailers(peers, protocol, server, way):
    name = host(server, way)
    heads = peers.files / "heads"
    flags = ["-T", peers.upload, "-H", "Expect:", "-H", "TE: trailers", "-D", heads]
    seen = json.loads(curl(peers, protocol, name, *flags, f"http://{name}/trailers").stdout)
    assert seen == {"trailers": {}}
    after = heads.read_bytes().split(b"\r\n\r\n", 1)[1].decode().strip().splitlines()
    assert f"x-sum: {pattern_hash(8 * MIB)}" in after, heads.read_text()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", ["node1", "node2"])
def test_curl_asks_many_at_once(peers, server, way):
    """Fifty downloads by one curl. By HTTP/1 only: curl 7.88 fails at the same by HTTP/2 without a proxy too."""
    name = host(server, way)
    each = 300_000
    out = peers.files / "many"
    out.mkdir(exist_ok=True)
    flags = ["--parallel", "--parallel-max", "50", "-o", out / "#1", "-w", "%{http_code}\n"]
    done = curl(peers, "http1", name, *flags, f"http://{name}/pour/[{each}-{each + 49}]")
    assert done.stdout.split() == [b"200"] * 50
    for number in range(50):
        assert sha256((out / str(each + number)).read_bytes()) == pattern_hash(each + number)


# ---- nghttp2's programs


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "flags", [[], ["--padding=255"], ["--window-bits=10", "--connection-window-bits=12"], ["--continuation"]], ids=str
)
@pytest.mark.parametrize("server", ["nghttpd", "node2"])
def test_nghttp_uploads_and_gets_it_back(peers, server, flags, way):
    """Padded frames, windows of a KiB, heads in CONTINUATION frames: the content is the same."""
    path = {"nghttpd": "/upload", "node2": "/mirror"}[server]
    done = nghttp(peers, host(server, way), "--data", peers.upload, *flags, path=path)
    assert sha256(done.stdout) == pattern_hash(8 * MIB)


@pytest.mark.parametrize("way", WAYS)
def test_nghttp_shows_the_frames_of_an_exchange(peers, way):
    """Its own words for what it got: the trailers of nghttpd's answer, an end, and no reset."""
    done = nghttp(peers, host("nghttpd", way), "-nv", "--trailer=x-sum: 5", "--data", peers.files / "small", path="/small")
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode())
    assert re.search(r"recv \(stream_id=\d+\) :status: 200", text), text
    assert re.search(r"recv \(stream_id=\d+\) x-end: done", text), text
    assert "RST_STREAM" not in text, text
    goaways = re.findall(r"recv GOAWAY.*\n.*error_code=(\w+)", text)
    assert set(goaways) <= {"NO_ERROR"}, text


@pytest.mark.parametrize("way", WAYS)
def test_nghttp_expects_to_be_told_to_continue(peers, way):
    done = nghttp(peers, host("node2", way), "-v", "--expect-continue", "--data", peers.upload, path="/continue")
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode())
    assert re.findall(r"recv \(stream_id=\d+\) :status: (\d+)", text) == ["100", "200"], text
    assert pattern_hash(8 * MIB) in text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("protocol", CURL)
def test_curl_and_nghttpd(peers, protocol, way):
    name = host("nghttpd", way)
    done = curl(peers, protocol, name, f"http://{name}/upload")
    assert sha256(done.stdout) == pattern_hash(8 * MIB)
    done = curl(peers, protocol, name, "--data-binary", f"@{peers.upload}", "-H", "Expect:", f"http://{name}/echo")
    assert sha256(done.stdout) == pattern_hash(8 * MIB)
    done = curl(peers, protocol, name, "-o", "/dev/null", "-w", "%{http_code}", f"http://{name}/none")
    assert done.stdout == b"404"


H2LOAD = {
    "http2": ["-c4", "-m32"],
    "http2-small-windows": ["-c4", "-m32", "--window-bits=4", "--connection-window-bits=16"],
    "http2-uploads": ["-c4", "-m32", "--data=UPLOAD"],
    "http1": ["-c8", "--h1"],
    "http1-pipelined": ["-c8", "-m8", "--h1"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", ["nghttpd", "node1", "node2"])
@pytest.mark.parametrize("kind", H2LOAD)
def test_h2load_counts_no_failure(peers, kind, server, way):
    small = peers.files / "small"
    flags = [flag.replace("UPLOAD", str(small)) for flag in H2LOAD[kind]]
    name = host(server, way)
    done = run(
        "h2load", "-n2000", "-t1", *flags, f"-H:authority: {name}", f"http://127.0.0.1:{peers.web.outbound[1]}/small", timeout=100
    )
    text = done.stdout.decode()
    counts = "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout"
    assert f"requests: {counts}" in text, text
    assert "status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx" in text, text
