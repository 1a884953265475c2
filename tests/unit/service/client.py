"""A client that does not let up."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.unit.service.door import OPENAI_BODY, Door

STREAM = {**OPENAI_BODY, "stream": True}


class SteadyClient:
    """Sends a request every 20 ms, streamed and whole in turn, each in a thread of its own, until told to stop."""

    def __init__(self, door: Door) -> None:
        self.replies: list[Any] = []
        self._door = door
        self._end = threading.Event()
        self._threads = ThreadPoolExecutor(32)
        self._sender = threading.Thread(target=self._send)
        self._sender.start()

    def _send(self) -> None:
        while not self._end.wait(0.02):
            body = STREAM if len(self.replies) % 2 else OPENAI_BODY
            self.replies.append(self._threads.submit(self._door.chat, body))

    def finish(self) -> list[str]:
        """Stop; return what went wrong, reply by reply."""
        self._end.set()
        self._sender.join()
        done = [reply.result(20) for reply in self.replies]
        self._threads.shutdown()
        cut = [reply for reply in done[1::2] if not reply.content.endswith(b"data: [DONE]\n\n")]
        return [f"{reply.status_code} {reply.text}" for reply in (*done[::2], *cut) if reply in cut or failed(reply)]


def failed(reply: Any) -> bool:
    """Say whether a reply is an error, in its status or as an event."""
    return reply.status_code != 200 or b'"error"' in reply.content
