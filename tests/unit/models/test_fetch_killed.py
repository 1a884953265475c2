"""The verb itself, killed ten times at random places: in the end the model is the hub's, byte for byte."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stub_hub import StubHub
from tests.support.waiting import wait_until
from tests.unit.models.conftest import MODEL, make_model

KILLS = 10
WEIGHTS = 4_000_000


def test_ten_kills_and_not_one_wrong_byte(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source", WEIGHTS)
    command = [sys.executable, "-P", "-m", "berth", "fetch", MODEL, "--to", str(tmp_path / "home"), "--json"]
    chance = random.Random(7)
    with StubHub({MODEL: source}) as hub:
        environ = {**os.environ, "HF_ENDPOINT": hub.address, "HF_TOKEN": "", "HF_HUB_DISABLE_XET": "1"}
        hub.knobs.bytes_per_s = 4_000_000
        for _ in range(KILLS):
            goal = hub.sent + chance.randrange(WEIGHTS // 6)
            running = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(lambda: hub.sent > goal, 60, "more of the model has gone out", interval=0.01)  # noqa: B023
            running.kill()
            running.wait()
            assert not list(tmp_path.glob("home/hub/*/snapshots/*/*"))
        hub.knobs.bytes_per_s = None
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert 0 < facts["bytes_fetched"] < facts["bytes"]  # what came before the kills was not fetched again
        for file in Path(facts["path"]).rglob("*.*"):
            assert file.read_bytes() == (source / file.relative_to(facts["path"])).read_bytes()
        assert facts["files"] == 7


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["fetch", "not a name"], "not a model's name", 2),
        (["fetch", "some/model", "--to", "gs://bucket"], "not a place in an object store", 2),
        (["fetch", "some/model", "--tar", "/"], "not a file's name", 2),
        (["verify", "some/model"], "is not in", 3),
        (["gc", "--models", "--older-than", "soon"], "not a duration", 2),
    ],
)
def test_wrong_words_are_one_sentence_and_a_hint(tmp_path: Path, words: list[str], said: str, code: int) -> None:
    environ = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-P", "-m", "berth", *words], env=environ, capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
