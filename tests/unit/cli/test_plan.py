"""`berth plan` in the terminal and for programs."""

import json
from pathlib import Path

import pytest

from berth import __main__, fitting, up
from berth.__main__ import main
from berth.errors import BerthError
from berth.progress import Progress
from engine import host
from engine.fit import GIB
from tests.support.stub_hub import StubHub
from tests.unit.cli.conftest import Resolve
from tests.unit.cli.test_preflight import FakeRuntime
from tests.unit.engine.fitting import LLAMA_8B, LLAMA_70B, SMALL, header, make_model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run `berth plan` in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(__main__.signal, "signal", lambda *_: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["berth", "plan", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Llama 3.1 70B, by its configuration and the header of its weights."""
    return str(make_model(tmp_path / "llama", LLAMA_70B, 70_553_706_496))


def test_a_plan_ends_with_the_lines_for_the_env_file(plan, model: str) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = plan(model, "--gpu", "h100-80g", "--context", "128000")
    assert code == 0
    for said in (
        "141.1 GB = 131.42 GiB",
        "39.06 GiB for 128,000 tokens",
        "2 cards for the weights, 3 with one",
        "VLLM_TP_SIZE=4",
    ):
        assert said in out


def test_a_plan_is_json_for_programs(plan, model: str) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = plan(model, "--gpu", "h100-80g", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["fits"]
    assert told["cards"] == {
        "for_weights": 2,
        "with_one_request": 3,
        "to_serve": 4,
        "tensor_parallel": 4,
        "pipeline_parallel": 1,
    }
    assert told["weights"]["bytes"] == 2 * 70_553_706_496
    assert told["weights"]["stored"] == {"BF16": 2 * 70_553_706_496}
    assert "VLLM_TP_SIZE=4" in told["env"]


def test_weights_are_told_by_dtype_and_quantization(plan, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = make_model(tmp_path / "m", {**LLAMA_8B, "quantization_config": {"quant_method": "fp8"}}, 10)
    weights = {"w": ("F8_E4M3", [7_000_000_000]), "s": ("BF16", [1_000_000_000])}
    (folder / "model.safetensors").write_bytes(header(weights))
    code, out, _ = plan(str(folder), "--gpu", "l4", "--context", "8192")
    assert code == 0
    assert "9.0 GB = 8.38 GiB (fp8; BF16 2.0 GB, F8_E4M3 7.0 GB; " in out


def test_what_fits_nowhere_is_exit_code_1(plan, model: str) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = plan(model, "--gpu", "gaudi2", "--concurrency", "1000")
    assert code == 1
    assert "does not fit: 1000 requests of 131,072 tokens" in out
    assert "For the env file" not in out


def test_settings_of_an_env_file_count(plan, tmp_path: Path, model: str) -> None:  # type: ignore[no-untyped-def]
    env = tmp_path / "mine.env"
    env.write_text(f"LLM_VLLM_MODEL_NAME={model}\nVLLM_MAX_MODEL_LEN=8k\nVLLM_KV_CACHE_DTYPE=fp8\nVLLM_TP_SIZE=1\n")
    code, out, _ = plan("--env", str(ROOT / "env/cuda.env"), "--env", str(env), "--gpu", "h100-80g")
    assert code == 0
    assert "VLLM_MAX_MODEL_LEN=8000" in out
    assert "VLLM_KV_CACHE_DTYPE=fp8" in out
    assert "settings say\ttensor parallel 1 x pipeline parallel 1" in out


def test_the_built_in_model_fits_on_this_machine(plan) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = plan("demo", "--gpu", "cpu")
    assert code == 0
    assert "fits into this machine's memory" in out
    assert "but\t" not in out
    assert "made for 2,048 tokens" in plan("demo", "--gpu", "cpu", "--context", "4096")[1]


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ((), "no model to plan for", 2),
        (("./nowhere",), "no folder with a model", 2),
        (("org/model",), "HF_HUB_OFFLINE forbids", 2),
        (("demo", "--gpu", "h100"), "no such card", 2),
        (("demo", "--context", "0"), "--context", 2),
    ],
)
def test_bad_input_is_one_sentence_and_a_hint(plan, words: tuple[str, ...], said: str, code: int) -> None:  # type: ignore[no-untyped-def]
    found, _, err = plan(*words)
    assert found == code
    assert said in err
    assert "berth: hint: " in err


def test_a_model_that_cannot_be_planned_for_is_said_to_be_so(plan, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    odd = make_model(tmp_path / "odd", {**SMALL, "layer_types": ["spiral"]}, 10)
    code, _, err = plan(str(odd), "--gpu", "l4")
    assert code == 1
    assert "spiral" in err


def test_a_model_of_the_hub_is_planned_for_without_fetching_it(plan, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    folder = make_model(tmp_path / "m", LLAMA_8B, 8_030_261_248)
    with StubHub({"org/model": folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        code, out, _ = plan("org/model", "--gpu", "l4", "--context", "16384")
        assert code == 0
        assert "16.1 GB" in out
        code, _, err = plan("org/other", "--gpu", "l4")
        assert code == 2
        assert "shows no config.json of org/other" in err


def test_the_speed_of_the_store_is_measured_where_the_weights_are(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", SMALL, 10)
    assert fitting.read_rate(folder) is None  # too small to tell
    with (folder / "model.safetensors").open("ab") as file:
        file.truncate(32 << 20)
    assert (fitting.read_rate(folder) or 0) > 0


def test_up_refuses_what_cannot_fit_and_starts_it_when_forced(
    resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "memory_available", lambda: 8 * GIB)
    monkeypatch.setattr("berth.preflight.problems", lambda *_: [])
    shell = {"LLM_VLLM_MODEL_NAME": str(make_model(tmp_path / "m", LLAMA_8B, 8_030_261_248))}
    deployment = resolve("env/cpu.env", shell=shell)
    runtime = FakeRuntime()
    with Progress() as progress:
        with pytest.raises(BerthError, match="this cannot fit"):
            up.check(deployment, runtime, progress)  # type: ignore[arg-type]
        assert up.check(deployment.forced(), runtime, progress).value("LLM_VLLM_FORCE") == "true"  # type: ignore[arg-type]
