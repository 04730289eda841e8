"""Takes webhooks from hookline: verifies the signature, keeps each delivery once
in inbox.db, and answers. What is to be done about a delivery is done later, by
whoever empties the table.

pip install standardwebhooks cryptography
ADDR=127.0.0.1:9000 WEBHOOK_SECRET=whsec_... python receive.py
"""
import os
import sqlite3
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import standardwebhooks

from ed25519 import PublicKey

secret = os.environ["WEBHOOK_SECRET"]
webhook = PublicKey(secret) if secret.startswith("whpk_") else standardwebhooks.Webhook(secret)


def execute(sql, *values):
    with closing(sqlite3.connect("inbox.db", timeout=10)) as connection, connection:
        connection.execute(sql, values)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # hookline keeps connections

    def do_POST(self):
        # The bytes as they came: a body that was parsed and written anew has another signature.
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            webhook.verify(body, headers)
        except Exception:  # a forged request may be wrong in any way; no reason for the sender
            return self.answer(401)
        try:
            # The same id on every attempt: what is there already was processed, or will be.
            execute("INSERT OR IGNORE INTO inbox (id, body) VALUES (?, ?)", headers["webhook-id"], body)
        except sqlite3.Error as error:
            self.log_error("%s", error)
            return self.answer(503)  # hookline sends it again in 30 s
        self.answer(204)  # only now, when it is safe: hookline will not send it again

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()


execute("CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY, body BLOB NOT NULL)")
host, port = os.environ["ADDR"].split(":")
ThreadingHTTPServer((host, int(port)), Receiver).serve_forever()
