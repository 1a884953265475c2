"""An engine that only counts; environment variables say how it behaves.

OFFLINE_SECONDS      time for an answer (default 0.002)
OFFLINE_AT_ONCE      how many requests it computes at a time (default 8)
OFFLINE_DIES_AFTER   it dies when it has answered so many
"""

import asyncio
import os
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace


@dataclass
class Engine:
    """What run_batch sees of vLLM's client."""

    model: str
    at_once: int = int(os.environ.get("OFFLINE_AT_ONCE", "8"))
    dies_after: int = int(os.environ.get("OFFLINE_DIES_AFTER", "1000000000"))
    answered: int = 0
    places: asyncio.Semaphore = field(init=False)
    vllm_config: SimpleNamespace = field(init=False)

    def __post_init__(self) -> None:
        self.places = asyncio.Semaphore(self.at_once)
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=self.at_once))

    @property
    def errored(self) -> bool:
        """Whether it has died."""
        return self.answered >= self.dies_after


@asynccontextmanager
async def build_async_engine_client(args: Namespace) -> AsyncIterator[Engine]:
    """An engine for as long as the block lasts."""
    print("Starting to load model", args.model, flush=True)
    yield Engine(args.model)
    print("engine ended", flush=True)
