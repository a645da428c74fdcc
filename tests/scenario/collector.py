"""An OpenTelemetry collector in the test's own process, which keeps every span."""

import http.server
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector:
    """Takes OTLP over gRPC or HTTP and keeps the spans."""

    def __init__(self, protocol):
        self.spans = []
        if protocol == "grpc":
            self._server = grpc.server(futures.ThreadPoolExecutor(4))
            trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
            self.port = self._server.add_insecure_port("127.0.0.1:0")
            self._server.start()
            self.close = lambda: self._server.stop(0)
        else:
            self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._request())
            self.port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
            self.close = self._server.shutdown

    def Export(self, request, context):
        for resource in request.resource_spans:
            name = attributes(resource.resource).get("service.name")
            for scope in resource.scope_spans:
                self.spans += [(name, span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def _request(collector):
        class Request(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces", self.path
                collector.Export(trace_service_pb2.ExportTraceServiceRequest.FromString(body), None)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        return Request

    def of(self, trace):
        return [(name, span) for name, span in self.spans if span.trace_id.hex() == trace]


def attributes(entity):
    values = {}
    for pair in entity.attributes:
        which = pair.value.WhichOneof("value")
        values[pair.key] = getattr(pair.value, which) if which else None
    return values


def telemetry(port, protocol):
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
