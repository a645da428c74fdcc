"""BackendTLSPolicy: TLS from the proxy to what is outside the mesh, with real servers and certificates."""

import socket
import subprocess
import sys

import pytest

from mesh import APPS, free_ports
from process import wait_until
from tlsbackend import Ca, TlsServer, outside, tls_policy


@pytest.fixture(scope="module")
def shop(shared_mesh):
    mesh = shared_mesh
    mesh.ca = Ca(mesh.directory, "ca")
    mesh.other_ca = Ca(mesh.directory, "other-ca")
    mesh.pay = TlsServer(mesh, "pay", mesh.ca.sign("pay", "DNS:pay.test,URI:spiffe://outside/pay"))
    mesh.web = mesh.workload("web")
    mesh.apply(mesh.ca.config_map(), mesh.other_ca.config_map("other-ca"), *outside("pay", mesh.pay.port))
    return mesh


@pytest.fixture
def policy(shop):
    """Applies BackendTLSPolicies, and takes them away again."""
    applied = set()

    def apply(*policies):
        applied.update(one["metadata"]["name"] for one in policies)
        shop.apply(*policies)

    yield apply
    for name in applied:
        shop.weft("delete", "backendtlspolicy", name, "-n", "shop")


def call(shop, *arguments, path="/", host="pay.shop"):
    """Status, fault and what nginx saw."""
    answer = shop.web.curl("-o", "/dev/null", "-D", "-", *arguments, f"http://{host}:443{path}").stdout.decode()
    lines = answer.replace("\r", "").strip().split("\n")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    return int(lines[0].split()[1]), headers.get("weft-fault"), headers.get("seen")


def fault(shop, **how):
    return call(shop, **how)[:2]


def test_http1_by_tls(shop, policy):
    policy(tls_policy("pay", "pay", "pay.test"))
    assert call(shop) == (200, None, "HTTP/1.1 pay.test pay.shop:443 https")
    with shop.web.http1() as client:
        seen = [client.get("/", "pay.shop:443") for _ in range(5)]
    assert {answer.status for answer in seen} == {200}
    numbers = {answer.header("connection-number") for answer in seen}
    assert len(numbers) == 1, "one connection serves them all"


def test_http2_by_tls(shop, policy):
    policy(tls_policy("pay", "pay", "pay.test"))
    with shop.web.http2() as client:
        answers = [client.get("/", "pay.shop:443") for _ in range(5)]
    seen = {(answer.status, answer.header("seen")) for answer in answers}
    assert seen == {(200, "HTTP/2.0 pay.test pay.shop:443 https")}
    assert len({answer.header("connection-number") for answer in answers}) == 1


def test_bodies_by_tls(shop, policy):
    policy(tls_policy("pay", "pay", "pay.test"))
    big = (shop.pay.root / "big").read_bytes()
    for version in ("--http1.1", "--http2-prior-knowledge"):
        fetched = fetch(shop, version, "/files/big")
        assert fetched == big, (version, len(fetched))
        assert fetch(shop, version, "/files/sent", "-T", shop.pay.root / "big") is not None
        assert (shop.pay.root / "sent").read_bytes() == big
        (shop.pay.root / "sent").unlink()


def fetch(shop, version, path, *arguments):
    """Straight to the sidecar's port, which takes HTTP/1 and HTTP/2 by Host."""
    url = f"http://127.0.0.1:{shop.web.outbound[1]}{path}"
    command = ["curl", "-sS", "-f", "--noproxy", "*", version, "-H", "Host: pay.shop:443", *map(str, arguments), url]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def test_what_the_certificate_must_be_for(shop, policy):
    names = [{"type": "Hostname", "hostname": "pay.test"}]
    rows = [
        (tls_policy("pay", "pay", "pay.test"), (200, None)),
        (tls_policy("pay", "pay", "other.test"), (503, "peer_identity")),
        (tls_policy("pay", "pay", "other.test", names), (200, None)),
        (tls_policy("pay", "pay", "pay.test", [{"type": "Hostname", "hostname": "*.test"}]), (200, None)),
        (tls_policy("pay", "pay", "pay.test", [{"type": "URI", "uri": "spiffe://outside/pay"}]), (200, None)),
        (tls_policy("pay", "pay", "pay.test", [{"type": "URI", "uri": "spiffe://outside/else"}]), (503, "peer_identity")),
        (tls_policy("pay", "pay", "pay.test", wellKnownCACertificates="System"), (503, "peer_identity")),
        (tls_policy("pay", "pay", "pay.test", caCertificateRefs=[ref("other-ca")]), (503, "peer_identity")),
        (tls_policy("pay", "pay", "pay.test", caCertificateRefs=[ref("other-ca"), ref("ca")]), (200, None)),
        (tls_policy("pay", "pay", "pay.test", caCertificateRefs=[ref("gone")]), (500, "backend_invalid")),
    ]
    for document, expected in rows:
        policy(document)
        # An endpoint whose certificate was refused is left out for a while, and taken where there is no other.
        assert fault(shop) == expected, document["spec"]["validation"]
        told = shop.weft("explain", "--from", "shop/web", "http://pay.shop:443/", "-o", "json").json()
        [backend] = told["backends"]
        assert backend["tls"]["policy"] == "BackendTLSPolicy/shop/pay"
        assert (backend["fault"] == "backend_invalid") == (expected[1] == "backend_invalid")


def test_explain_says_how(shop, policy):
    policy(tls_policy("pay", "pay", "pay.test"))
    ask = ("explain", "--from", "shop/web", "http://pay.shop:443/")
    assert "TLS to pay.test by BackendTLSPolicy/shop/pay" in shop.weft(*ask).stdout
    policy(tls_policy("pay", "pay", "pay.test", caCertificateRefs=[ref("gone")]))
    told = shop.weft(*ask).stdout
    assert "none: BackendTLSPolicy/shop/pay: there is no ConfigMap shop/gone with ca.crt" in told
    assert "backend_invalid" in told


def ref(name):
    return {"group": "", "kind": "ConfigMap", "name": name}


def test_a_ca_that_is_replaced(shop, policy):
    policy(tls_policy("pay", "pay", "pay.test"))
    assert fault(shop) == (200, None)
    shop.apply(shop.other_ca.config_map("ca"))
    assert fault(shop) == (503, "peer_identity")
    shop.weft("delete", "configmap", "ca", "-n", "shop")
    wait_until(lambda: fault(shop) == (500, "backend_invalid"), what="the policy without a CA")
    listed = shop.weft("get", "backendtlspolicies", "-n", "shop").stdout
    assert "False (NoValidCACertificate)" in listed and "False (InvalidCACertificateRef)" in listed
    shop.apply(shop.ca.config_map("ca"))
    wait_until(lambda: fault(shop) == (200, None), what="the CA")


def test_a_port_that_asks_for_tls_takes_http_by_a_policy(shop, policy):
    shop.apply(*outside("secure", shop.pay.port, "https"))
    policy(tls_policy("secure", "secure", "pay.test", section="main"))
    assert call(shop, host="secure.shop") == (200, None, "HTTP/1.1 pay.test secure.shop:443 https")


def test_a_client_that_speaks_tls_itself_is_passed_on(shop, policy):
    policy(tls_policy("pay", "pay", "pay.test"))
    done = shop.web.curl("-i", "--http1.1", "--cacert", shop.ca.certificate, "--connect-to", "::pay.shop:443", "-p", "https://pay.test/")
    assert b"HTTP/1.1 200" in done.stdout and b"hello" in done.stdout


def test_a_server_that_does_not_speak_http2(shop, policy):
    old = TlsServer(shop, "old", shop.ca.sign("old", "DNS:old.test"), http2=False)
    shop.apply(*outside("old", old.port))
    policy(tls_policy("old", "old", "old.test"))
    assert call(shop, host="old.shop")[0] == 200
    with shop.web.http2() as client:
        answer = client.get("/", "old.shop:443")
    assert (answer.status, answer.header("weft-fault")) == (502, "upstream_protocol")


def test_bytes_of_any_protocol(shop, policy):
    key, certificate = shop.ca.sign("echo", "DNS:echo.test")
    for name, greeting in (("mail", "220 hello\r\n"), ("echo", "")):
        port = free_ports()
        shop.program(name, [sys.executable, APPS / "tls_echo.py", port, key, certificate, greeting])
        wait_until(lambda port=port: socket.create_connection(("127.0.0.1", port), 1).close() is None, what=name)
        shop.apply(*outside(name, port))
        policy(tls_policy(name, name, "echo.test"))
        with socket.create_connection(shop.web.outbound, 10) as client:
            client.settimeout(10)
            client.sendall(f"CONNECT {name}.shop:443 HTTP/1.1\r\nhost: {name}.shop:443\r\n\r\n".encode())
            assert exactly(client, len("HTTP/1.1 200 OK\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert exactly(client, len(greeting)) == greeting.encode()
            sent = b"".join(b"line %d\n" % n for n in range(20_000))
            client.sendall(sent[:8])
            assert exactly(client, 8) == sent[:8]
            client.sendall(sent[8:])
            assert exactly(client, len(sent) - 8) == sent[8:]
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""


def exactly(client, count):
    got = b""
    while len(got) < count:
        piece = client.recv(count - len(got))
        assert piece, got
        got += piece
    return got
