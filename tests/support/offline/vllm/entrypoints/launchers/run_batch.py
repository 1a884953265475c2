"""vLLM's run-batch as far as engine.batch_vllm knows it: it reads a file, answers all of it, and writes a file."""

import asyncio
import json
import logging
import os
from argparse import Namespace
from dataclasses import asdict, dataclass
from typing import Any

logger = logging.getLogger("vllm.run_batch")
SECONDS = float(os.environ.get("OFFLINE_SECONDS", "0.002"))


class ValidationError(ValueError):
    """A line that is no request."""


@dataclass
class Output:
    """One line of the output file."""

    id: str
    custom_id: str
    response: dict[str, Any]
    error: Any

    def model_dump_json(self) -> str:
        """The line."""
        return json.dumps(asdict(self))


class BatchProgressTracker:
    """vLLM's bar, a line for each call."""

    def pbar(self) -> Any:
        """Not to be made for each request."""
        raise AssertionError("a bar for each request")


async def read_file(path: str) -> str:
    """Never called by a batch."""
    raise AssertionError(path)


async def write_file(path: str, outputs: list[Output], folder: str) -> None:
    """Never called by a batch."""
    raise AssertionError(path)


async def build_endpoint_registry(engine_client: Any, args: Namespace) -> dict[str, Any]:
    """Made once for all requests."""
    print("endpoints made", flush=True)
    return {"chat": args.model}


async def run_batch(engine_client: Any, args: Namespace) -> None:
    """Answer every line of the input file with its own length."""
    assert await build_endpoint_registry(engine_client=engine_client, args=args)
    outputs = []
    for line in (await read_file(args.input_file)).strip().split("\n"):
        request = json.loads(line)
        if not isinstance(request["body"].get("max_tokens", 1), int):
            raise ValidationError("max_tokens is no number")
        with BatchProgressTracker().pbar():
            outputs.append(await _answer(engine_client, request))
    await write_file(args.output_file, outputs, args.output_tmp_dir)


async def _answer(engine: Any, request: dict[str, Any]) -> Output:
    async with engine.places:
        await asyncio.sleep(SECONDS)
    engine.answered += 1
    custom_id, asked = request["custom_id"], request["body"].get("messages")
    if engine.errored:
        return Output("e", custom_id, {"status_code": 500, "request_id": "e", "body": None}, {"error": {"code": 500}})
    if request["body"].get("model", engine.model) != engine.model:
        error = {"error": {"message": "The model does not exist.", "code": 404}}
        return Output("m", custom_id, {"status_code": 404, "request_id": "m", "body": None}, error)
    return Output("a", custom_id, {"status_code": 200, "request_id": "a", "body": {"answer_to": asked}}, None)
