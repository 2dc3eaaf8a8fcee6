"""Writes down what an engine writes of each streamed answer, by the id of its request.

An ASGI middleware inside the engine, with RECORD naming the file. It stands between the engine and its HTTP server, changes nothing,
and so cannot share a mistake of whoever reads the answer behind a gateway.
"""

import hashlib
import json
import os


class Record:
    def __init__(self, app):
        self.app = app
        self.file = open(os.environ["RECORD"], "a", buffering=1)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        names = dict(scope["headers"])
        body, writes = hashlib.sha256(), 0

        async def recorded(message):
            nonlocal writes
            await send(message)
            if message["type"] == "http.response.body":
                body.update(message.get("body", b""))
                writes += 1
                if not message.get("more_body", False):
                    self.write(scope, names, body, writes)

        await self.app(scope, receive, recorded)

    def write(self, scope, names, body, writes):
        line = {
            "request_id": names.get(b"x-request-id", b"").decode(),
            "sha256": body.hexdigest(),
            "writes": writes,
            "peer": scope["client"][1],
        }
        self.file.write(json.dumps(line) + "\n")
