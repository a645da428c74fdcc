"""Applications that know nothing of the mesh, in hosts of their own, over IPv4 and IPv6."""

import json
import re
import statistics
import sys

import pytest

from mesh import APPS, PROXY, TESTKIT
from netns import PROXY_UID, Net, NetMesh
from process import wait_until
from wire_capture import flows, tls_version_chosen

# An application byte that must never be seen on the wire.
MARKER = "not-for-the-wire-7f3a9c"

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

# The application's port behind each service.
SERVICES = {
    "app": 8080, "pages": 8081, "web": 8082, "echo": 8083, "chat": 8084, "redis": 6379, "rabbit": 5672,
    "mariadb": 3306, "nats": 4222, "mail": 2525, "tcp": 9000,
}  # fmt: skip


def numbered_service(name, port):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": port}]},
    }


@pytest.fixture(scope="module", params=[4, 6], ids=["ipv4", "ipv6"])
def net(request, stubs):
    mesh = NetMesh(request.param)
    try:
        mesh.client, mesh.server, mesh.plain = (mesh.net.host(name) for name in ("client", "server", "plain"))
        mesh.before = mesh.client.rules()
        mesh.tcpdump, mesh.pcap = mesh.net.capture()
        mesh.sidecar(mesh.server)
        mesh.sidecar(mesh.client)
        mesh.plain.resolve_with(mesh.control.ip4)
        mesh.apply(*[numbered_service(name, port) for name, port in SERVICES.items()])
        mesh.server.start("app", [TESTKIT, "serve", "--name", "app", "--listen", "[::]:8080"])
        mesh.plain.start("app", [TESTKIT, "serve", "--name", "plain", "--listen", "[::]:8080"])
        mesh.server.listens(8080)
        mesh.plain.listens(8080)
        mesh.stubs = {"PYTHONPATH": str(stubs)}
        yield mesh
    finally:
        mesh.close()


def curl(net, url, *arguments, host=None, check=True):
    return (host or net.client).run("curl", "-sS", f"-{net.family}", "-m", "20", "-g", *arguments, url, check=check)


def offered(net, name):
    """Waits until the mesh offers the service to the client."""
    port = SERVICES[name]

    def up():
        listed = net.weft("proxies", "-o", "json").json()
        ports = [e.get("ports_up", e.get("portsUp")) for e in listed if e["name"] == "shop/server"]
        return ports and port in ports[0]

    wait_until(up, 30, f"port {port} of server")


def client(net, kind, name, *arguments, timeout=200):
    offered(net, name)
    return net.client.python("clients.py", kind, f"{name}.shop", SERVICES[name], net.family, MARKER, *arguments, timeout=timeout)


def test_curl_by_name(net):
    offered(net, "app")
    for name in ("app", "app.shop", "app.shop.svc.cluster.local"):
        seen = json.loads(curl(net, f"http://{name}:8080/{MARKER}", "-H", f"X-Marker: {MARKER}").stdout)
        assert seen["name"] == "app" and seen["path"] == f"/{MARKER}"
        assert dict(seen["headers"])["host"] == f"{name}:8080"


def test_curl_by_the_endpoints_own_address(net):
    offered(net, "app")
    host = net.server.address(net.family)
    host = f"[{host}]" if net.family == 6 else host
    assert json.loads(curl(net, f"http://{host}:8080/{MARKER}").stdout)["name"] == "app"


def test_http2_with_prior_knowledge(net):
    offered(net, "app")
    seen = json.loads(curl(net, f"http://app.shop:8080/{MARKER}", "--http2-prior-knowledge").stdout)
    assert seen["version"] == "HTTP/2.0"


def test_what_is_not_in_the_mesh_is_reached_as_ever(net):
    host = net.plain.address(net.family)
    host = f"[{host}]" if net.family == 6 else host
    assert json.loads(curl(net, f"http://{host}:8080/").stdout)["name"] == "plain"


def test_who_is_not_in_the_mesh_reaches_an_application_as_ever(net):
    host = net.server.address(net.family)
    host = f"[{host}]" if net.family == 6 else host
    assert json.loads(curl(net, f"http://{host}:8080/", host=net.plain).stdout)["name"] == "app"


def test_who_speaks_http_1_0_and_names_no_host_asks_whom_they_called(net):
    """As checks by load balancers do. The application gets HTTP/1.1, and servers refuse that with an empty Host."""
    offered(net, "app")
    server = net.server.address(net.family)
    server = f"[{server}]" if net.family == 6 else server
    for host, caller in (("app.shop", net.client), (server, net.client), (server, net.plain)):
        seen = json.loads(curl(net, f"http://{host}:8080/", "-0", "-H", "Host:", host=caller).stdout)
        assert (seen["version"], dict(seen["headers"])["host"]) == ("HTTP/1.1", f"{host}:8080")


def test_a_refused_port_is_still_refused(net):
    host = net.plain.address(net.family)
    host = f"[{host}]" if net.family == 6 else host
    outcome = curl(net, f"http://{host}:9/", check=False)
    assert outcome.returncode != 0 or "503" in outcome.stdout


def test_loopback_is_left_alone(net):
    net.client.start("own", [TESTKIT, "serve", "--name", "own", "--listen", "[::]:8090"])
    net.client.listens(8090)
    target = "127.0.0.1" if net.family == 4 else "[::1]"
    assert json.loads(curl(net, f"http://{target}:8090/").stdout)["name"] == "own"


def test_python_http_server(net):
    root = net.server.directory / "pages"
    root.mkdir()
    (root / "page.txt").write_text(MARKER * 5000)
    net.server.start("pages", [sys.executable, "-m", "http.server", "8081", "--bind", "::", "--directory", root])
    net.server.listens(8081)
    offered(net, "pages")
    assert curl(net, "http://pages.shop:8081/page.txt").stdout == MARKER * 5000
    assert "404" in curl(net, "http://pages.shop:8081/none", "-o", "/dev/null", "-w", "%{http_code}").stdout


def test_nginx(net):
    root = net.server.directory / "nginx"
    root.mkdir()
    (root / "index.html").write_text(MARKER)
    configuration = root / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {root}/pid; error_log {root}/error.log; user root; worker_processes 1;"
        "events {} http { access_log off;"
        + "".join(f"{kind}_temp_path {root}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        + f"server {{ listen [::]:8082 ipv6only=off; root {root}; }} }}"
    )
    net.server.start("nginx", ["nginx", "-p", root, "-c", configuration, "-e", root / "error.log"])
    net.server.listens(8082)
    offered(net, "web")
    assert curl(net, "http://web.shop:8082/").stdout == MARKER
    ranged = curl(net, "http://web.shop:8082/", "-r", "0-2", "-w", "%{http_code}").stdout
    assert ranged == MARKER[:3] + "206"


def test_grpc(net):
    net.server.start("grpc", [sys.executable, APPS / "grpc_server.py", "[::]:8083", "echo"], net.stubs)
    net.server.listens(8083)
    offered(net, "echo")
    address = net.virtual_ip(net.client, "echo.shop", net.family)
    target = f"ipv6:[{address}]:8083" if net.family == 6 else f"ipv4:{address}:8083"
    done = net.client.python("grpc_client.py", target, "echo.shop:8083", env=net.stubs)
    results = json.loads(done.stdout)
    assert set(results.values()) == {"ok"}, results


def test_websocket(net):
    net.server.start("chat", [sys.executable, APPS / "websocket.py", "serve", "::", "8084"])
    net.server.listens(8084)
    offered(net, "chat")
    address = net.virtual_ip(net.client, "chat.shop", net.family)
    assert net.client.python("websocket.py", "ask", "ws://chat.shop:8084/", address, 8084).stdout == "ok\n"


def test_redis(net):
    net.server.start("redis", ["redis-server", "--port", "6379", "--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "", "--dir", net.server.directory])  # fmt: skip
    net.server.listens(6379)
    client(net, "redis", "redis")


def test_mariadb(net):
    root = net.server.directory / "mariadb"
    net.server.run(
        "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={root}", "--auth-root-authentication-method=normal"
    )
    script = root / "init.sql"
    script.write_text(
        "CREATE DATABASE IF NOT EXISTS test;\nCREATE USER shop@'%' IDENTIFIED BY 'shop';\nGRANT ALL ON test.* TO shop@'%';\n"
    )
    command = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={root}", f"--socket={root}/sock", "--port=3306", "--bind-address=*", f"--init-file={script}", f"--pid-file={root}/pid", "--skip-name-resolve"]  # fmt: skip
    net.server.start("mariadb", command)
    net.server.listens(3306)
    client(net, "mariadb", "mariadb")


def test_nats(net):
    net.server.start("nats", ["nats-server", "-a", "::", "-p", "4222"])
    net.server.listens(4222)
    client(net, "nats", "nats")


def test_rabbitmq(net, soak):
    root = net.server.directory / "rabbitmq"
    root.mkdir()
    configuration = root / "rabbitmq.conf"
    configuration.write_text("listeners.tcp.1 = :::5672\nloopback_users = none\n")
    env = {
        "HOME": str(root),
        "RABBITMQ_NODENAME": "rabbit@localhost",
        "RABBITMQ_MNESIA_BASE": str(root / "data"),
        "RABBITMQ_LOG_BASE": str(root / "log"),
        "RABBITMQ_PID_FILE": str(root / "pid"),
        "RABBITMQ_CONFIG_FILE": str(configuration),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(root / "plugins"),
        "RABBITMQ_LOGS": "-",
    }
    net.server.start("epmd", ["epmd"])
    net.server.listens(4369)
    net.server.start("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], env)
    net.server.listens(5672)
    client(net, "rabbitmq", "rabbit", 180 if soak else 15, timeout=280)


def test_mail(net):
    net.server.start("mail", [sys.executable, APPS / "smtp.py", "::", "2525"])
    net.server.listens(2525)
    client(net, "smtp", "mail")


def test_the_first_byte_of_a_server_that_speaks_first_comes_at_once(net):
    net.plain.start("greet", [TESTKIT, "tcp", "--listen", "[::]:2525", "--behaviour", "greet"])
    net.plain.listens(2525)
    offered(net, "mail")
    arguments = (2525, net.family, MARKER)
    through = net.client.python("clients.py", "first_byte", "mail.shop", *arguments).stdout.split()
    direct = net.control.python("clients.py", "first_byte", net.plain.address(net.family), *arguments).stdout.split()
    extra = [float(value) - statistics.median(map(float, direct)) for value in through]
    assert statistics.median(extra) < 20, extra
    assert extra[0] < 20, f"the first connection took {extra[0]:.1f} ms more"


def test_half_close(net):
    net.server.start("tcp", [TESTKIT, "tcp", "--listen", "[::]:9000", "--behaviour", "echo"])
    net.server.listens(9000)
    client(net, "half_close", "tcp")


def test_names_of_the_mesh_and_names_outside(net):
    assert net.virtual_ip(net.client, "app", 4).startswith("24")
    assert net.virtual_ip(net.client, "app.shop", 6).startswith("fd77:6566:7400:")
    assert net.virtual_ip(net.client, "www.example", 4) == "10.77.0.99"
    assert net.virtual_ip(net.client, "www.example", 6) == "fd00:77::99"
    script = "import socket,sys\ntry: print(socket.getaddrinfo(sys.argv[1],1))\nexcept socket.gaierror as e: print(e.errno)"
    assert net.client.run(sys.executable, "-c", script, "nothing.shop").stdout.strip() == "-2"


def test_init_twice_changes_nothing(net):
    first = net.client.rules()
    assert "4140" in first
    net.init(net.client)
    assert without_counters(net.client.rules()) == without_counters(first)


def without_counters(rules):
    # A host's link-local address appears when its interface has settled; it is nobody's rule.
    rules = re.sub(r".* fe80::.*\n|.*multicast.*\n", "", rules)
    return re.sub(r"packets \d+ bytes \d+|# handle \d+", "", rules)


def test_a_dry_run_of_init_prints_the_rules_and_sets_none(net):
    before = net.plain.rules()
    printed = net.plain.run(PROXY, "init", "--proxy-uid", PROXY_UID, "--dry-run").stdout
    assert "4140" in printed and "4143" in printed
    assert net.plain.rules() == before


def test_the_sidecar_runs_without_privileges(net):
    status = open(f"/proc/{net.client.sidecar.pid}/status").read()
    assert re.search(rf"^Uid:\s+{PROXY_UID}\b", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)


def test_zz_the_wire_carried_tls_1_3_and_no_application_byte(net):
    """Runs last in this file: everything above went over this wire."""
    offered(net, "app")
    curl(net, f"http://app.shop:8080/{MARKER}", "-H", f"X-Marker: {MARKER}")
    net.tcpdump.stop()
    client, server = net.client.address(net.family), net.server.address(net.family)
    seen = 0
    for flow in flows(net.pcap):
        ends = {flow.source[0], flow.destination[0]}
        assert MARKER.encode() not in flow.data, f"in the clear: {flow.source} -> {flow.destination}"
        if ends == {client, server}:
            assert 4143 in (flow.source[1], flow.destination[1]), f"around the mesh: {flow.source} -> {flow.destination}"
            if flow.source[1] == 4143:
                assert tls_version_chosen(flow) == 0x0304
                seen += 1
    assert seen, "nothing between client and server on the wire"


def test_zz_cleanup_leaves_nothing(net):
    net.client.run(PROXY, "cleanup")
    assert without_counters(net.client.rules()) == without_counters(net.before)
    net.client.run(PROXY, "cleanup")


@pytest.fixture
def bare():
    made = Net()
    yield made.host("bare")
    made.close()


def test_init_skips_what_it_is_told_to(bare):
    bare.run(
        PROXY, "init", "--proxy-gid", PROXY_UID, "--skip-inbound-ports", "22,9000", "--skip-outbound-ports", "53,25",
        "--skip-outbound-cidrs", "192.0.2.0/24,2001:db8::/32",
    )  # fmt: skip
    rules = bare.rules()
    for word in ("9000", "25", "192.0.2.0/24", "2001:db8::/32", str(PROXY_UID)):
        assert word in rules, word
    bare.run(PROXY, "cleanup")
    assert "4140" not in bare.rules()


def test_init_without_rights_says_what_to_do(bare):
    copy = bare.net.program_for(PROXY)
    outcome = bare.run(copy, "init", "--proxy-uid", PROXY_UID, uid=65534, check=False)
    assert outcome.returncode == 1
    assert re.search("CAP_NET_ADMIN|root|privilege", outcome.stderr), outcome.stderr
    wrong = bare.run(PROXY, "init", "--proxy-uid", "nobody-such", check=False)
    assert wrong.returncode == 2, wrong
