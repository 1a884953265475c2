"""Batches with the real vLLM: killed and gone on with, requests that it refuses, and the offline engine from Python."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import journal
from tests.support.engine_python import ROOT, engine_python
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

LINES = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Requests, the last two of which vLLM refuses."""
    bodies = [{"max_tokens": 4 + number % 8} for number in range(LINES)]
    bodies += [{"max_tokens": "many"}, {"model": "gpt-4o"}]
    with open(tmp_path / journal.INPUT, "w", encoding="utf-8") as file:
        for number, body in enumerate(bodies):
            asked = {"messages": [{"role": "user", "content": f"What is {number}?"}], **body}
            request = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}
            print(json.dumps(request), file=file)
    return tmp_path


def environ(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "LLM_VLLM_MODEL_NAME": "demo",
        "LLM_DEVICE": "cpu",
        "VLLM_ENFORCE_EAGER": "true",
        "VLLM_MAX_NUM_SEQS": "4",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def begun(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The batch, on its way."""
    with (folder / "log").open("ab") as log:
        command = [engine_python(), "-P", "-m", "engine.batch", str(folder)]
        process = subprocess.Popen(command, env=environ(folder), stdout=log, stderr=log, start_new_session=True)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_it_goes_on_and_every_request_has_one_answer(folder: Path, begun: "subprocess.Popen[bytes]") -> None:
    def some() -> bool:
        assert begun.poll() is None, (folder / "log").read_text()[-4000:]
        return len(journal.places(folder)) >= 10

    wait_until(some, 600, "ten answers", interval=0.02)
    begun.kill()
    begun.wait()
    assert 10 <= len(journal.places(folder)) < LINES
    command = [engine_python(), "-P", "-m", "engine.batch", str(folder)]
    done = subprocess.run(command, env=environ(folder), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    found = list(journal.entries(journal.places(folder)))
    assert [entry.output["custom_id"] for entry in found] == [f"r{number}" for number in range(LINES + 2)]
    rows = (folder / "answers-0-of-1.jsonl").read_text().splitlines()
    assert len(rows) == len(found), "none is answered twice"
    for number, entry in enumerate(found[:LINES]):
        body = entry.output["response"]["body"]
        assert body["choices"][0]["message"]["content"]
        assert body["usage"]["completion_tokens"] <= 4 + number % 8
    told = [entry.output["response"]["body"]["error"]["message"] for entry in found[LINES:]]
    assert "max_tokens" in told[0]
    assert "gpt-4o" in told[1]
    assert all(entry.failed for entry in found[LINES:])


def test_the_example_of_the_offline_engine_answers(tmp_path: Path) -> None:
    text = (ROOT / "docs/examples/offline.py").read_text()
    example = tmp_path / "offline.py"
    example.write_text(text.replace("max_model_len=512", "max_model_len=512, enforce_eager=True"))  # quicker here
    assert example.read_text() != text
    command = [engine_python(), str(example), str(ROOT / "models" / "demo")]
    settings = {**environ(tmp_path), "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    answers = [line for line in done.stdout.splitlines() if line.startswith(("Who are you?", "What is Deep Learning?"))]
    assert len(answers) == 2
    assert "demo model" in answers[0]


def test_the_page_shows_the_example_as_it_is() -> None:
    code = (ROOT / "docs/examples/offline.py").read_text().partition('"""\n\n')[2]
    assert code in (ROOT / "docs/batch.md").read_text()
