"""Envoy as a plain proxy: one worker, no access log, no tracing, HTTP/2 inside the pair's TLS."""

import json
import os

from peer import Peer
from processes import run

TYPES = "type.googleapis.com/envoy.extensions"
MANAGER = f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
WINDOWS = {"max_concurrent_streams": 1024}
MANY = 1_000_000


def typed(name, kind, **fields):
    """An extension with its configuration."""
    return {"name": name, "typed_config": {"@type": kind, **fields}}


def address(pair):
    """A socket's address."""
    return {"socket_address": {"address": pair[0], "port_value": pair[1]}}


class Envoy(Peer):
    """One process a side."""

    name = "envoy"
    program = os.environ.get("WEFT_BENCH_ENVOY", "envoy")

    def version(self):
        return run([self.program, "--version"]).stdout.strip().split("version: ")[-1]

    def command(self, scenario, inbound):
        name = f"envoy-{'inbound' if inbound else 'outbound'}"
        listener = {
            "name": "in",
            "address": address(self.listen(inbound)),
            "filter_chains": [self._filter_chain(scenario, inbound)],
        }
        resources = {"listeners": [listener], "clusters": [self._cluster(scenario, inbound)]}
        file = self.directory / f"{name}.json"
        file.write_text(json.dumps({"static_resources": resources}))
        options = ["--concurrency", 1, "--disable-hot-restart", "--log-level", "error"]
        return [self.program, "-c", file, *options]

    def _filter_chain(self, scenario, inbound):
        if scenario.wire == "tcp":
            kind = f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"
            chain = {"filters": [typed("tcp", kind, stat_prefix="in", cluster="out")]}
        else:
            inside = scenario.wire == "h2c" or (scenario.pair and inbound)
            route = {"match": {"prefix": "/"}, "route": {"cluster": "out", "timeout": "0s"}}
            router = typed("envoy.filters.http.router", f"{TYPES}.filters.http.router.v3.Router")
            manager = typed(
                "http", MANAGER, stat_prefix="in", codec_type="HTTP2" if inside else "HTTP1",
                http2_protocol_options=WINDOWS, http_filters=[router],
                route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            )  # fmt: skip
            chain = {"filters": [manager]}
        if scenario.pair and inbound:
            kind = f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"
            secrets = self._secrets("server", scenario)
            required = {"require_client_certificate": True}
            chain["transport_socket"] = typed("tls", kind, common_tls_context=secrets, **required)
        return chain

    def _cluster(self, scenario, inbound):
        endpoint = {"endpoint": {"address": address(self.upstream(scenario, inbound))}}
        limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), MANY)
        cluster = {
            "name": "out",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {"cluster_name": "out", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
        if scenario.wire != "tcp":
            http2 = scenario.wire == "h2c" or (scenario.pair and not inbound)
            protocol = {"http2_protocol_options": WINDOWS} if http2 else {"http_protocol_options": {}}
            kind = f"{TYPES}.upstreams.http.v3.HttpProtocolOptions"
            options = {"@type": kind, "explicit_http_config": protocol}
            cluster["typed_extension_protocol_options"] = {kind.split("/", 1)[1]: options}
        if scenario.pair and not inbound:
            kind = f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"
            secrets = self._secrets("client", scenario)
            cluster["transport_socket"] = typed("tls", kind, sni="server", common_tls_context=secrets)
        return cluster

    def _secrets(self, name, scenario):
        files = {field: {"filename": f"{self.certificates.directory}/{file}"} for field, file in (
            ("certificate_chain", f"{name}.crt"), ("private_key", f"{name}.key"), ("trusted_ca", "ca.crt"),
        )}  # fmt: skip
        authority = files.pop("trusted_ca")
        return {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [files],
            "validation_context": {"trusted_ca": authority},
            **({"alpn_protocols": ["h2"]} if scenario.wire != "tcp" else {}),
        }
