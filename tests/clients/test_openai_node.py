"""OpenAI's client for Node, unmodified, through the service."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import ANSWER, QUESTION, Door
from tests.support.engine_python import ROOT

HERE = Path(__file__).parent / "node"
INSTALLED = ROOT / ".berth" / "clients-node"


@pytest.fixture(scope="module")
def program() -> Path:
    """The program beside the packages that it imports: Node looks for them where the program stands."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no Node here: install the Debian packages nodejs and npm")
    INSTALLED.mkdir(parents=True, exist_ok=True)
    for file in HERE.iterdir():
        shutil.copy(file, INSTALLED)
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(words, cwd=INSTALLED, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return INSTALLED / "chat.mjs"


def test_chats_whole_and_streamed_a_response_and_a_wrong_key(program: Path, door: Door) -> None:
    words = ["node", program, door.v1, door.key, QUESTION]
    done = subprocess.run(words, cwd=INSTALLED, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {
        "whole": ANSWER,
        "streamed": ANSWER,
        "response": ANSWER,
        "models": ["demo"],
        "refused": 401,
    }
