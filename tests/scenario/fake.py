"""A sidecar played by the test: real protocol, real certificates, and a will of its own."""

import contextlib
import datetime
import queue
import select
import socket
import ssl
import threading

import grpc
import h2.config
import h2.connection
import h2.events
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ALPN = "weft/1"


def spiffe(namespace, service_account, trust_domain="weft.local"):
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificate_request(key, *uris):
    """A PKCS#10 request in DER with these URI names."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


class Root:
    """A certificate authority of the test, or the control plane's own, read from its directory."""

    def __init__(self, key=None, certificate=None):
        self.key = key or new_key()
        self.certificate = certificate or self._self_signed()

    def _self_signed(self):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a root of the test")])
        return (
            _builder(name, name, self.key.public_key(), -60, 3600)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @classmethod
    def of(cls, control_plane):
        """The root whose certificate is the trust bundle and whose key lies beside it."""
        certificate = x509.load_pem_x509_certificate(control_plane.trust_bundle.read_bytes())
        for file in control_plane.data_dir.rglob("*"):
            if not file.is_file() or file.stat().st_size > 100_000:
                continue
            data = file.read_bytes()
            if b"PRIVATE KEY-----" not in data:
                continue
            key = serialization.load_pem_private_key(data[data.index(b"-----BEGIN") :], None)
            if key.public_key() == certificate.public_key():
                return cls(key, certificate)
        raise AssertionError("no key of the root in the control plane's directory")

    def leaf(self, directory, name, *uris, starts=-60, ends=3600):
        """An identity signed by this root; seconds from now."""
        key = new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, self.certificate.subject, key.public_key(), starts, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
            .sign(self.key, hashes.SHA256())
        )
        return Identity(directory, name, key, [certificate.public_bytes(serialization.Encoding.DER)], self.pem())

    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def _builder(subject, issuer, public_key, starts, ends):
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(seconds=starts))
        .not_valid_after(now + datetime.timedelta(seconds=ends))
    )


class Identity:
    """Key and chain, as files for Python's ssl."""

    def __init__(self, directory, name, key, chain_der, bundle_pem):
        self.file = directory / f"identity-{name}.pem"
        pems = [ssl.DER_cert_to_PEM_cert(der) for der in chain_der]
        self.file.write_bytes(key_pem(key) + "".join(pems).encode())
        self.bundle = directory / f"bundle-{name}.pem"
        self.bundle.write_bytes(bundle_pem)
        self.key = key
        self.chain = chain_der

    def client_context(self):
        context = tls_context(self.bundle)
        context.load_cert_chain(self.file)
        return context

    def server_context(self, alpn=ALPN):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.file)
        context.load_verify_locations(self.bundle)
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols([alpn])
        return context


def tls_context(bundle):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(bundle)
    return context


class TlsDoor:
    """A plain local port that leads to a TLS one: grpcio can't leave host names unchecked."""

    def __init__(self, address, context):
        self._address = address
        self._context = context
        context.set_alpn_protocols(["h2"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(peer,), daemon=True).start()

    def _join(self, peer):
        with contextlib.suppress(OSError), peer, socket.create_connection(self._address) as raw:
            with self._context.wrap_socket(raw) as secure:
                while True:
                    ready = [secure] if secure.pending() else select.select([peer, secure], [], [])[0]
                    for one in ready:
                        data = one.recv(65536)
                        if not data:
                            return
                        (secure if one is peer else peer).sendall(data)

    def close(self):
        self._listener.close()


@contextlib.contextmanager
def channel(control_plane, context):
    door = TlsDoor((control_plane.host, control_plane.port), context)
    try:
        with grpc.insecure_channel(door.target) as made:
            yield made
    finally:
        door.close()


def issue(control_plane, csr, token="", identity=None):
    """Asks for a certificate: with a token, or with the identity to renew."""
    from weft.v1alpha1 import identity_pb2, identity_pb2_grpc

    context = identity.client_context() if identity else tls_context(control_plane.trust_bundle)
    with channel(control_plane, context) as made:
        stub = identity_pb2_grpc.IdentityStub(made)
        return stub.Issue(identity_pb2.IssueRequest(csr=csr, token=token), timeout=10)


def enroll(control_plane, directory, namespace, service_account):
    """A whole identity from the control plane, as a sidecar gets it."""
    key = new_key()
    token = control_plane.token(namespace, service_account)
    answer = issue(control_plane, certificate_request(key, spiffe(namespace, service_account)), token)
    roots = [ssl.DER_cert_to_PEM_cert(root) for root in answer.trust_bundle.roots]
    return Identity(directory, f"{namespace}-{service_account}", key, list(answer.certificate_chain), "".join(roots).encode())


class Attached:
    """A sidecar's stream to the control plane, with the test answering."""

    def __init__(self, control_plane, identity, hello):
        from weft.v1alpha1 import discovery_pb2, discovery_pb2_grpc

        self.pb = discovery_pb2
        self._context = contextlib.ExitStack()
        made = self._context.enter_context(channel(control_plane, identity.client_context()))
        self._out = queue.Queue()
        self.pushes = queue.Queue()
        self.error = None
        self.reject = {}
        self.held = {}
        self.send(hello=hello)
        self._call = discovery_pb2_grpc.DiscoveryStub(made).Attach(iter(self._out.get, None))
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, **message):
        self._out.put(self.pb.ProxyMessage(**message))

    def subscribe(self, *names):
        add = [self.pb.ResourceName(type=kind, name=name) for kind, name in names]
        self.send(subscribe=self.pb.Subscribe(add=add))

    def _read(self):
        try:
            for message in self._call:
                if message.HasField("push"):
                    self._take(message.push)
        except grpc.RpcError as error:
            self.error = error

    def _take(self, push):
        rejected = []
        for resource in push.resources:
            reason = self.reject.get((resource.type, resource.name))
            if reason:
                rejected.append(
                    self.pb.Rejection(
                        type=resource.type, name=resource.name, version=resource.version, field="spec.test", reason=reason
                    )
                )
            else:
                self.held[resource.type, resource.name] = resource
        self.send(acknowledge=self.pb.Acknowledge(nonce=push.nonce, rejected=rejected))
        self.pushes.put(push)

    def close(self):
        self._out.put(None)
        self._call.cancel()
        self._context.close()


def hello(workload, namespace="shop", service_account=None, inbound_port=1, instance=None, **more):
    from weft.v1alpha1 import discovery_pb2

    return discovery_pb2.Hello(
        workload=workload,
        namespace=namespace,
        service_account=service_account or workload,
        instance=instance or f"{workload}-instance",
        address="127.0.0.1",
        inbound_port=inbound_port,
        proxy_version="test",
        **more,
    )


class FakeInbound:
    """The inbound port of a sidecar: takes connections with `identity` and answers by `answer(head)`."""

    def __init__(self, context, answer):
        self._context = context
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heads = []
        self.tls_versions = []
        self.tls_errors = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        try:
            secure = self._context.wrap_socket(peer, server_side=True)
        except OSError as error:
            self.tls_errors.append(error)
            return
        self.tls_versions.append((secure.version(), secure.selected_alpn_protocol()))
        config = h2.config.H2Configuration(client_side=False, header_encoding="latin-1", validate_inbound_headers=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        with contextlib.suppress(OSError), secure:
            secure.sendall(connection.data_to_send())
            while data := secure.recv(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        self.heads.append(dict(event.headers))
                        status, headers = self._answer(dict(event.headers))
                        connection.send_headers(event.stream_id, [(":status", str(status)), *headers], end_stream=True)
                secure.sendall(connection.data_to_send())

    def close(self):
        self._listener.close()
