"""The applications that everything is measured with, in the server's host on the core of the load."""

import shutil
from pathlib import Path

from net import LOAD_CORE
from processes import Process, run, wait_until

HTTP1, FILES_H2C, APPLICATION, ECHO, COUNT, SOURCE = 8080, 8081, 8082, 9000, 9001, 9002
PORTS = (HTTP1, FILES_H2C, APPLICATION, ECHO, COUNT, SOURCE)
BULK_CONNECTIONS = 4

NGINX = """
daemon off; master_process off; pid {directory}/backend.pid; error_log stderr error;
events {{ worker_connections 65536; }}
http {{
    access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; default_type application/octet-stream;
    open_file_cache max=16; keepalive_requests 1000000000; keepalive_timeout 1h;
    http2_max_concurrent_streams 1024;
    client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
    uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
    server {{
        listen {http1} backlog=8192;
        listen {h2c} http2 backlog=8192;
        root {directory};
        location = / {{ return 200 "{body}"; }}
    }}
}}
"""


def own(program, directory):
    """A copy of a program, so that a proxy that is the same program shares no memory with it."""
    copy = directory / f"own-{Path(program).name}"
    shutil.copy(program, copy)
    return copy


class Servers:
    """nginx for HTTP/1 and large bodies, the testkit for HTTP/2 and TCP.

    nginx makes two writes for each small answer by HTTP/2, one for the head and one for the body: what is measured then
    is how often a proxy is woken up, which is the same for all, a bare relay too.
    """

    def __init__(self, net, testkit, directory, bulk_bytes):
        self.processes = []
        (directory / "16k").write_bytes(b"x" * 16 * 1024)
        (directory / "1m").write_bytes(b"x" * 1024 * 1024)
        configuration = directory / "backend.conf"
        text = NGINX.format(directory=directory, http1=HTTP1, h2c=FILES_H2C, body="x" * 128)
        configuration.write_text(text)
        commands = {
            "nginx": [own(shutil.which("nginx"), directory), "-c", configuration, "-p", directory, "-e", "stderr"],
            "application": [testkit, "serve", "--listen", f"0.0.0.0:{APPLICATION}"],
            "echo": [testkit, "tcp", "--listen", f"0.0.0.0:{ECHO}"],
            "count": [testkit, "tcp", "--listen", f"0.0.0.0:{COUNT}", "--behaviour", "count"],
            "source": [
                testkit, "tcp", "--listen", f"0.0.0.0:{SOURCE}", "--behaviour", "source",
                "--bytes", bulk_bytes // BULK_CONNECTIONS,
            ],
        }  # fmt: skip
        try:
            for name, command in commands.items():
                process = Process(f"backend-{name}", command, directory, net.server, LOAD_CORE)
                self.processes.append(process)
            wait_until(lambda: self._up(net), "the backends")
        except BaseException:
            self.stop()
            raise

    def _up(self, net):
        for process in self.processes:
            process.must_live()
        listening = run(["ss", "-Hltn"], host=net.server).stdout
        return all(f":{port} " in listening for port in PORTS)

    def stop(self):
        """Ends them."""
        for process in self.processes:
            process.stop(seconds=1)
