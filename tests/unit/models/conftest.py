"""A hub with one small model, and a way to fetch from it."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from berth.models import fetch
from berth.models.fetch import Fetched
from berth.models.hub import Hub
from berth.models.transfer import Transfer
from berth.progress import Progress
from tests.support.stub_hub import StubHub

MODEL = "tests/tiny-llama"
Fetch = Callable[..., Fetched]


def make_model(folder: Path, weights: int = 300_000) -> Path:
    """A model's files: two shards, one of them twice the other, the same weights as .bin, and what belongs to them."""
    folder.mkdir(parents=True)
    chance = random.Random(5)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "README.md").write_text("# A model for tests\n")
    (folder / "empty.txt").write_text("")
    (folder / "model-00001-of-00002.safetensors").write_bytes(chance.randbytes(weights))
    (folder / "model-00002-of-00002.safetensors").write_bytes(chance.randbytes(2 * weights))
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "pytorch_model.bin").write_bytes(chance.randbytes(weights))
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.00.pth").write_bytes(chance.randbytes(1000))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_model(tmp_path / "source")


@pytest.fixture
def hub(source: Path) -> Iterator[StubHub]:
    with StubHub({MODEL: source}) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / "hub"


@pytest.fixture
def fetching(hub: StubHub, cache: Path) -> Fetch:
    """Fetch the model into the cache: `fetching(include=…, token=…)`."""

    def run(model: str = MODEL, revision: str = "main", token: str = "", **patterns: list[str]) -> Fetched:
        transfer = Transfer(Progress())
        asking = Hub({"HF_ENDPOINT": hub.address, "HF_TOKEN": token}, transfer)
        return fetch.run(asking, fetch.plan(asking, cache, model, revision, **patterns))

    return run
