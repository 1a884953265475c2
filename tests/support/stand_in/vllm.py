#!/usr/bin/env python3
"""What stands in for vLLM: prints what it was started with as one line of JSON, then answers as a ready engine does."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Engine(BaseHTTPRequestHandler):
    """Healthy from the start, serving one model."""

    def do_GET(self) -> None:
        """Answer the two paths that a health check asks for."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"data": [{"id": "stand-in"}]}')

    def do_POST(self) -> None:
        """Answer a chat with the name of this engine, whole or streamed; what else is asked for is not there."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.send_error(404)
            return
        said = {"content": f"I am {os.environ['HOSTNAME']}."}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if asked.get("stream") else "application/json")
        self.end_headers()
        if asked.get("stream"):
            event = json.dumps({"id": "1", "choices": [{"index": 0, "delta": said}]})
            self.wfile.write(f"data: {event}\n\ndata: [DONE]\n\n".encode())
        else:
            self.wfile.write(json.dumps({"id": "1", "choices": [{"index": 0, "message": said}]}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing: the log belongs to the line of JSON."""


print(json.dumps({"argv": sys.argv[1:], "environ": dict(os.environ)}), flush=True)
HTTPServer(("0.0.0.0", int(sys.argv[sys.argv.index("--port") + 1])), Engine).serve_forever()
