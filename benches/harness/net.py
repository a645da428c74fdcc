"""Two hosts made of network namespaces, joined by a veth pair, and a third one for the control plane."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from processes import run

# Proxies run as this group; interception lets through what it sends.
PROXY_GID = 4143
LOAD_CORE, PROXY_CORE = 0, 1
# Where clients call. The addresses belong to nobody: interception alone makes them work.
ONE_HOP, PAIR = "10.96.0.1", "10.96.0.2"

# The shape of what `weft-proxy init` makes, for the other proxies.
REDIRECT = f"""
table inet bench {{
    chain outbound {{
        type nat hook output priority -100; policy accept;
        meta skgid {PROXY_GID} return
        ip daddr 127.0.0.0/8 return
        ip6 daddr ::1 return
        fib daddr type local return
        meta l4proto tcp redirect to :4140
    }}
    chain inbound {{
        type nat hook prerouting priority -100; policy accept;
        iifname "lo" return
        fib daddr type != local return
        tcp dport {{ 4143, 4191 }} return
        meta l4proto tcp redirect to :4143
    }}
}}
"""
# Thousands of short connections a second: their remains must not fill the tables of the next peer, nor
# hold a port that the next one listens on, all of which are below 10000.
SETTINGS = {
    "net.ipv4.ip_local_port_range": "10000 65535",
    "net.ipv4.tcp_tw_reuse": "1",
    "net.core.somaxconn": "8192",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait": "2",
    "net.netfilter.nf_conntrack_tcp_timeout_close": "2",
}


def ip(*arguments):
    """`ip` of iproute2."""
    return run(["ip", *arguments]).stdout


class Host:
    """One namespace."""

    def __init__(self, net, name):
        self.namespace = f"wb{os.getpid()}-{name}"
        ip("netns", "add", self.namespace)
        net.hosts.append(self)
        ip("-n", self.namespace, "link", "set", "lo", "up")

    def join(self, other, device, far_device, network):
        """A veth pair; this end gets .1, the other .2."""
        far = ["peer", "name", far_device, "netns", other.namespace]
        ip("link", "add", device, "netns", self.namespace, "type", "veth", *far)
        for host, name, number in ((self, device, 1), (other, far_device, 2)):
            ip("-n", host.namespace, "addr", "add", f"{network}.{number}/24", "dev", name)
            ip("-n", host.namespace, "link", "set", name, "up")

    def redirect(self):
        """Interception for another proxy than weft's."""
        run(["nft", "-f", "-"], host=self, input=REDIRECT)

    def clear(self):
        """Takes every rule away."""
        run(["nft", "flush", "ruleset"], host=self)

    def listens(self, port):
        """Whether something listens on the TCP port."""
        return re.search(rf":{port}\s", run(["ss", "-Hltn"], host=self).stdout)


class Net:
    """client --- server, and both to the control plane by wires of their own."""

    def __init__(self):
        self.hosts = []
        sweep()
        try:
            self.client, self.server, self.control = (Host(self, name) for name in ("client", "server", "control"))
            self.client.join(self.server, "eth0", "eth0", "10.78.0")
            self.client.join(self.control, "control", "client", "10.78.1")
            self.server.join(self.control, "control", "server", "10.78.2")
            for host in (self.client, self.server):
                ip("-n", host.namespace, "route", "add", "default", "dev", "eth0")
                # Rules make the kernel load and count connections, without which their settings don't exist.
                host.redirect()
                run(["sysctl", "-qw", *(f"{name}={value}" for name, value in SETTINGS.items())], host=host)
                host.clear()
        except BaseException:
            self.close()
            raise

    client_address, server_address = "10.78.0.1", "10.78.0.2"

    def close(self):
        """Takes the namespaces away, and all that is in them."""
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True)


def sweep():
    """Takes away what a killed run left; its processes went with it."""
    for directory in Path(tempfile.gettempdir()).glob("weft-bench-*-*"):
        owner = directory.name.split("-")[2]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(directory, ignore_errors=True)
    for name in re.findall(r"^wb\d+-\w+", ip("netns", "list"), re.MULTILINE):
        if not os.path.exists(f"/proc/{name[2:].split('-')[0]}"):
            ip("netns", "del", name)
