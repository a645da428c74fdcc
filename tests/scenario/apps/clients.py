"""Ordinary clients of ordinary servers: clients.py KIND HOST PORT FAMILY MARKER [SECONDS].

HOST is a name that is resolved as any program does; FAMILY is 4 or 6. Each sends MARKER through and
expects it back.
"""

import asyncio
import smtplib
import socket
import sys
import time


def address(host, port, family):
    kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    return socket.getaddrinfo(host, port, kind, socket.SOCK_STREAM)[0][4][0]


def redis(host, port, marker, seconds):
    import redis as library

    client = library.Redis(host, port, socket_timeout=10)
    client.set("key", marker * 1000)
    assert client.get("key").decode() == marker * 1000
    with client.pipeline() as pipe:
        for number in range(500):
            pipe.rpush("list", f"{marker}{number}")
        pipe.execute()
    assert client.llen("list") % 500 == 0
    subscriber = client.pubsub()
    subscriber.subscribe("news")
    assert subscriber.get_message(timeout=5)["type"] == "subscribe"
    library.Redis(host, port).publish("news", marker)
    assert subscriber.get_message(timeout=5)["data"].decode() == marker


def rabbitmq(host, port, marker, seconds):
    """A publisher and a consumer that stay connected for SECONDS, heartbeats included."""
    import pika

    def connect():
        return pika.BlockingConnection(pika.ConnectionParameters(host, port, heartbeat=10))

    publisher, consumer = connect(), connect()
    sender, receiver = publisher.channel(), consumer.channel()
    sender.queue_declare("orders", auto_delete=False)
    sent = received = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or sent < 20:
        sender.basic_publish("", "orders", f"{marker} {sent}".encode())
        sent += 1
        for method, _, body in receiver.consume("orders", inactivity_timeout=2, auto_ack=True):
            if method:
                assert body.decode() == f"{marker} {received}", body
                received += 1
            break
        publisher.sleep(0.25 if seconds > 1 else 0)
    assert sent == received, (sent, received)
    publisher.close()
    consumer.close()


def mariadb(host, port, marker, seconds):
    import pymysql

    with pymysql.connect(
        host=host, port=port, user="shop", password="shop", database="test", connect_timeout=10, ssl_disabled=True
    ) as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS t (v TEXT)")
            cursor.execute("DELETE FROM t")
            cursor.executemany("INSERT INTO t VALUES (%s)", [(f"{marker}{n}",) for n in range(200)])
            connection.commit()
            cursor.execute("SELECT v FROM t")
            assert len(cursor.fetchall()) == 200


def nats(host, port, marker, seconds):
    import nats as library

    async def talk():
        shown = f"[{host}]" if ":" in host else host
        client = await library.connect(f"nats://{shown}:{port}", connect_timeout=10)
        subscription = await client.subscribe("news")
        await client.flush()
        for number in range(200):
            await client.publish("news", f"{marker}{number}".encode())
        for number in range(200):
            message = await subscription.next_msg(timeout=5)
            assert message.data.decode() == f"{marker}{number}"
        await client.close()

    asyncio.run(talk())


def smtp(host, port, marker, seconds):
    with smtplib.SMTP(host, port, timeout=10) as client:
        client.sendmail("a@shop.example", ["b@shop.example"], f"Subject: x\r\n\r\n{marker}\r\n" * 50)


def first_byte(host, port, marker, seconds):
    """Prints the milliseconds from connect to the first byte, for several connections."""
    for _ in range(11):
        began = time.monotonic()
        with socket.create_connection((host, port), 10) as client:
            assert client.recv(100)
            print((time.monotonic() - began) * 1000)


def half_close(host, port, marker, seconds):
    with socket.create_connection((host, port), 10) as client:
        client.sendall(marker.encode() * 10_000)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(65536):
            answer += data
    assert answer == marker.encode() * 10_000


kind, host, port, family, marker, *rest = sys.argv[1:]
globals()[kind](address(host, int(port), int(family)), int(port), marker, float(rest[0]) if rest else 0)
