"""The page in front of real vLLM with the demo model: opened while it loads, used once it is ready."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from models.demo.train import text
from tests.support.engine_python import ROOT, engine_python
from tests.support.waiting import free_port, wait_until
from tests.web.chatting import Chat, take

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

LOAD_MS = 600_000  # a bound for hangs
LOADS = re.compile("loading weights|compiling|warming up")
ANSWERS = {question: entry.answer for entry in text.load().known for question in entry.ask}


@dataclass
class Deployment:
    """A service whose engine has only begun to load."""

    address: str
    engine: subprocess.Popen[bytes]
    phase_file: Path

    def hold(self) -> None:
        """Stop the engine where it loads: on a fast machine the page would be too late to see that."""
        wait_until(self._loads, LOAD_MS / 1000, "the engine loads", interval=0.002)
        os.killpg(self.engine.pid, signal.SIGSTOP)

    def let_go(self) -> None:
        """Let the engine go on."""
        os.killpg(self.engine.pid, signal.SIGCONT)

    def _loads(self) -> bool:
        try:
            return LOADS.search(self.phase_file.read_text()) is not None
        except FileNotFoundError:
            return False


@pytest.fixture
def service(browser: Browser, tmp_path: Path) -> Iterator[Deployment]:
    """Both parts, started at the same moment."""
    engine = engine_python()
    port = free_port()
    shared = {
        **os.environ,
        "PATH": f"{engine.parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "LLM_DEVICE": "cpu",
        "LLM_VLLM_MODEL_NAME": "demo",
        "LLM_VLLM_PORT": str(free_port()),
        "LLM_USVC_PORT": str(port),
        "LLM_PHASE_FILE": str(tmp_path / "phase.json"),
    }
    cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENFORCE_EAGER": "true"}
    parts: tuple[tuple[list[str], dict[str, str]], ...] = (
        ([str(engine), "-P", "-m", "engine.serve"], {**shared, **cpu, "PYTHONPATH": str(ROOT)}),
        ([sys.executable, "-P", "-m", "llm_service"], {**shared, "PYTHONPATH": str(ROOT / "microservice")}),
    )
    with (tmp_path / "log").open("wb") as log:
        running = [
            subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
            for command, environ in parts
        ]
    made = Deployment(f"http://127.0.0.1:{port}", running[0], Path(shared["LLM_PHASE_FILE"]))
    yield made
    made.let_go()
    for process in running:
        process.terminate()
        process.wait(60)


def test_the_page_tells_how_the_model_loads_and_then_chats_with_it(
    service: Deployment, open_chat: Callable[..., Chat], tmp_path: Path
) -> None:
    service.hold()
    wait_until(lambda: b"listening" in (tmp_path / "log").read_bytes(), 60, "the service listens")
    chat = open_chat(service.address)
    expect(chat.notice).to_contain_text(LOADS, timeout=LOAD_MS)
    take(chat, "vllm-loading")
    service.let_go()
    expect(chat.state).to_contain_text("ready", timeout=LOAD_MS)
    question = "Who are you?"
    chat.page.get_by_label("Temperature").fill("0")
    chat.ask(question)
    expect(chat.facts).to_contain_text("tokens/s", timeout=LOAD_MS)
    expect(chat.stop).to_be_hidden(timeout=LOAD_MS)
    take(chat, "vllm-answer")
    assert chat.answers.inner_text().strip() == ANSWERS[question]
    # An answer without an end is stopped, and the next one comes at once.
    chat.page.get_by_label("Max tokens").fill("2000")
    chat.page.get_by_label("Temperature").fill("2")
    chat.ask("Write for as long as you can.")
    expect(chat.facts.nth(1)).to_contain_text("tokens/s", timeout=LOAD_MS)
    chat.page.keyboard.press("Escape")
    expect(chat.stop).to_be_hidden()
    chat.page.get_by_role("button", name="New chat").click()
    chat.page.get_by_label("Temperature").fill("0")
    chat.ask(question)
    expect(chat.stop).to_be_hidden(timeout=LOAD_MS)
    assert chat.answers.inner_text().strip() == ANSWERS[question]
