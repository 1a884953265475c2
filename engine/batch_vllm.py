"""Inside vLLM's Python: `vllm run-batch` with a journal in place of its files.

vLLM's own (0.32) writes nothing before all requests are answered, so that a kill loses everything; one malformed line
ends it; and it computes 128 requests at a time where serving computes up to 1024. Here its function is called for each
request by itself, many at a time, and each answer is written down as it comes. It runs with the flags of `vllm serve`.
"""

import asyncio
import contextlib
import copy
import json
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from engine import journal, prefork
from engine.batch import STOPPED
from engine.decisions import SHUTDOWN_TIMEOUT_S
from engine.journal import Entry, Share, Writer
from engine.messages import Exit, Problem, complain, say

# In vLLM 0.32, and in earlier ones.
_RUN_BATCH = ("vllm.entrypoints.launchers.run_batch", "vllm.entrypoints.openai.run_batch")
_ENGINE = ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")
BAD_REQUEST = 400


class EngineDied(Exception):
    """vLLM's engine has ended by itself."""


class Batch:
    """What a process has to answer, and how far it is."""

    def __init__(self, module: Any, folder: Path, share: Share) -> None:
        self._module, self._folder, self._share = module, folder, share
        self._ask = module.run_batch
        self._writer = Writer(journal.journal(folder, f"{share.part}-of-{share.of}"))
        self._texts: dict[str, str] = {}
        self._outputs: dict[str, Any] = {}
        self._stopping = asyncio.Event()
        self.left = 1  # until they are counted

    def take_over(self) -> None:
        """Put this in the place of vLLM's reading and writing of files."""
        module = self._module
        module.read_file, module.write_file = self._read, self._write
        module.logger.setLevel("WARNING")  # it tells each call
        if hasattr(module, "BatchProgressTracker"):
            module.BatchProgressTracker.pbar = lambda _: contextlib.nullcontext()

    async def _read(self, path: str) -> str:
        return self._texts[path]

    async def _write(self, path: str, outputs: list[Any], *_: Any) -> None:
        self._outputs[path] = outputs[0]

    async def run(self, engine: Any, args: Namespace) -> None:
        """Keep the engine busy until nothing is left, or until it is told to stop. Raises what ended the engine."""
        done = journal.places(self._folder).keys()
        todo = {line for line, _ in journal.requests(self._folder) if self._share.has(line) and line not in done}
        self.left = len(todo)
        say(f"answering {len(todo)} requests")
        await self._make_endpoints_once(engine, args)
        texts = ((line, text) for line, text in journal.requests(self._folder) if line in todo)
        await self._keep_busy(engine, args, texts)

    async def _make_endpoints_once(self, engine: Any, args: Namespace) -> None:
        """What vLLM makes at each call: chat template, parsers. The same serves all requests."""
        if registry := getattr(self._module, "build_endpoint_registry", None):
            made = await registry(engine, args)

            async def at_hand(*_: Any, **__: Any) -> Any:
                return made

            self._module.build_endpoint_registry = at_hand

    async def _keep_busy(self, engine: Any, args: Namespace, texts: Iterator[tuple[int, str]]) -> None:
        """Twice as many requests at a time as the engine computes: none of its places stays empty."""
        window = 2 * int(engine.vllm_config.scheduler_config.max_num_seqs)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        stop = asyncio.create_task(self._stopping.wait())
        running: set[asyncio.Task[None]] = set()
        while not stop.done():
            for line, text in texts:
                running.add(asyncio.create_task(self._one(engine, args, line, text)))
                if len(running) >= window:
                    break
            if not running:
                break
            await asyncio.wait({*running, stop}, return_when=asyncio.FIRST_COMPLETED)
            running = _without_finished(running)
        if running:
            say(f"stopping: {len(running)} requests may finish")
            await asyncio.wait(running, timeout=SHUTDOWN_TIMEOUT_S)
        for task in (*running, stop):
            task.cancel()

    async def _one(self, engine: Any, args: Namespace, line: int, text: str) -> None:
        """Have one request answered, and write down the answer or why there is none."""
        key = str(line)
        own = copy.copy(args)
        own.input_file = own.output_file = key
        self._texts[key] = text
        try:
            await self._ask(engine, own)
            entry = entry_of(line, json.loads(self._outputs.pop(key).model_dump_json()))
        except ValueError as error:  # pydantic's: what the engine says of a request is an answer
            entry = refusal(line, text, _in_short(error))
        finally:
            del self._texts[key]
        if entry.failed and getattr(engine, "errored", False):
            raise EngineDied  # no fault of this request's: it is answered next time
        self._writer.add(entry)
        self.left -= 1


def _without_finished(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Those that still run. Raises what ended one of the others."""
    for task in running:
        if task.done():
            task.result()
    return {task for task in running if not task.done()}


def entry_of(line: int, output: dict[str, Any]) -> Entry:
    """What vLLM says of a request; an error stands where OpenAI's files have it, in the body of the response."""
    response = output.get("response") or {}
    failed = output.get("error") is not None or response.get("status_code") != 200
    if failed and response.get("body") is None:
        error = output["error"]
        told = error if isinstance(error, dict) else {"error": {"message": str(error), "code": BAD_REQUEST}}
        output = {**output, "response": {**response, "body": told}, "error": None}
    return Entry(line, failed, output)


def _in_short(error: ValueError) -> str:
    """The first things that pydantic found; for a body that fits no form at all it lists dozens."""
    found = error.errors()[:3] if hasattr(error, "errors") else []
    told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found]
    return "; ".join(told) or str(error)


def refusal(line: int, text: str, why: str) -> Entry:
    """The entry of a request that was not understood."""
    try:
        custom_id = json.loads(text)["custom_id"]
    except (ValueError, KeyError, TypeError):
        custom_id = None
    body = {"error": {"message": why, "type": "BadRequestError", "code": BAD_REQUEST}}
    response = {"status_code": BAD_REQUEST, "request_id": f"line-{line + 1}", "body": body}
    return Entry(line, True, {"id": f"line-{line + 1}", "custom_id": custom_id, "response": response, "error": None})


def run(args: Namespace, folder: Path, share: Share) -> int:
    """Answer a share with the flags of `vllm serve`; return the exit code."""
    module, starting = _first_of(_RUN_BATCH), _first_of(_ENGINE)
    args.model = getattr(args, "model_tag", None) or args.model
    args.input_file = args.output_file = ""
    args.output_tmp_dir, args.enable_metrics = None, False

    async def answer() -> int:
        batch = Batch(module, folder, share)
        batch.take_over()
        # Not run-batch's own way: it has other defaults than serving, for batch sizes and so for compiled code.
        async with starting.build_async_engine_client(args) as engine:
            await batch.run(engine, args)
        return STOPPED if batch.left else Exit.OK

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # while it loads; then requests in flight may finish
    try:
        return asyncio.run(answer())
    except KeyboardInterrupt:
        return STOPPED
    except journal.InUse as error:
        complain(Problem(f"another process answers this share ({error})", "wait for it, or stop it"))
    except EngineDied:
        complain(Problem("vLLM's engine died", "its reason stands above; what was answered is kept"))
    except OSError as error:
        complain(Problem(f"{folder} cannot be written: {error.strerror}", "free some space; what was answered is kept"))
    return Exit.FAILED


def _first_of(names: tuple[str, ...]) -> Any:
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return import_module(name)
    raise ModuleNotFoundError(f"this vLLM has none of {', '.join(names)}")


def main() -> None:
    """`python -m engine.batch_vllm [--share-one-import] FOLDER PART/OF serve MODEL flags…`."""
    words = sys.argv[1:]
    if words[0] == "--share-one-import":
        words = words[1:]
        prefork.prepare()
    folder, share = Path(words[0]), Share.parse(words[1])
    sys.argv = ["vllm", *words[2:]]
    served: Any = import_module("vllm.entrypoints.cli.serve")
    served.ServeSubcommand.cmd = staticmethod(lambda args: sys.exit(run(args, folder, share)))
    program: Any = import_module("vllm.entrypoints.cli.main")
    program.main()


if __name__ == "__main__":
    main()
