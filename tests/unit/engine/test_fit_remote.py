"""What a model on the hub weighs is learned from its headers, whatever else its files hold."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import hub
from engine.decisions import Situation
from engine.devices import cuda
from engine.fit import GIB, refusal, remote, tensors
from engine.fit.tensors import BadHeader
from tests.support.stub_hub import StubHub
from tests.unit.engine.fitting import LLAMA_8B, SMALL, header, make_model

NAME = "org/model"
BODY = b"\0" * (1 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of weights: a short header, and one that is longer than the first part that is asked for."""
    many = {f"model.layers.0.experts.{index}.weight": ("BF16", [2, 3]) for index in range(4000)}
    (tmp_path / "config.json").write_text(json.dumps(SMALL), encoding="utf-8")
    (tmp_path / "a.safetensors").write_bytes(header({"w": ("BF16", [1000]), "s": ("F32", [10])}) + BODY)
    (tmp_path / "b.safetensors").write_bytes(header(many) + BODY)
    (tmp_path / "other.safetensors").write_bytes(header({"w": ("F32", [1 << 40])}))
    index = {"weight_map": {"w": "a.safetensors", "x": "b.safetensors"}}
    (tmp_path / tensors.INDEX).write_text(json.dumps(index), encoding="utf-8")
    return tmp_path


@pytest.fixture
def stub(folder: Path) -> Iterator[StubHub]:
    with StubHub({NAME: folder}) as running:
        yield running


def test_headers_alone_are_fetched(stub: StubHub) -> None:
    environ = {"HF_ENDPOINT": stub.address, "HF_TOKEN": "hf_secret"}
    assert remote.config(NAME, environ)["hidden_size"] == 256
    found = remote.weights(NAME, environ, layers=3)
    assert found is not None
    assert found.elements == {"BF16": 1000 + 4000 * 6, "F32": 10}
    assert "2 files on the hub" in found.source
    files = [one for one in stub.asked if ".safetensors" in one.path and ".json" not in one.path]
    assert files
    assert all(one.range for one in files)
    assert not any("other" in one.path for one in files)


def test_the_token_goes_to_the_hub_and_not_to_where_it_sends_one_on(stub: StubHub) -> None:
    remote.weights(NAME, {"HF_ENDPOINT": stub.address, "HF_TOKEN": "hf_secret"}, layers=3)
    with_token = [one for one in stub.asked if one.authorization]
    without = [one for one in stub.asked if not one.authorization]
    assert with_token
    assert without
    assert not any("/resolve/" in one.path for one in without)


def answers(monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Let the hub answer this; returns what is asked, as it is asked."""
    asked: list[str] = []

    def get(path: str, environ: Any, part: tuple[int, int] | None = None) -> bytes:
        asked.append(path)
        found = json.dumps(entry if path.startswith("api/") else config).encode()
        return header({"model.layers.9.w": ("BF16", [8]), "w": ("BF16", [5])}) if ".safetensors" in path else found

    monkeypatch.setattr(hub, "get", get)
    return asked


def test_the_hubs_own_count_serves_where_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"siblings": [{"rfilename": "a.safetensors"}], "safetensors": {"parameters": {"BF16": 13}}}
    asked = answers(monkeypatch, entry, SMALL)
    found = remote.weights(NAME, {}, layers=3)
    assert found is not None
    assert found.elements == {"BF16": 13}
    assert not any(".safetensors" in path for path in asked)


def test_a_model_with_layers_for_drafts_is_counted_by_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"siblings": [{"rfilename": "a.safetensors"}], "safetensors": {"parameters": {"BF16": 13}}}
    answers(monkeypatch, entry, {**SMALL, "num_nextn_predict_layers": 1})
    found = remote.weights(NAME, {}, layers=9)
    assert found is not None
    assert found.elements == {"BF16": 5}


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {},
        {"safetensors": []},
        {"safetensors": {"parameters": [1]}},
        {"siblings": None},
        {"siblings": [3]},
        {"safetensors": {"parameters": {"BF16": "x"}}},
    ],
)
def test_an_entry_that_tells_nothing_is_no_count(monkeypatch: pytest.MonkeyPatch, entry: Any) -> None:
    answers(monkeypatch, entry, SMALL)
    try:
        assert remote.weights(NAME, {}, layers=3) is None
    except (*remote.FAILURES, BadHeader):
        return


def test_a_model_that_cannot_fit_is_refused_before_a_byte_of_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_gpus", lambda: 1)
    monkeypatch.setattr(cuda, "_memory", lambda visible: [8 * GIB])
    with StubHub({NAME: make_model(tmp_path / "m", LLAMA_8B, 8_030_261_248)}) as running:
        environ = {"HF_ENDPOINT": running.address, "HF_HOME": str(tmp_path / "none")}
        (problem,) = refusal.problems(Situation(environ, {}, NAME), "cuda")
        assert "the weights take 15.0 GiB" in problem.sentence
        assert not refusal.problems(Situation({**environ, "HF_HUB_OFFLINE": "1"}, {}, NAME), "cuda")
    assert not refusal.problems(Situation(environ, {}, NAME), "cuda")  # nobody answers now
