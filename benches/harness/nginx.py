"""nginx as a plain proxy: one process, HTTP/1.1 inside the pair's TLS, gRPC's module towards h2c."""

from peer import Peer
from processes import run

CONFIGURATION = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid {directory}/{name}.pid; error_log stderr error;
events {{ worker_connections 9900; }}
{body}
"""
HTTP = """
http {{
    access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 1h;
    http2_max_concurrent_streams 1024; client_max_body_size 0; proxy_max_temp_file_size 0;
    client_body_temp_path {directory}/{name}-1; proxy_temp_path {directory}/{name}-2;
    fastcgi_temp_path {directory}/{name}-3; uwsgi_temp_path {directory}/{name}-4;
    scgi_temp_path {directory}/{name}-5;
    upstream application {{
        server {server};
        keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 1h;
    }}
    server {{
        listen {listen} backlog=8192 {listen_options};
        {near}
        location / {{
            {forward}
            {far}
        }}
    }}
}}
"""
STREAM = """
stream {{
    server {{
        listen {listen} backlog=8192 {listen_options};
        tcp_nodelay on; proxy_timeout 1h; proxy_half_close on; proxy_pass {server};
        {near}
        {far}
    }}
}}
"""
FORWARD = {
    "http1": 'proxy_pass {scheme}://application; proxy_http_version 1.1; proxy_set_header Connection "";',
    "h2c": "grpc_pass grpc://application;",
}
CIPHERS = "Ciphersuites TLS_AES_128_GCM_SHA256"
NEAR_TLS = """
ssl_certificate {tls}/server.crt; ssl_certificate_key {tls}/server.key; ssl_client_certificate {tls}/ca.crt;
ssl_verify_client on; ssl_protocols TLSv1.3; ssl_conf_command {ciphers};
"""
FAR_TLS = """
proxy_ssl_certificate {tls}/client.crt; proxy_ssl_certificate_key {tls}/client.key;
proxy_ssl_trusted_certificate {tls}/ca.crt; proxy_ssl_verify on; proxy_ssl_name server;
proxy_ssl_protocols TLSv1.3; proxy_ssl_conf_command {ciphers};
"""


class Nginx(Peer):
    """One process a side."""

    name = "nginx"

    def supports(self, scenario):
        # It speaks no HTTP/2 to a server but for gRPC, and that not over a pair's pooled connections.
        return not (scenario.pair and scenario.wire == "h2c")

    def version(self):
        return run(["nginx", "-v"]).stderr.strip().rsplit("/", 1)[1]

    def command(self, scenario, inbound):
        name = f"nginx-{'inbound' if inbound else 'outbound'}"
        secret = {"tls": self.certificates.directory, "ciphers": CIPHERS}
        tcp, tls_near, tls_far = scenario.wire == "tcp", scenario.pair and inbound, scenario.pair and not inbound
        values = {
            "directory": self.directory,
            "name": name,
            "server": "{}:{}".format(*self.upstream(scenario, inbound)),
            "listen": "{}:{}".format(*self.listen(inbound)),
            "listen_options": "ssl" if tls_near else "http2" if scenario.wire == "h2c" else "",
            "near": NEAR_TLS.format(**secret) if tls_near else "",
            "far": ("proxy_ssl on;" if tcp else "") + FAR_TLS.format(**secret) if tls_far else "",
            "forward": "" if tcp else FORWARD[scenario.wire].format(scheme="https" if tls_far else "http"),
        }
        body = (STREAM if tcp else HTTP).format(**values)
        file = self.directory / f"{name}.conf"
        file.write_text(CONFIGURATION.format(**values, body=body))
        return ["nginx", "-c", file, "-p", self.directory, "-e", "stderr"]
