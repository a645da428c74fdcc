"""Requests side by side on one HTTP/2 connection: h2_streams.py HOST COUNT AT-ONCE prints each answer's body, a line each."""

import socket
import sys

import h2.config
import h2.connection
import h2.events

host, count, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
peer = socket.create_connection((host, 80), 10)
connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
connection.initiate_connection()
bodies, asked, ended = {}, 0, 0
while ended < count:
    while asked < count and asked - ended < at_once:
        stream = connection.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", f"/?n={asked}")]
        connection.send_headers(stream, head, end_stream=True)
        asked += 1
    peer.sendall(connection.data_to_send())
    for event in connection.receive_data(peer.recv(65536)):
        if isinstance(event, h2.events.DataReceived):
            bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            ended += 1
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            sys.exit(f"{event}")
for body in bodies.values():
    sys.stdout.write(body.decode())
