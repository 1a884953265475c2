"""What cannot fit is refused before anything is loaded, with the settings with which it would."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine import host
from engine.decisions import Situation
from engine.devices import cuda
from engine.fit import GIB, refusal
from engine.messages import Exit, Problem
from tests.unit.engine.fitting import LLAMA_8B, LLAMA_70B, SMALL, make_model

SMALL_WEIGHTS = 2_000_000
WEIGHTS_8B = 8_030_261_248


def found(model: Path, device: str = "cpu", environ: dict[str, str] | None = None, **values: str) -> list[Problem]:
    given = {name.replace("_", "-"): value for name, value in values.items()}
    return refusal.problems(Situation({"HOME": "/nowhere", **(environ or {})}, given, str(model)), device)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """GPUs of this machine, by their memory in GiB; the test changes the list."""
    sizes = [80]
    monkeypatch.setattr(cuda, "_gpus", lambda: len(sizes))
    monkeypatch.setattr(cuda, "_memory", lambda visible: [size * GIB for size in sizes])
    return sizes


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 GiB free on the host."""
    monkeypatch.setattr(host, "memory_available", lambda: 24 * GIB)
    monkeypatch.setattr(host, "memory_limit", lambda: 24 * GIB)


def test_a_request_that_the_cache_cannot_hold_is_refused_with_lengths_and_sizes_that_fit(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", {**SMALL, "max_position_embeddings": 1 << 20}, SMALL_WEIGHTS)
    (problem,) = found(model, environ={"VLLM_CPU_KVCACHE_SPACE": "1"})
    assert "one request of 1048576 tokens takes 1.5 GiB of KV cache" in problem.sentence
    assert "set VLLM_CPU_KVCACHE_SPACE=2" in problem.hint
    assert problem.exit_code == Exit.MISSING_PREREQUISITE
    assert not found(model, environ={"VLLM_CPU_KVCACHE_SPACE": "2"})
    length = problem.hint.partition("VLLM_MAX_MODEL_LEN=")[2].partition(";")[0]
    assert not found(model, environ={"VLLM_CPU_KVCACHE_SPACE": "1"}, max_model_len=length)
    assert found(model, environ={"VLLM_CPU_KVCACHE_SPACE": "1"}, max_model_len=str(int(length) + 256))


@pytest.mark.parametrize("length", ["auto", "-1"])
def test_a_length_that_vllm_is_to_find_is_never_too_long(tmp_path: Path, length: str) -> None:
    model = make_model(tmp_path / "m", {**SMALL, "max_position_embeddings": 1 << 24}, SMALL_WEIGHTS)
    assert not found(model, environ={"VLLM_CPU_KVCACHE_SPACE": "1"}, max_model_len=length)


def test_weights_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "m", LLAMA_8B, WEIGHTS_8B)
    monkeypatch.setattr(host, "memory_available", lambda: 8 * GIB)
    (problem,) = found(model)
    assert "the weights take 15.0 GiB in memory, and 6.0 GiB can be used" in problem.sentence
    monkeypatch.setattr(host, "memory_available", lambda: 64 * GIB)
    assert not found(model, max_model_len="8192")


def test_weights_without_headers_count_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "m", LLAMA_8B, 10)
    (model / "model.safetensors").unlink()
    with (model / "pytorch_model.bin").open("wb") as file:
        file.truncate(16 * GIB)
    monkeypatch.setattr(host, "memory_available", lambda: 8 * GIB)
    assert found(model)


def test_a_gpu_is_told_more_cards_a_shorter_length_or_a_smaller_cache(tmp_path: Path, gpus: list[int]) -> None:
    model = make_model(tmp_path / "m", LLAMA_8B, WEIGHTS_8B)
    gpus[:] = [24, 24]
    (problem,) = found(model, "cuda")
    assert "one request of 131072 tokens takes 16.0 GiB of KV cache" in problem.sentence
    assert "set VLLM_TP_SIZE=2" in problem.hint
    assert not found(model, "cuda", tensor_parallel_size="2")
    length = problem.hint.partition("VLLM_MAX_MODEL_LEN=")[2].partition(";")[0]
    assert not found(model, "cuda", max_model_len=length)
    spare = 24 * GIB * 0.92 - 2 * WEIGHTS_8B - int(length) * 131072  # what is advised leaves room for the rest
    assert spare > GIB
    (problem,) = found(model, "cuda", max_model_len="80000")
    assert "set VLLM_KV_CACHE_DTYPE=fp8" in problem.hint
    assert not found(model, "cuda", max_model_len="80000", kv_cache_dtype="fp8")


def test_weights_that_no_visible_gpu_holds_point_to_the_plan(tmp_path: Path, gpus: list[int]) -> None:
    (problem,) = found(make_model(tmp_path / "m", LLAMA_70B, 70_553_706_496), "cuda")
    assert "the weights take 131.4 GiB on the card, and 73.6 GiB can be used" in problem.sentence
    assert "berth plan" in problem.hint
    assert "LLM_VLLM_FORCE=true" in problem.hint


@pytest.mark.parametrize(
    "otherwise",
    [{"quantization": "fp8"}, {"cpu_offload_gb": "100"}, {"runner": "pooling"}, {"hf_overrides": "{}"}],
)
def test_what_cannot_be_reckoned_for_sure_is_not_refused(
    tmp_path: Path, gpus: list[int], otherwise: dict[str, str]
) -> None:
    model = make_model(tmp_path / "m", LLAMA_70B, 70_553_706_496)
    assert found(model, "cuda")
    assert not found(model, "cuda", **otherwise)


@pytest.mark.parametrize(
    "config",
    [{}, {"architectures": ["BertModel"]}, {**SMALL, "layer_types": ["unheard-of"]}, {**SMALL, "model_type": "mamba2"}],
)
def test_a_model_that_is_not_known_is_left_to_vllm(tmp_path: Path, gpus: list[int], config: dict[str, Any]) -> None:
    gpus[:] = [1]
    assert not found(make_model(tmp_path / "m", config, WEIGHTS_8B), "cuda")


def test_a_machine_whose_memory_is_not_known_refuses_nothing(tmp_path: Path, gpus: list[int]) -> None:
    gpus.clear()
    assert not found(make_model(tmp_path / "m", LLAMA_70B, 70_553_706_496), "cuda")


def test_a_forced_start_says_what_it_ignores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(tmp_path / "m", {**SMALL, "max_position_embeddings": 1 << 20}, SMALL_WEIGHTS)
    situation = Situation({"VLLM_CPU_KVCACHE_SPACE": "1"}, {}, str(model))
    assert refusal.heeded(situation, "cpu", {})
    assert refusal.heeded(situation, "cpu", {"LLM_VLLM_FORCE": "false"})
    assert not refusal.heeded(situation, "cpu", {"LLM_VLLM_FORCE": "true"})
    assert "starting although this cannot fit" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["nan", "inf", "0", "2", "-1", "much"])
def test_a_share_of_the_memory_that_is_none_counts_as_not_said(gpus: list[int], share: str) -> None:
    assert cuda.room(Situation({}, {"gpu-memory-utilization": share}, None)) == int(80 * GIB * 0.92)
    assert cuda.room(Situation({}, {"gpu-memory-utilization": "0.5"}, None)) == 40 * GIB


def test_nvidia_smi_tells_the_memory_of_the_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "0, GPU-aaaa-1, 81559\n1, GPU-bbbb-2, 40960\n2, GPU-cccc-3, [N/A]\n"
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: subprocess.CompletedProcess(args, 0, told, ""))
    assert cuda._memory(None) == [81559 << 20, 40960 << 20]
    assert cuda._memory("1") == [40960 << 20]
    assert cuda._memory("GPU-aaaa") == [81559 << 20]
    assert cuda._memory("") == []


def test_without_nvidia_smi_no_memory_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cuda._memory(None) == []
