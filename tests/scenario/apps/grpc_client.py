"""A gRPC client that tries everything: grpc_client.py TARGET [AUTHORITY] prints {case: "ok" or what went wrong}.

Needs the stubs in PYTHONPATH. Reads http_proxy as every grpcio program does.
"""

import json
import sys
import time
import traceback

import echo_pb2
import echo_pb2_grpc
import grpc

Message = echo_pb2.Message


def unary(stub):
    answer, call = stub.Unary.with_call(Message(text="hello"), metadata=(("x-ask", "me"),), timeout=10)
    assert answer.text == "hello"
    assert dict(call.initial_metadata())["x-seen"] == "me"
    trailing = dict(call.trailing_metadata())
    assert trailing["x-end"] == "done" and trailing["x-bytes-bin"] == b"\x00\xff\x01", trailing


def large_message(stub):
    payload = bytes(range(256)) * 12_000
    answer = stub.Unary(Message(payload=payload), timeout=20)
    assert answer.payload == payload


def server_stream(stub):
    call = stub.ServerStream(Message(text="a", number=500), timeout=10)
    assert [m.number for m in call] == list(range(500))
    assert dict(call.trailing_metadata())["x-end"] == "done"


def client_stream(stub):
    answer = stub.ClientStream((Message(text=str(n)) for n in range(200)), timeout=10)
    assert answer.number == 200


def bidirectional(stub):
    """Each message waits for the answer to the one before: nothing on the way may hold one back."""
    import queue

    questions = queue.Queue()
    call = stub.Bidirectional(iter(questions.get, None), timeout=10)
    for number in range(50):
        questions.put(Message(number=number))
        assert next(call).number == number + 1
    questions.put(None)
    assert list(call) == []


def deadline(stub):
    began = time.monotonic()
    try:
        stub.Forever(Message(), timeout=0.5)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    else:
        raise AssertionError("it answered")
    assert time.monotonic() - began < 2
    ended_reaches(stub, 1)


def cancellation(stub):
    before = stub.Ended(Message(), timeout=10).number
    call = stub.Forever.future(Message())
    time.sleep(0.3)
    call.cancel()
    ended_reaches(stub, before + 1)


def ended_reaches(stub, number):
    end = time.monotonic() + 5
    while stub.Ended(Message(), timeout=10).number < number:
        assert time.monotonic() < end, "the application never learnt that the call is over"
        time.sleep(0.05)


def failure(stub):
    try:
        stub.Fail(Message(), timeout=10)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "as you like: ü%", error.details()
        assert dict(error.trailing_metadata())["x-why"] == "asked"
    else:
        raise AssertionError("it answered")


CASES = [unary, large_message, server_stream, client_stream, bidirectional, deadline, cancellation, failure]


def main():
    options = [("grpc.default_authority", sys.argv[2])] if len(sys.argv) > 2 else []
    results = {}
    with grpc.insecure_channel(sys.argv[1], options) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        for case in CASES:
            try:
                case(stub)
                results[case.__name__] = "ok"
            except Exception:
                results[case.__name__] = traceback.format_exc(limit=3)
    print(json.dumps(results))


main()
