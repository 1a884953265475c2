"""An engine that breaks off at each byte of its reply, by closing and by resetting the connection."""

import asyncio
import json
import socket
import struct
import time

from faults_client import ANSWER, Outcome, ask
from faults_scenes import Scene, ms, service

PIECES = ("Deep learning isn't magic:", " it fits many layers to data.\n")


def _event(text: str) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "stub-model"}
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"


def _whole(document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _stream() -> bytes:
    parts = [*map(_event, PIECES), b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


MODELS = _whole({"object": "list", "data": [{"id": "stub-model", "object": "model", "max_model_len": 4096}]})
REPLIES = {
    True: _stream(),
    False: _whole(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "stub-model",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        }
    ),
}


class CuttingEngine:
    """Answers chats with the first `cut` bytes of a reply, all of them when it is None."""

    def __init__(self) -> None:
        self.cut: int | None = None
        self.stream = False
        self.reset = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0"
                )
                await reader.readexactly(int(length.partition(b":")[2]))
                if head.startswith(b"GET"):
                    writer.write(MODELS)
                    continue
                writer.write(REPLIES[self.stream][: self.cut])
                await writer.drain()
                if self.cut is not None:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if self.reset and self.cut is not None:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()


async def cut_everywhere() -> Scene:
    """Each offset of both kinds of reply, both ways of breaking off; then one whole reply."""
    engine = CuttingEngine()
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcomes: list[Outcome] = []
    async with server, service(f"http://127.0.0.1:{port}") as ours:
        for engine.stream in (False, True):
            for engine.reset in (False, True):
                for offset in range(len(REPLIES[engine.stream])):
                    engine.cut = offset
                    outcomes.append(await ask(ours.port, engine.stream))
        engine.cut, engine.stream = None, False
        mended = time.monotonic()
        back = await ours.back()
    slowest = max(outcome.ms for outcome in outcomes)
    figures = {"slowest": slowest, "back after": ms(mended, back)}
    return Scene("engine breaks off at each byte", outcomes, ("told", "right"), figures)
