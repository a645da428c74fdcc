"""What every proxy is to the harness."""

from net import PROXY_CORE, PROXY_GID
from processes import Process, wait_until

# Where a proxy takes the client's connections, and where a pair's other end takes the first one's.
OUTBOUND, INBOUND = 4140, 4143


class Peer:
    """A proxy that is configured for one scenario at a time: an outbound one, and for a pair an inbound one."""

    name = ""

    def __init__(self, net, directory, certificates):
        self.net, self.directory, self.certificates = net, directory, certificates

    def supports(self, scenario):
        """Whether it can do the scenario at all."""
        return True

    def version(self):
        """What it calls itself."""
        raise NotImplementedError

    def command(self, scenario, inbound):
        """How it is run as the client's proxy, or as the server's."""
        raise NotImplementedError

    def start(self, scenario, processes):
        """Starts it with its interception; what is measured goes into `processes`."""
        sides = [] if scenario.called else [(self.net.client, False)]
        if scenario.pair or scenario.called:
            sides.append((self.net.server, True))
        for host, inbound in sides:
            name = f"{self.name}-{'inbound' if inbound else 'outbound'}"
            command = self.command(scenario, inbound)
            processes.append(Process(name, command, self.directory, host, PROXY_CORE, PROXY_GID))
            host.redirect()
        for process, (host, inbound) in zip(processes, sides, strict=True):
            port = INBOUND if inbound else OUTBOUND

            def up(process=process, host=host, port=port):
                process.must_live()
                return host.listens(port)

            wait_until(up, f"port {port} of {process.name}")

    def stop(self, processes):
        """Ends what was started, and takes its rules away."""
        for process in processes:
            process.stop(seconds=1)
        for host in (self.net.client, self.net.server):
            host.clear()

    def upstream(self, scenario, inbound):
        """Address and port that a proxy forwards to."""
        if inbound:
            return "127.0.0.1", scenario.port
        return self.net.server_address, INBOUND if scenario.pair else scenario.port

    def listen(self, inbound):
        """Address and port that a proxy listens on."""
        return ("0.0.0.0", INBOUND) if inbound else ("127.0.0.1", OUTBOUND)

    def close(self):
        """Ends what it kept between measurements."""
