"""The proxies by name. Each is started anew for every measurement, so that its memory is that one's."""

from envoy import Envoy
from haproxy import Haproxy
from nginx import Nginx
from relay import Relay
from weft import Weft

ALL = {peer.name: peer for peer in (Weft, Haproxy, Nginx, Envoy, Relay)}


def configure(programs):
    """Where weft's own programs are."""
    Weft.programs = programs
    Relay.testkit = programs / "weft-testkit"
