"""A mail server that speaks first: smtp.py HOST PORT."""

import sys
import time

from aiosmtpd.controller import Controller


class Keep:
    async def handle_DATA(self, server, session, envelope):
        return f"250 took {len(envelope.content)} bytes"


controller = Controller(Keep(), hostname=sys.argv[1], port=int(sys.argv[2]))
controller.start()
print("listening", flush=True)
while True:
    time.sleep(60)
