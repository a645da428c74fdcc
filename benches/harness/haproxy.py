"""HAProxy as a plain proxy: one thread, HTTP/2 inside the pair's TLS."""

from peer import Peer
from processes import run

CONFIGURATION = """
global
    nbthread 1
    maxconn 50000
    no strict-limits
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3

defaults
    mode {mode}
    {options}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    maxconn 50000

frontend in
    bind {bind} backlog 8192 {bind_options}
    {response}
    default_backend out

backend out
    {reuse}
    server application {server} {server_options}
"""


# An answer that came by HTTP/2 gets no reason phrase, and h2load takes `HTTP/1.1 200 ` for a failure.
REASON = "http-response set-status 200 reason OK if { status 200 }"


class Haproxy(Peer):
    """One process a side."""

    name = "haproxy"

    def version(self):
        return run(["haproxy", "-v"]).stdout.split(" ")[2]

    def command(self, scenario, inbound):
        http = scenario.wire != "tcp"
        tls = self.certificates.directory
        alpn = " alpn h2" if http else ""
        near = "proto h2" if scenario.wire == "h2c" else ""
        far = near
        if scenario.pair and inbound:
            near = f"ssl crt {tls}/server.pem ca-file {tls}/ca.crt verify required{alpn}"
        elif scenario.pair:
            far = f"ssl crt {tls}/client.pem ca-file {tls}/ca.crt verify required verifyhost server sni str(server){alpn}"
        text = CONFIGURATION.format(
            mode="http" if http else "tcp",
            options="option http-keep-alive" if http else "",
            reuse="http-reuse always" if http else "",
            response=REASON if scenario.pair and scenario.wire == "http1" and not inbound else "",
            bind="{}:{}".format(*self.listen(inbound)),
            bind_options=near,
            server="{}:{}".format(*self.upstream(scenario, inbound)),
            server_options=far,
        )
        file = self.directory / f"haproxy-{'inbound' if inbound else 'outbound'}.cfg"
        file.write_text(text)
        return ["haproxy", "-db", "-f", file]
