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

    def log_message(self, *_: object) -> None:
        """Say nothing: the log belongs to the line of JSON."""


print(json.dumps({"argv": sys.argv[1:], "environ": dict(os.environ)}), flush=True)
HTTPServer(("0.0.0.0", int(sys.argv[sys.argv.index("--port") + 1])), Engine).serve_forever()
