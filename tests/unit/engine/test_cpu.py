"""What is settled on a CPU: the KV cache's size, preloaded libraries, constants."""

import json
from pathlib import Path

import pytest

from engine import host
from engine.cpu_memory import GIB, HEADROOM, SMALLEST, Memory, kv_cache
from engine.decisions import Decision, Situation
from engine.devices import cpu
from engine.fit import cache
from engine.model import ModelFiles, find, is_path

CONFIG = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "max_position_embeddings": 131072,
}


def model(folder: Path, weights: int, **config: object) -> ModelFiles:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}), encoding="utf-8")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(weights)
    return ModelFiles(folder)


def test_under_a_limit_weights_and_two_gib_stay_free(tmp_path: Path) -> None:
    size, _ = kv_cache(Memory(32 * GIB, limited=True), model(tmp_path, 16 * GIB), None, 128)
    assert size == 32 * GIB - 16 * GIB - HEADROOM


def test_on_a_shared_machine_never_more_than_half_of_what_is_free(tmp_path: Path) -> None:
    size, why = kv_cache(Memory(1024 * GIB, limited=False), model(tmp_path, 16 * GIB), None, 128)
    assert size == 512 * GIB
    assert "half" in why


def test_never_more_than_the_requests_can_use(tmp_path: Path) -> None:
    size, _ = kv_cache(Memory(1024 * GIB, limited=True), model(tmp_path, 16 * GIB), 4096, 16)
    blocks = 16 * 4096 // 128 + 1  # vLLM keeps one for itself
    assert size == blocks * 128 * 2 * 32 * 8 * 128 * 2


def test_a_single_request_of_full_length_fits_into_the_cache_that_is_made_for_it(tmp_path: Path) -> None:
    found = model(tmp_path, GIB)
    size, _ = kv_cache(Memory(1024 * GIB, limited=True), found, None, 1)
    known = found.shape()
    assert known is not None
    assert cache.of(known, device="cpu").needed(131072, 1) <= size


def test_a_small_machine_still_gets_a_cache(tmp_path: Path) -> None:
    assert kv_cache(Memory(3 * GIB, limited=True), model(tmp_path, GIB), None, 128)[0] == SMALLEST


def test_an_unknown_model_gets_a_quarter() -> None:
    assert kv_cache(Memory(32 * GIB, limited=True), None, None, 128)[0] == 8 * GIB


@pytest.mark.parametrize("text", ["", "[]", "{", '{"text_config": 3}', '{"num_attention_heads": 0}'])
def test_a_strange_config_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert ModelFiles(tmp_path).shape() is None
    assert ModelFiles(tmp_path).weights() is None


def test_a_model_is_found_in_the_hubs_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    model(repository / "snapshots" / "abc", 10)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    found = find("org/name", {"HF_HOME": str(tmp_path)}, {})
    assert found is not None
    assert found.weights() == 10
    assert find("org/name", {"HF_HOME": str(tmp_path)}, {"revision": "abc"}) == found
    assert find("org/other", {"HF_HOME": str(tmp_path)}, {}) is None


def test_paths_and_hub_names_are_told_apart() -> None:
    assert is_path("/models/x")
    assert is_path("./x")
    assert not is_path("org/name")
    assert not is_path("org/name/file.gguf")


def settled(decisions: list[Decision]) -> dict[str, str | None]:
    return {name: value for decision in decisions for name, value in decision.environ.items()}


def test_what_a_setting_says_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cpu_quota", lambda: 1.0)
    monkeypatch.setattr(host, "affinity", lambda: {0, 1, 2, 3})
    bound = cpu.tune(Situation({}, {}, None))
    assert "VLLM_CPU_OMP_THREADS_BIND" in settled(bound)
    assert any("--kv-cache-memory-bytes" in decision.args for decision in bound)
    said = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_USE_AOT_COMPILE": "1"}
    free = cpu.tune(Situation(said, {}, None))
    assert not said.keys() & settled(free).keys()
    assert not any("--kv-cache-memory-bytes" in decision.args for decision in free)


def test_libraries_are_preloaded_before_those_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("libiomp5.so", "libtcmalloc_minimal.so.4"):
        (tmp_path / "lib" / name).touch()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(cpu, "_LIBRARIES", (tmp_path / "lib",))
    decisions = cpu.tune(Situation({"LD_PRELOAD": "/own.so"}, {}, None))
    tcmalloc, openmp = tmp_path / "lib" / "libtcmalloc_minimal.so.4", tmp_path / "lib" / "libiomp5.so"
    assert settled(decisions)["LD_PRELOAD"] == f"{tcmalloc}:{openmp}:/own.so"
    assert any(decision.module for decision in decisions)
    spawned = cpu.tune(Situation({"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, {}, None))
    assert not any(decision.module for decision in spawned)


def test_shared_memory_that_one_worker_does_not_fit_into_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "shared_memory_free", lambda: 64 << 20)
    (problem,) = cpu.preflight(Situation({}, {}, str(tmp_path)))
    assert "64 MiB" in problem.sentence
    assert "--shm-size 1g" in problem.hint
    monkeypatch.setattr(host, "shared_memory_free", lambda: 1 << 30)
    assert not cpu.preflight(Situation({}, {}, str(tmp_path)))
