"""A backend outside the mesh that speaks TLS: a CA of its own, and nginx."""

import subprocess

from mesh import endpoint_slice, free_ports
from process import wait_until


class Ca:
    """Signs certificates, with openssl."""

    def __init__(self, directory, name):
        self.directory = directory
        self.certificate = directory / f"{name}.crt"
        self.key = directory / f"{name}.key"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.certificate,
        )  # fmt: skip

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def sign(self, name, subject_alt_names, days=2):
        """A key and a certificate for these names."""
        key, request, certificate = (self.directory / f"{name}.{end}" for end in ("key", "csr", "crt"))
        names = self.directory / f"{name}.ext"
        names.write_text(f"subjectAltName={subject_alt_names}\nbasicConstraints=critical,CA:FALSE\n")
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name}", "-keyout", key, "-out", request,
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
            "-days", days, "-extfile", names, "-out", certificate,
        )  # fmt: skip
        return key, certificate

    def config_map(self, name="ca", namespace="shop"):
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": {"ca.crt": self.certificate.read_text(), "other": "left alone"},
        }


class TlsServer:
    """nginx: says which protocol, server name, host and scheme it saw, and echoes what it is sent."""

    def __init__(self, mesh, name, key_and_certificate, http2=True):
        key, certificate = key_and_certificate
        self.port = free_ports()
        root = mesh.directory / f"nginx-{name}"
        root.mkdir()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        configuration = root / "nginx.conf"
        configuration.write_text(
            # One process: a worker would outlive a master that is killed, as everything here is in the end.
            f"daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;"
            "events {} http { access_log off; keepalive_timeout 60s;"
            + "".join(f"{kind}_temp_path {root}/{kind};" for kind in kinds)
            + f"server {{ listen 127.0.0.1:{self.port} ssl {'http2' if http2 else ''};"
            f"ssl_certificate {certificate}; ssl_certificate_key {key};"
            'location / { default_type text/plain; add_header seen "$server_protocol $ssl_server_name $http_host $scheme";'
            'add_header connection-requests $connection_requests; add_header connection-number $connection; return 200 "hello\n"; }'
            f"location /files/ {{ alias {root}/; dav_methods PUT; client_max_body_size 64m; }} }} }}"
        )
        (root / "big").write_bytes(bytes(range(256)) * 8192)
        self.root = root
        self.process = mesh.program(f"nginx-{name}", ["nginx", "-p", root, "-c", configuration, "-e", root / "error.log"])
        wait_until(self._listens, what=f"nginx {name}")

    def _listens(self):
        self.process.must_live()
        check = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}"]
        return subprocess.run(check, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def outside(name, port, app_protocol=None, namespace="shop"):
    """A Service for what is outside, and its endpoint."""
    entry = {"name": "main", "port": 443, "targetPort": port}
    if app_protocol:
        entry["appProtocol"] = app_protocol
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [entry]},
    }
    endpoints = endpoint_slice(name, name, ["127.0.0.1"], port, namespace)
    endpoints["ports"][0]["name"] = "main"
    return service, endpoints


def tls_policy(name, target, hostname, subject_alt_names=None, section=None, namespace="shop", **roots):
    """A BackendTLSPolicy; without roots, with the certificates of ConfigMap `ca`."""
    reference = {"group": "", "kind": "Service", "name": target}
    if section:
        reference["sectionName"] = section
    roots = roots or {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}
    validation = {"hostname": hostname, **roots}
    if subject_alt_names:
        validation["subjectAltNames"] = subject_alt_names
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"targetRefs": [reference], "validation": validation},
    }
