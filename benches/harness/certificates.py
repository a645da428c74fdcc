"""Static certificates for the pairs that have no control plane: P-256, one authority."""

from processes import run

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Certificates:
    """`ca.crt`, and for `client` and `server` NAME.crt, NAME.key, and NAME.pem with both."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        ca = ["-subj", "/CN=bench", "-keyout", directory / "ca.key", "-out", directory / "ca.crt"]
        run(["openssl", "req", "-x509", *KEY, "-days", "30", *ca])
        for name in ("client", "server"):
            files = ["-keyout", directory / f"{name}.key", "-out", directory / f"{name}.crt"]
            issuer = ["-CA", directory / "ca.crt", "-CAkey", directory / "ca.key"]
            extensions = ["-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:FALSE"]
            run(["openssl", "req", "-x509", *KEY, "-days", "30", "-subj", f"/CN={name}", *issuer, *extensions, *files])
            both = (directory / f"{name}.crt").read_text() + (directory / f"{name}.key").read_text()
            (directory / f"{name}.pem").write_text(both)
