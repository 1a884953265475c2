"""A stand-in for the Hugging Face hub on loopback, with the faults of real lines as knobs.

It speaks what huggingface_hub asks: a model's entry, its tree, the check of access, and files by redirect to another
origin, with ETags and ranges. In tests: `with StubHub({"org/name": folder}) as hub: hub.knobs.cut_after = 1000 …`.
By hand: `python -m tests.support.stub_hub org/name=FOLDER`.
"""

import argparse
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.stub_models import HubFile, Model


@dataclass
class Knobs:
    """How the hub behaves; tests set these while it runs."""

    gated: bool = False
    token: str | None = None  # opens the gate
    busy: int = 0  # so many answers are 429
    retry_after: str = "0"
    cut_after: int | None = None  # bytes of each answer, after which the line is reset
    wrong_bytes: int = 0  # so many answers with files have their first byte changed
    bytes_per_s: float | None = None
    hold: threading.Event | None = None  # files are not sent before


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    range: str
    authorization: str
    sent: int = 0


class StubHub:
    """The server, in threads of its own."""

    def __init__(self, models: Mapping[str, Path]) -> None:
        self.models = {name: Model(folder) for name, folder in models.items()}
        self.knobs = Knobs()
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def address(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def elsewhere(self) -> str:
        """The same server under another name, so that clients take it for another origin."""
        return f"http://localhost:{self._server.server_port}"

    @property
    def sent(self) -> int:
        """Bytes of large files that have gone out."""
        return sum(each.sent for each in self.asked)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(hub: StubHub) -> type[BaseHTTPRequestHandler]:
    """The routes, for one hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            asked = Asked(self.command, self.path, self.headers.get("Range", ""), self.headers.get("Authorization", ""))
            hub.asked.append(asked)
            if hub.knobs.busy > 0:
                hub.knobs.busy -= 1
                return self._answer(429, {"error": "too many"}, {"Retry-After": hub.knobs.retry_after})
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            if parts[:2] == ["api", "models"]:
                return self._entry("/".join(parts[2:4]), parts[4:])
            if parts[0] == "cdn":
                return self._contents(hub.models["/".join(parts[1:3])].files["/".join(parts[3:])], asked)
            if len(parts) > 4 and parts[2] == "resolve":
                return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), asked)
            return self._missing("EntryNotFound")

        def _allowed(self) -> bool:
            knobs = hub.knobs
            return not knobs.gated or (
                knobs.token is not None and self.headers.get("Authorization") == f"Bearer {knobs.token}"
            )

        def _missing(self, code: str, status: int = 404) -> None:
            self._answer(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

        def _entry(self, name: str, rest: list[str]) -> None:
            model = hub.models.get(name)
            if model is None:  # the hub does not tell whether it is private
                return self._missing("RepoNotFound", 401)
            if rest == ["auth-check"]:
                return self._answer(200, {}) if self._allowed() else self._missing("GatedRepo", 403)
            if rest[:1] in (["revision"], ["tree"]) and rest[1] not in ("main", model.commit):
                return self._missing("RevisionNotFound")
            if rest[:1] == ["tree"]:
                return self._tree(model)
            siblings = [{"rfilename": path, "size": file.size} for path, file in model.files.items()]
            self._answer(
                200,
                {
                    "_id": "1",
                    "id": name,
                    "modelId": name,
                    "sha": model.commit,
                    "private": False,
                    "gated": "manual" if hub.knobs.gated else False,
                    "siblings": siblings,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                },
            )

        def _tree(self, model: Model) -> None:
            """In two pages, as the hub does with many files."""
            page = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
            names = sorted(model.files)
            half = (len(names) + 1) // 2
            entries = []
            for path in names[:half] if page == 0 else names[half:]:
                file = model.files[path]
                entry: dict[str, Any] = {"type": "file", "oid": file.sha1, "size": file.size, "path": path}
                if file.sha256:
                    entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
                entries.append(entry)
            url = f"{hub.address}{urlsplit(self.path).path}?recursive=true&cursor=1"
            self._answer(200, entries, {"Link": f'<{url}>; rel="next"'} if page == 0 and names[half:] else {})

        def _resolve(self, name: str, revision: str, path: str, asked: Asked) -> None:
            model = hub.models.get(name)
            if model is None:
                return self._missing("RepoNotFound", 401)
            if not self._allowed():
                return self._missing("GatedRepo", 403)
            file = model.files.get(path)
            if file is None or revision not in ("main", model.commit):
                return self._missing("EntryNotFound")
            if file.sha256 is None:
                return self._contents(file, asked, {"X-Repo-Commit": model.commit})
            headers = {
                "X-Repo-Commit": model.commit,
                "X-Linked-Size": str(file.size),
                "X-Linked-ETag": f'"{file.sha256}"',
                "Location": f"{hub.elsewhere}/cdn/{name}/{path}",
            }
            self._answer(302, {}, headers)

        def _contents(self, file: HubFile, asked: Asked, extra: Mapping[str, str] = {}) -> None:
            first = 0
            if asked.range:
                first = int(asked.range.removeprefix("bytes=").partition("-")[0])
                if first >= file.size:
                    return self._answer(416, {}, {"Content-Range": f"bytes */{file.size}"})
            self.send_response(206 if asked.range else 200)
            if asked.range:
                self.send_header("Content-Range", f"bytes {first}-{file.size - 1}/{file.size}")
            self.send_header("ETag", f'"{file.sha256 or file.sha1}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(file.size - first))
            for name, value in extra.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self._send(file, first, asked)

        def _send(self, file: HubFile, first: int, asked: Asked) -> None:
            knobs = hub.knobs
            last = file.size if knobs.cut_after is None else min(file.size, first + knobs.cut_after)
            if knobs.hold is not None:
                knobs.hold.wait(30)
            self.wfile.flush()
            with file.place.open("rb") as source:
                place = first
                if knobs.wrong_bytes > 0 and file.sha256:
                    knobs.wrong_bytes -= 1
                    self.connection.sendall(bytes([source.read(1)[0] ^ 1]))
                    place += 1
                while place < last:
                    step = min(last - place, 1 << 24 if knobs.bytes_per_s is None else 1 << 16)
                    try:
                        gone = os.sendfile(self.connection.fileno(), source.fileno(), place, step)
                    except OSError:
                        self.close_connection = True
                        return
                    place += gone
                    if file.sha256:
                        asked.sent += gone
                    if knobs.bytes_per_s:
                        time.sleep(gone / knobs.bytes_per_s)
            if last < file.size:  # a reset, not an end
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True

        def _answer(self, status: int, body: object, headers: Mapping[str, str] = {}) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    return Handler


def main() -> None:
    """Serve until killed; the address is the first line."""
    parser = argparse.ArgumentParser(description="A stand-in for the Hugging Face hub.")
    parser.add_argument("models", nargs="+", metavar="ORG/NAME=FOLDER")
    given = parser.parse_args()
    with StubHub({name: Path(folder) for name, _, folder in (each.partition("=") for each in given.models)}) as hub:
        print(hub.address, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
