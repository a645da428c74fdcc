"""A bare byte relay: the floor. Its pair has no TLS."""

import resource

from peer import Peer


class Relay(Peer):
    """`weft-testkit relay`."""

    name = "relay"
    testkit = None

    def supports(self, scenario):
        # It pools nothing: a connection takes two descriptors, and an unprivileged run can't have more.
        return 2 * scenario.connections + 100 < resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def version(self):
        return "weft-testkit relay"

    def command(self, scenario, inbound):
        listen, to = self.listen(inbound), self.upstream(scenario, inbound)
        return [self.testkit, "relay", "--listen", "{}:{}".format(*listen), "--to", "{}:{}".format(*to)]
