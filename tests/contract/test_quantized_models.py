"""Models that real llm-compressor made smaller: whole or not there, gone on with after a kill, served by real vLLM."""

import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from models.demo.train import text
from tests.contract.conftest import start
from tests.support.engine_python import ROOT, engine_python
from tests.support.waiting import free_port, wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

PYTHON = ROOT / ".berth" / "quantize" / "bin" / "python"
ANSWERS = {question: entry.answer for entry in text.load().known for question in entry.ask}
SAMPLES = list(ANSWERS)[::2]
ORIGINAL = (ROOT / "models" / "demo" / "model.safetensors").stat().st_size


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a calibration set."""
    if not PYTHON.exists():
        pytest.skip("no llm-compressor here (scripts/test contract installs it into .berth/quantize)")
    folder = tmp_path_factory.mktemp("quantize")
    chats = ([{"role": "user", "content": q}, {"role": "assistant", "content": ANSWERS[q]}] for q in SAMPLES)
    (folder / "samples.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return folder


def compress(
    place: Path, scheme: str, log: Path, data: str = "samples.jsonl", to: str = ""
) -> "subprocess.Popen[bytes]":
    told = ["--to", place / (to or scheme), "--data", place / data, "--samples", "48", "--length", "128"]
    command = [PYTHON, "-P", "-m", "engine.quantize.compress", "demo", "--scheme", scheme, *told]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environ, stdout=output, stderr=output)


def finished(place: Path, scheme: str, code: int = 0, **options: str) -> str:
    log = place / "log"
    assert compress(place, scheme, log, **options).wait(600) == code, log.read_text()[-4000:]
    return log.read_text()


@pytest.fixture(scope="module")
def int8(place: Path) -> Path:
    """The demo model in INT8, by a run that was killed after its second layer and one that went on."""
    layers = place / ".w8a8.part" / "layers"
    killed = compress(place, "w8a8", place / "log")
    wait_until(lambda: killed.poll() is not None or len(list(layers.glob("*.safetensors"))) >= 2, 300, "two layers")
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    assert not (place / "w8a8").exists(), "half a model is no model"
    kept = {file.name: file.stat().st_mtime_ns for file in layers.glob("*.safetensors")}
    assert 2 <= len(kept) < 4
    said = finished(place, "w8a8")
    quantized = {int(layer) for layer in re.findall(r"Quantizing .*model\.layers\.(\d+)\.", said)}
    assert quantized == set(range(len(kept), 4)), "the layers that were done are not done again"
    return place / "w8a8"


def test_a_run_that_was_killed_goes_on_and_leaves_a_whole_model_alone(int8: Path) -> None:
    assert sorted(path.name for path in int8.parent.iterdir() if "part" in path.name) == []
    config = json.loads((int8 / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    original = ROOT / "models" / "demo"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (int8 / name).read_bytes() == (original / name).read_bytes()
    assert not int8.joinpath("model.safetensors").stat().st_mode & 0o111
    assert int8.joinpath("model.safetensors").stat().st_size < 0.65 * ORIGINAL


def test_a_run_that_went_on_leaves_the_bytes_of_one_that_was_never_killed(int8: Path) -> None:
    finished(int8.parent, "w8a8", to="at-once")
    whole = int8.parent / "at-once"
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in int8.iterdir()
    }


def test_the_same_again_does_nothing_and_another_way_does_not_write_over_it(int8: Path) -> None:
    before = (int8 / "model.safetensors").stat().st_mtime_ns
    assert "made before" in finished(int8.parent, "w8a8")
    (int8.parent / "other.jsonl").write_text('{"text": "Something else"}\n')
    assert "is not this model quantized this way" in finished(int8.parent, "w8a8", code=2, data="other.jsonl")
    assert (int8 / "model.safetensors").stat().st_mtime_ns == before


def test_fp8_needs_no_samples_and_halves_the_linear_layers(place: Path) -> None:
    finished(place, "fp8-dynamic")
    config = json.loads((place / "fp8-dynamic" / "config.json").read_text())
    (group,) = config["quantization_config"]["config_groups"].values()
    assert (group["weights"]["num_bits"], group["weights"]["type"]) == (8, "float")
    assert (place / "fp8-dynamic" / "model.safetensors").stat().st_size < 0.65 * ORIGINAL


def test_the_smaller_model_gives_the_originals_answers(int8: Path) -> None:
    port = free_port()
    settings = {"LLM_VLLM_MODEL_NAME": str(int8), "LLM_VLLM_PORT": str(port), "VLLM_SERVED_MODEL_NAME": "small"}
    settings |= {"LLM_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENFORCE_EAGER": "true"}
    log = int8.parent / "engine.log"
    engine = start("engine.serve", engine_python(), ROOT, log, **settings)
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False, limits=limits) as client:

        def ready() -> bool:
            assert engine.poll() is None, log.read_text()[-4000:]
            try:
                return client.get("/health").status_code == 200
            except httpx.TransportError:
                return False

        def ask(question: str) -> str:
            body = {"model": "small", "messages": [{"role": "user", "content": question}], "max_tokens": 64}
            answer: str = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
            return answer

        try:
            wait_until(ready, 600, "vLLM with the smaller model", interval=0.5)
            asked = [question for question in ANSWERS if question not in SAMPLES]
            with ThreadPoolExecutor(32) as pool:
                same = sum(said == ANSWERS[q] for q, said in zip(asked, pool.map(ask, asked), strict=True))
        finally:
            engine.terminate()
            engine.wait(90)
    assert same >= 0.98 * len(asked)
