"""Traces: a span for each side of each hop, in an OpenTelemetry collector; and a bad collector is not felt."""

import socket
import time

import pytest

from collector import Collector, attributes, telemetry
from mesh import assert_no_failure, service
from process import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
CLIENT, SERVER = 3, 2


def shop_with(mesh, env):
    mesh.apply(service("orders"))
    orders = mesh.instance("orders", env=env)
    web = mesh.workload("web", env=env)
    mesh.wait_endpoints(web, 1)
    return web, orders


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_both_sides_of_a_hop_are_spans_with_the_right_parents(mesh, protocol):
    collector = Collector(protocol)
    try:
        web, _ = shop_with(mesh, telemetry(collector.port, protocol))
        response = web.get("/traced?x=1", traceparent=f"00-{TRACE}-{CALLER}-01", tracestate="vendor=value")
        seen = response.echoed("traceparent").split("-")
        assert seen[1] == TRACE
        assert response.echoed("tracestate") == "vendor=value"
        spans = wait_until(lambda: len(collector.of(TRACE)) >= 2 and collector.of(TRACE), 10, "two spans")
        by_parent = {span.parent_span_id.hex(): span for _, span in spans}
        outbound = by_parent[CALLER]
        inbound = by_parent[outbound.span_id.hex()]
        assert outbound.kind == CLIENT and inbound.kind == SERVER
        assert seen[2] == inbound.span_id.hex(), "the application continues from the inbound span"
        for span in (outbound, inbound):
            known = attributes(span)
            assert known["http.request.method"] == "GET" and known["http.response.status_code"] == 200, known
            assert known["url.path"] == "/traced", known
            assert span.end_time_unix_nano > span.start_time_unix_nano
        assert outbound.start_time_unix_nano <= inbound.start_time_unix_nano
        assert inbound.end_time_unix_nano <= outbound.end_time_unix_nano
        assert {name for name, _ in spans} != {None}
    finally:
        collector.close()


def test_how_long_a_request_over_http2_takes_is_looked_at_when_it_begins_and_when_it_ends(mesh):
    """Requests that are carried are told the time in batches; one that takes long ends in another than it began in."""
    collector = Collector("grpc")
    try:
        web, _ = shop_with(mesh, telemetry(collector.port, "grpc"))
        client = web.http2()
        for delay in (0, 400):
            trace = f"{delay + 1:032x}"
            began = time.time_ns()
            headers = [("traceparent", f"00-{trace}-{CALLER}-01")]
            assert client.get(f"/?delay={delay}", headers=headers).status == 200
            took = time.time_ns() - began
            spans = wait_until(lambda: len(collector.of(trace)) >= 2 and collector.of(trace), 10, "two spans")
            for _, span in spans:
                length = span.end_time_unix_nano - span.start_time_unix_nano
                assert delay * 1_000_000 <= length <= took, (length, took)
    finally:
        collector.close()


def test_a_trace_begins_here_when_the_caller_has_none(mesh):
    collector = Collector("grpc")
    try:
        web, _ = shop_with(mesh, telemetry(collector.port, "grpc"))
        trace = web.get("/fresh").echoed("traceparent").split("-")[1]
        spans = wait_until(lambda: len(collector.of(trace)) >= 2 and collector.of(trace), 10, "two spans")
        assert [span for _, span in spans if not span.parent_span_id]
        wait_until(lambda: trace in web.process.text(), 5, "the trace id in the access log")
    finally:
        collector.close()


def test_b3_is_understood(mesh):
    collector = Collector("grpc")
    try:
        web, _ = shop_with(mesh, telemetry(collector.port, "grpc"))
        web.get("/b3", b3=f"{TRACE}-{CALLER}-1")
        wait_until(lambda: len(collector.of(TRACE)) >= 2, 10, "two spans")
    finally:
        collector.close()


def test_a_fault_is_in_the_span(mesh):
    collector = Collector("grpc")
    try:
        mesh.apply(service("empty"))
        web = mesh.workload("web", env=telemetry(collector.port, "grpc"))
        web.get("/", "empty.shop", traceparent=f"00-{TRACE}-{CALLER}-01")
        spans = wait_until(lambda: collector.of(TRACE), 10, "the span")
        known = attributes(spans[0][1])
        assert "no_endpoint" in known.values(), known
        assert spans[0][1].status.code == 2
    finally:
        collector.close()


def test_a_collector_that_never_answers_slows_nothing(mesh):
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        web, _ = shop_with(mesh, telemetry(silent.getsockname()[1], "grpc"))
        before = web.process.rss_mib()
        report = mesh.load(web, duration="6s", rate=300, connections=4).report()
        assert_no_failure(report, 1500)
        assert report["latency_microseconds"]["p99"] < 100_000, report["latency_microseconds"]
        assert web.process.rss_mib() - before < 20
        web.process.signal(15)
        assert web.process.wait(20) == 0, "a dead collector must not hold up the end"
