"""A gRPC application: grpc_server.py HOST:PORT NAME. Needs the stubs in PYTHONPATH."""

import sys
import threading
from concurrent import futures

import echo_pb2
import echo_pb2_grpc
import grpc

ended = 0
lock = threading.Lock()


class Echo(echo_pb2_grpc.EchoServicer):
    def __init__(self, name):
        self.name = name

    def Unary(self, request, context):
        seen = dict(context.invocation_metadata())
        context.send_initial_metadata((("served-by", self.name), ("x-seen", seen.get("x-ask", ""))))
        context.set_trailing_metadata((("x-end", "done"), ("x-bytes-bin", b"\x00\xff\x01")))
        return echo_pb2.Message(text=request.text, number=len(request.payload), payload=request.payload)

    def ServerStream(self, request, context):
        for number in range(request.number):
            yield echo_pb2.Message(text=request.text, number=number)
        context.set_trailing_metadata((("x-end", "done"),))

    def ClientStream(self, requests, context):
        texts = [request.text for request in requests]
        return echo_pb2.Message(text=",".join(texts), number=len(texts))

    def Bidirectional(self, requests, context):
        for request in requests:
            yield echo_pb2.Message(text=request.text, number=request.number + 1)

    def Forever(self, request, context):
        over = threading.Event()
        context.add_callback(over.set)
        over.wait(30)
        global ended
        with lock:
            ended += 1
        return request

    def Ended(self, request, context):
        with lock:
            return echo_pb2.Message(number=ended)

    def Fail(self, request, context):
        context.set_trailing_metadata((("x-why", "asked"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as you like: ü%")


def main():
    server = grpc.server(futures.ThreadPoolExecutor(32))
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(sys.argv[2]), server)
    assert server.add_insecure_port(sys.argv[1])
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


main()
