"""Reading the streams that a door sends."""

import json


def events(body: bytes) -> list[str]:
    """The data of each event."""
    return [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]


def streamed_text(body: bytes) -> str:
    """The text of a chat stream."""
    return "".join(json.loads(event)["choices"][0]["delta"]["content"] for event in events(body)[:-1])
