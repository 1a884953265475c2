"""A running service with real vLLM behind it, and what tests ask of the two."""

import json
import re
from dataclasses import dataclass
from typing import Any

import httpx

from models.demo.train import text

DATA = text.load()
ANSWERS = {question: entry.answer for entry in DATA.known for question in entry.ask}
CHAT = "/v1/chat/completions"


@dataclass
class Stack:
    """The running service, and the engine's own address."""

    url: str
    engine: str
    client: httpx.Client
    waited: list[dict[str, Any]]
    """What /ready said while the engine started, answer by answer."""

    def chat(self, body: dict[str, Any]) -> httpx.Response:
        return self.client.post(f"{self.url}{CHAT}", json=body)

    def metric(self, name: str) -> float:
        """The sum of one of vLLM's metrics over its labels."""
        lines = self.client.get(f"{self.engine}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{re.escape(name)}[{{ ]", line))


def events(body: str) -> list[str]:
    """The data of each event."""
    return [line[6:] for line in body.splitlines() if line.startswith("data: ")]


def streamed_text(body: str) -> str:
    """The text of a chat stream."""
    found = events(body)
    assert found[-1] == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in found[:-1])
