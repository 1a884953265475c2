"""What vLLM's client is told, and what a user may tell it."""

import argparse
import json
import types
from pathlib import Path

import pytest

from berth.bench import asked
from berth.errors import BerthError
from engine import bench, bench_vllm

ORDER = {
    **asked.Load(rate=2.5).facts(),
    "kind": "serve",
    "url": "http://llm:9000",
    "model": "demo",
    "tokenizer": "demo",
    "insecure": False,
}


def test_the_order_becomes_flags_and_the_users_own_come_after_them() -> None:
    words = bench.serve_words({**ORDER, "more": ["--dataset-name=sharegpt"]}, Path("/bench"))
    assert "--base-url=http://llm:9000" in words
    assert "--max-concurrency=8" in words
    assert "--request-rate=2.5" in words
    assert "--insecure" not in words
    assert words.index("--dataset-name=sharegpt") > words.index("--dataset-name=random")
    assert words[-2:] == ["--result-dir=/bench", "--result-filename=result.json"]
    assert next(word for word in words if word.startswith("--tokenizer=")).endswith("/models/demo")


def test_without_a_rate_vllm_is_told_none() -> None:
    words = bench.serve_words({**ORDER, "rate": None}, Path("/bench"))
    assert not [word for word in words if "request-rate" in word]


def test_the_key_is_in_the_environment_alone_and_settings_of_a_server_are_not(tmp_path: Path) -> None:
    (tmp_path / bench.KEY).write_text("secret-key\n")
    given = {"LLM_DEVICE": "cpu", "VLLM_MAX_MODEL_LEN": "4096", "VLLM_LOGGING_LEVEL": "ERROR", "HOME": "/x"}
    environ = bench.client_environment(given, tmp_path / bench.KEY)
    assert environ["OPENAI_API_KEY"] == "secret-key"
    assert "VLLM_MAX_MODEL_LEN" not in environ
    assert environ["VLLM_LOGGING_LEVEL"] == "ERROR"
    assert not [word for word in bench.serve_words({**ORDER, "more": []}, tmp_path) if "secret-key" in word]


def test_a_start_is_measured_with_the_flags_of_the_command_that_serves() -> None:
    argv = ["/venv/bin/python", "-P", "-m", "engine.prefork", "vllm", "serve", "m", "--max-model-len", "64"]
    words = bench.startup_command(argv, Path("/bench"))
    assert words == [
        *("/venv/bin/python", "-P", "-m", "engine.bench_vllm", "startup", "/bench"),
        *("serve", "m", "--max-model-len", "64"),
    ]


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"kind": "serve"}', "\x00"])
def test_an_order_that_cannot_be_read_is_one_sentence(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / bench.ORDER).write_text(content)
    monkeypatch.setattr("sys.argv", ["engine.bench", str(tmp_path)])
    assert bench.main() == 2
    assert "engine.bench has no order that it understands" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["surprise"], "surprise: not an option"),
        (["--header", "Authorization=x"], "--header would show its secret"),
        (["--base_url=http://x"], "--base-url is Berth's to say"),
        (["--result-dir", "/"], "--result-dir is Berth's to say"),
    ],
)
def test_flags_that_are_not_the_users_to_give_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(BerthError, match=said) as refused:
        asked.check_more(words)
    assert refused.value.exit_code == 2


def test_flags_of_vllm_pass() -> None:
    assert asked.check_more(["--dataset-name", "sharegpt"]) == ("--dataset-name", "sharegpt")
    assert json.dumps(asked.Load(more=("--x",)).facts())


def test_a_start_is_measured_by_vllms_own_function_as_often_as_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[argparse.Namespace] = []
    module = types.ModuleType("vllm.benchmarks.startup")
    module.main = seen.append  # type: ignore[attr-defined]
    monkeypatch.setattr(bench_vllm, "import_module", lambda _: module)
    args = argparse.Namespace(model_tag="m", model=None, max_model_len=64)
    bench_vllm.time_start(args, {"cold": 2, "warm": 5}, tmp_path / "result.json")
    assert (seen[0].model, seen[0].max_model_len) == ("m", 64)
    assert (seen[0].num_iters_cold, seen[0].num_iters_warm, seen[0].num_iters_warmup) == (2, 5, 1)
    assert seen[0].output_json == str(tmp_path / "result.json")
