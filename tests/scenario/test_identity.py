"""Who may be who: what is refused, and that the refusal says why."""

import datetime
import os
import socket
import ssl
import stat

import grpc
import pytest
from cryptography import x509

from fake import (
    ALPN,
    Attached,
    FakeInbound,
    Root,
    certificate_request,
    enroll,
    hello,
    issue,
    new_key,
    spiffe,
)
from mesh import ControlPlane, assert_no_failure, free_ports, service
from process import wait_until

pytestmark = pytest.mark.usefixtures("stubs")


@pytest.fixture(scope="module")
def control(shared_mesh):
    return shared_mesh.control_plane


def refused(call, *words):
    """Runs it and checks that the control plane says no, and why."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    codes = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)
    assert error.code() in codes, error
    for word in words:
        assert word.lower() in error.details().lower(), error.details()


def request_for(service_account, namespace="shop"):
    return certificate_request(new_key(), spiffe(namespace, service_account))


def test_a_wrong_token_is_refused(control):
    refused(lambda: issue(control, request_for("a"), "nonsense"), "token")
    refused(lambda: issue(control, request_for("a"), ""), "token")


def test_a_sidecar_with_a_wrong_token_says_so_and_is_not_ready(shop):
    stranger = shop.workload("stranger", token="nonsense", wait=False)
    wait_until(lambda: "token" in stranger.process.text().lower(), what="a word about the token in its log")
    if stranger.process.alive():
        assert not stranger.ready()


def test_a_token_is_for_one_identity(control):
    token = control.token("shop", "a")
    refused(lambda: issue(control, request_for("b"), token), "spiffe://weft.local/ns/shop/sa/b")
    refused(lambda: issue(control, request_for("a", "other"), token), "spiffe://weft.local/ns/other/sa/a")
    other_domain = certificate_request(new_key(), spiffe("shop", "a", "evil.example"))
    refused(lambda: issue(control, other_domain, token), "evil.example")
    assert issue(control, request_for("a"), token).certificate_chain


def test_a_token_has_its_uses_and_its_time(control):
    once = control.token("shop", "a", "--uses", "1")
    issue(control, request_for("a"), once)
    refused(lambda: issue(control, request_for("a"), once), "token")
    short = control.token("shop", "a", "--ttl", "1s")

    def expired():
        try:
            issue(control, request_for("a"), short)
        except grpc.RpcError as error:
            assert "token" in error.details()
            return True
        return False

    wait_until(expired, 5, "the token's end")


def test_a_token_is_stored_hashed(control):
    token = control.token("shop", "a")
    secret = max(token.replace("_", ".").split("."), key=len).encode()
    for file in control.data_dir.rglob("*"):
        if file.is_file():
            assert secret not in file.read_bytes(), f"the token lies in {file}"


def test_a_request_must_name_exactly_one_identity(control):
    token = control.token("shop", "a")
    refused(lambda: issue(control, certificate_request(new_key()), token))
    two = certificate_request(new_key(), spiffe("shop", "a"), spiffe("shop", "b"))
    refused(lambda: issue(control, two, token))


def test_a_request_whose_signature_does_not_hold_is_refused(control):
    request = bytearray(request_for("a"))
    request[-3] ^= 1
    refused(lambda: issue(control, bytes(request), control.token("shop", "a")))


def test_a_renewal_is_for_the_same_identity_only(control, tmp_path):
    mine = enroll(control, tmp_path, "shop", "a")
    assert issue(control, request_for("a"), identity=mine).certificate_chain
    refused(lambda: issue(control, request_for("b"), identity=mine), "sa/b")


def test_a_certificate_is_what_spiffe_asks(control, tmp_path):
    mine = enroll(control, tmp_path, "shop", "a")
    leaf = x509.load_der_x509_certificate(mine.chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [spiffe("shop", "a")]
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_cert_sign
    life = leaf.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(hours=23) < life <= datetime.timedelta(hours=24, minutes=5)


def test_a_stream_is_for_the_identity_of_its_certificate(control, tmp_path):
    mine = enroll(control, tmp_path, "shop", "a")
    for other in (hello("w", service_account="b"), hello("w", namespace="other", service_account="a")):
        stream = Attached(control, mine, other)
        wait_until(lambda: stream.error, 10, "the refusal")
        assert stream.error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED), stream.error
        assert "spiffe" in stream.error.details().lower(), stream.error.details()
        stream.close()


def test_a_stream_without_a_certificate_is_refused(control, tmp_path):
    from weft.v1alpha1 import discovery_pb2, discovery_pb2_grpc

    from fake import channel, tls_context

    with channel(control, tls_context(control.trust_bundle)) as made:
        first = discovery_pb2.ProxyMessage(hello=hello("a"))
        refused(lambda: list(discovery_pb2_grpc.DiscoveryStub(made).Attach(iter([first]), timeout=10)), "certificate")


def test_keys_are_for_their_owner_alone(shop):
    secret_bits = stat.S_IRWXG | stat.S_IRWXO
    for directory in (shop.control_plane.data_dir, shop.web.data_dir):
        assert not stat.S_IMODE(os.stat(directory).st_mode) & secret_bits, directory
        for file in directory.rglob("*"):
            if file.is_file() and b"PRIVATE KEY" in file.read_bytes():
                assert not stat.S_IMODE(file.stat().st_mode) & secret_bits, file


def test_the_clis_socket_is_for_its_owner_alone(control):
    mode = stat.S_IMODE(os.stat(control.data_dir / "weft.sock").st_mode)
    assert not mode & (stat.S_IRWXG | stat.S_IRWXO)


# ---- as a client of somebody's inbound port


def knock(workload, context):
    """Connects to the inbound port and returns what came of it."""
    context.set_alpn_protocols([ALPN])
    try:
        with socket.create_connection(workload.inbound, 5) as raw, context.wrap_socket(raw) as secure:
            # In TLS 1.3 the server's refusal of a client certificate comes with the first read.
            data = secure.recv(1000)
            return "accepted" if data else "closed"
    except (ssl.SSLError, ConnectionResetError) as error:
        return str(error)


def strangers(directory, control):
    """Identities that no sidecar may accept, and a word that its log must say of each."""
    root, foreign = Root.of(control), Root()
    now = spiffe("shop", "web")
    return {
        "another root": (foreign.leaf(directory, "foreign", now), "issuer|authority|unknown"),
        "another trust domain": (root.leaf(directory, "domain", spiffe("shop", "web", "evil.example")), "trust domain"),
        "expired": (root.leaf(directory, "expired", now, starts=-7200, ends=-3600), "expired"),
        "not yet valid": (root.leaf(directory, "future", now, starts=3600, ends=7200), "not.?valid.?yet"),
        "two identities": (root.leaf(directory, "two", now, spiffe("shop", "b")), "URI"),
        "no SPIFFE ID": (root.leaf(directory, "none", "https://shop/web"), "SPIFFE"),
    }


STRANGERS = ["another root", "another trust domain", "expired", "not yet valid", "two identities", "no SPIFFE ID"]


def own_bundle(identity, control):
    """A context that presents the identity and trusts the mesh, so that only the other side refuses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(control.trust_bundle)
    context.load_cert_chain(identity.file)
    return context


@pytest.mark.parametrize("who", STRANGERS)
def test_a_stranger_is_not_let_in_and_the_log_says_why(shop, control, tmp_path, who):
    import re

    identity, word = strangers(tmp_path, control)[who]
    orders = shop.orders[0]
    before = len(orders.process.text())
    outcome = knock(orders, own_bundle(identity, control))
    assert outcome not in ("accepted",), outcome

    def said():
        return re.search(word, orders.process.text()[before:], re.IGNORECASE)

    wait_until(said, 5, f"the log to say {word!r}")


def test_nobody_is_let_in_without_a_certificate(shop, control):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(control.trust_bundle)
    assert knock(shop.orders[0], context) != "accepted"


def test_a_member_is_let_in_by_tls_1_3_only(shop, control, tmp_path):
    member = enroll(control, tmp_path, "shop", "web")
    assert knock(shop.orders[0], member.client_context()) == "accepted"
    old = member.client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "accepted" not in knock(shop.orders[0], old)


# ---- as the server that somebody is sent to


@pytest.fixture
def victim(shop, control, tmp_path):
    """Registers workload `victim` at a fake inbound port; the test gives the port's identity."""
    made = []
    shop.apply(service("victim"))
    rightful = enroll(control, tmp_path, "shop", "victim")

    def at(context, answer=lambda head: (200, [("x-served-by", "fake")]), name="victim"):
        inbound = FakeInbound(context, answer)
        greeting = hello(
            name, service_account="victim", inbound_port=inbound.port, labels={"app": "victim"},
            named_ports={"http": 8080}, ports_up=[8080],
        )  # fmt: skip
        stream = Attached(control, rightful, greeting)
        made.extend([stream, inbound])
        wait_until(lambda: shop.proxy(f"shop/{name}"), what="the fake sidecar in `weft proxies`")
        return inbound

    at.rightful = rightful
    yield at
    for one in made:
        one.close()


def test_the_expected_peer_is_called_over_the_hop_as_documented(shop, victim):
    inbound = victim(victim.rightful.server_context())
    wait_until(lambda: shop.web.get("/x", "victim.shop").status == 200, what="the fake sidecar's answer")
    assert inbound.tls_versions[0] == ("TLSv1.3", ALPN)
    head = inbound.heads[-1]
    said = dict(word.split("=") for word in head["weft-hop-stream"].split(" "))
    assert said["port"] == "8080" and said["protocol"] == "http/1.1", head
    assert said["instance"] == "victim-instance" and said["source"], head


@pytest.mark.parametrize("who", ["the right root but another identity", *STRANGERS])
def test_a_peer_that_is_not_whom_discovery_said_is_not_called(shop, control, victim, tmp_path, who):
    if who in STRANGERS:
        identity, _ = strangers(tmp_path, control)[who]
    else:
        identity = enroll(control, tmp_path, "shop", "mallory")
    context = identity.server_context()
    context.verify_mode = ssl.CERT_NONE
    inbound = victim(context)

    def refused_by_caller():
        response = shop.web.get("/", "victim.shop")
        assert response.status == 503, response
        return response.fault == "peer_identity"

    wait_until(refused_by_caller, what="peer_identity")
    assert inbound.heads == [], "a request was handed to a stranger"
    if who == "the right root but another identity":
        log = shop.web.process.text()
        assert "sa/mallory" in log and "sa/victim" in log, "the log names whom it met and whom it expected"


def test_a_request_for_another_instance_is_sent_elsewhere(shop, victim):
    """Address reuse: the sidecar found there refuses before its application, and the caller tries the next."""

    def not_me(head):
        return 421, [("weft-hop-unprocessed", "wrong_instance"), ("weft-fault", "wrong_instance")]

    refusing = victim(victim.rightful.server_context(), not_me, "victim-a")
    shop.instance("victim", 7)
    wait_until(lambda: shop.web.get("/", "victim.shop").status == 200, what="the live endpoint")
    seen = [shop.web.get("/", "victim.shop") for _ in range(20)]
    assert {r.header("x-served-by") for r in seen} == {"victim-7"}, [(r.status, r.fault) for r in seen]
    assert refusing.heads, "the refusing endpoint was never tried"


def over_the_hop(workload, member, port, instance):
    """What the workload's sidecar answers a member of the mesh that asks for a port of its host."""
    import h2.config
    import h2.connection

    context = member.client_context()
    context.set_alpn_protocols([ALPN])
    with socket.create_connection(workload.inbound, 5) as raw, context.wrap_socket(raw) as secure:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        connection.initiate_connection()
        head = [
            (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "orders.shop"),
            ("weft-hop-stream", f"port={port} protocol=http/1.1 instance={instance} source=test"),
        ]  # fmt: skip
        connection.send_headers(1, head, end_stream=True)
        secure.sendall(connection.data_to_send())
        while True:
            data = secure.recv(65536)
            assert data, "closed without an answer"
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    return dict(event.headers)


def test_the_wrong_instance_is_refused_before_the_application(shop, control, tmp_path):
    orders = shop.orders[0]
    before = orders.application.requests()
    answer = over_the_hop(orders, enroll(control, tmp_path, "shop", "web"), orders.ports["http"], "somebody-else")
    assert answer[":status"] == "421" and answer["weft-hop-unprocessed"] == "wrong_instance", answer
    assert orders.application.requests() == before


def test_what_listens_on_loopback_alone_is_reached_where_it_is_named(shop, control, tmp_path):
    """Any other port is no member's business unless whoever has no sidecar could reach it too."""
    named, hidden = shop.application("named"), shop.application("hidden")
    address = "127.0.0.9"
    inbound = (address, free_ports())
    listens = {"WEFT_ADDRESS": address, "WEFT_INBOUND_LISTEN": f"{address}:{inbound[1]}", "WEFT_INBOUND_PORT": str(inbound[1])}
    workload = shop.workload("named", ports={"http": named.port}, env=listens)
    workload.inbound = inbound
    shop.apply(service("named"))
    shop.wait_port_up(workload, named.port)
    member = enroll(control, tmp_path, "shop", "web")
    instance = (workload.data_dir / "instance").read_text().strip()

    def answer(port):
        answered = over_the_hop(workload, member, port, instance)
        return answered[":status"], answered.get("weft-fault")

    assert answer(named.port) == ("200", None)
    assert answer(hidden.port) == ("503", "application_unreachable")
    assert answer(workload.admin[1]) == ("508", "loop")
    assert answer(workload.outbound[1]) == ("508", "loop")
    assert hidden.requests() == 0
    assert shop.web.get(host="named.shop").status == 200


def test_another_control_plane_is_not_believed(shop, tmp_path):
    impostor = ControlPlane(tmp_path)
    try:
        env = {"WEFT_CONTROL_PLANE": impostor.address}
        misled = shop.workload("misled", env=env, wait=False)
        wait_until(lambda: "certificate" in misled.process.text().lower(), what="a word about the certificate")
        assert not (misled.process.alive() and misled.ready())
    finally:
        impostor.process.kill()


# ---- rotation


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [("--svid-ttl", "30s")], indirect=True)
@pytest.mark.timeout(500)
def test_certificates_of_30_seconds_are_renewed_under_load(mesh, soak):
    mesh.apply(service("orders"))
    instances = [mesh.instance("orders", n) for n in (1, 2)]
    web = mesh.workload("web")
    mesh.wait_endpoints(web, 2)
    seconds = 300 if soak else 50
    loads = [mesh.load(web, protocol=protocol, rate=100, duration=f"{seconds}s", connections=4) for protocol in ("http1", "h2c")]
    first = certificate_ends(mesh)
    for load in loads:
        assert_no_failure(load.report(seconds + 60), seconds * 90)
    last = certificate_ends(mesh)
    # The shortest of the renewal periods is under 30 s, so everyone has a new certificate by now.
    assert set(first) == {"shop/web", *(f"shop/{i.name}" for i in instances)}
    for name in first:
        assert last[name] > first[name], f"{name} never renewed"


def certificate_ends(mesh):
    ends = {}
    for entry in mesh.proxies():
        from mesh import field

        ends[entry["name"]] = field(entry, "certificate_not_after_unix_seconds") or field(entry, "certificate_not_after")
    assert all(ends.values()), ends
    return ends
