"""A stand-in for vLLM with knobs: OpenAI's routes, server-sent events, and every way of failing that tests need.

In tests: `with StubEngine() as engine: engine.knobs.status = 400 …`; it runs in a thread of its own and records
what it received, and which connections were closed on it. By hand:
 `python -m tests.support.stub_engine --port 8008 --load-seconds 20`.
"""

import argparse
import asyncio
import json
import socket
import struct
import threading
import time
from typing import Any, Self

from tests.support.stub_knobs import TEXT_PATHS, Knobs, Record
from tests.support.stub_messages import chunk, completion, event, metrics, whole


class StubEngine:
    """The engine; a context manager that listens on a free port, on the one given, or on a Unix socket at `path`."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1", path: str | None = None) -> None:
        self.knobs = Knobs()
        self.records: list[Record] = []
        self.connections = 0  # how many were ever opened
        self.socket = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Bound but not listening: connections are refused, as while vLLM loads.
        self.socket.bind(path if path else (host, port))
        self.port: int = 0 if path else self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread.start()

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def listen(self) -> None:
        """Begin to accept connections."""

        async def start() -> None:
            self._server = await asyncio.start_server(self._connection, sock=self.socket)

        self._call(start())

    def reset(self) -> None:
        """Forget what was received and turn every knob back."""
        self.knobs = Knobs()
        self.records = []
        self.connections = 0

    def refuse_more(self) -> None:
        """Stop listening; what runs goes on."""

        async def stop() -> None:
            if self._server is not None:
                self._server.close()

        self._call(stop())

    def kill(self) -> None:
        """Stop listening and reset every connection, as a crash does."""

        async def stop() -> None:
            if self._server is not None:
                self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()

        self._call(stop())

    def close(self) -> None:
        """Kill the engine and its thread."""
        self.kill()

        async def cancel_rest() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.socket.close()

    @property
    def chats(self) -> list[Record]:
        """The requests for text that arrived."""
        return [record for record in self.records if record.path in TEXT_PATHS]

    def counts(self) -> dict[str, int]:
        """vLLM's counters, as of now: a stub's prompt has 3 tokens, and a piece is one token."""
        running = sum(1 for record in self.chats if not (record.answered or record.client_left))
        generated = sum(record.pieces_sent for record in self.chats)
        return {"prompt_tokens": 3 * len(self.chats), "generation_tokens": generated, "num_requests_running": running}

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        early = b""
        try:
            while record := await self._read(reader, early):
                self.records.append(record)
                # One byte, so that a client that closes its side is noticed while the answer is written.
                watcher = asyncio.ensure_future(reader.read(1))
                work = asyncio.ensure_future(self._answer(record, writer))
                await asyncio.wait((watcher, work), return_when=asyncio.FIRST_COMPLETED)
                if not work.done() or isinstance(work.exception(), ConnectionError):
                    record.client_left = True
                    work.cancel()
                    await asyncio.gather(watcher, work, return_exceptions=True)
                    return
                watcher.cancel()
                await asyncio.wait((watcher,))
                early = b"" if watcher.cancelled() else watcher.result()
                record.answered = work.result()
                if not record.answered:
                    return
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, early: bytes) -> Record | None:
        try:
            head = (early + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Record(method, path, headers, body)

    async def _answer(self, record: Record, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; say whether the connection can be kept."""
        knobs = self.knobs
        if knobs.silent:
            await asyncio.Event().wait()
        if knobs.garbage:
            writer.write(b"\x00\x01 not http at all\r\n\r\n")
            return False
        if record.path == "/health":
            return whole(writer, 200 if knobs.healthy else 503, b"")
        if record.path == "/metrics":
            return whole(writer, 200, metrics(self.counts()), kind="text/plain")
        if knobs.api_key and record.headers.get("authorization") != f"Bearer {knobs.api_key}":
            return whole(writer, 401, b'{"error":"Unauthorized"}')
        if record.path == "/v1/models":
            listed = [{"id": name, "object": "model", "max_model_len": knobs.window} for name in knobs.models]
            return whole(writer, 200, json.dumps({"object": "list", "data": listed}).encode(), cookie=knobs.cookie)
        if (other := knobs.others.get(record.path.partition("?")[0])) is not None:
            if knobs.die == "before headers":
                writer.transport.abort()
                return False
            events = other.startswith((b"event:", b"data:"))
            return whole(writer, knobs.status, other, kind="text/event-stream" if events else "application/json")
        if record.path not in TEXT_PATHS:
            return whole(writer, 404, b'{"detail":"Not Found"}')
        return await self._chat(record, writer)

    async def _chat(self, record: Record, writer: asyncio.StreamWriter) -> bool:
        knobs = self.knobs
        if knobs.hold == "before headers":
            await asyncio.Event().wait()
        if knobs.die == "before headers":
            writer.transport.abort()
            return False
        if knobs.status != 200:
            return whole(writer, knobs.status, knobs.error_body, knobs.retry_after)
        if not record.json.get("stream"):
            body = knobs.whole_body or completion("".join(knobs.pieces), chat=record.chat)
            return whole(writer, 200, body, cut=knobs.cut)
        return await self._stream(record, writer)

    async def _stream(self, record: Record, writer: asyncio.StreamWriter) -> bool:
        knobs = self.knobs
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        if knobs.hold == "after headers":
            await asyncio.Event().wait()
        for index, piece in enumerate(knobs.pieces):
            data = event(piece, chat=record.chat)
            if index == 1 and knobs.hold == "after first piece":
                await asyncio.Event().wait()
            if index == 2 and knobs.die is not None:
                if knobs.die_after is not None:
                    await asyncio.to_thread(knobs.die_after.wait, 10)
                if knobs.die == "in event":
                    chunk(writer, data[: len(data) // 2])
                if knobs.die == "reset in stream":
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if knobs.die == "clean end in stream":
                    writer.write(b"0\r\n\r\n")
                await writer.drain()
                return False
            for part in [data[i : i + 1] for i in range(len(data))] if knobs.split_bytes else [data]:
                chunk(writer, part)
                await writer.drain()
            record.pieces_sent += 1
            await asyncio.sleep(knobs.piece_seconds)
        chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--load-seconds", type=float, default=0.0, help="refuse connections this long first")
    parser.add_argument("--piece-seconds", type=float, default=0.02)
    options = parser.parse_args()
    engine = StubEngine(options.port, options.host)
    engine.knobs.piece_seconds = options.piece_seconds
    time.sleep(options.load_seconds)
    engine.listen()
    print(f"stub engine on {options.host}:{engine.port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
