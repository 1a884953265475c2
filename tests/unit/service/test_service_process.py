"""The service as a process: starting, refusing to start, its log, and stopping."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPENAI_BODY

MICROSERVICE = Path(__file__).resolve().parents[3] / "microservice"
STREAM = {**OPENAI_BODY, "stream": True}


def environ(**settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LLM_USVC_PORT": "0", **settings}


def refused(**settings: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "llm_service"],
        cwd=MICROSERVICE,
        env=environ(**settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


class Process:
    """The running service and the lines it has logged."""

    def __init__(self, log: Path, **settings: str) -> None:
        self._log = log
        with log.open("w") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "llm_service"], cwd=MICROSERVICE, env=environ(**settings), stdout=stdout
            )
        listening = wait_until(lambda: self.lines("listening"), 30, "the service listens", interval=0.02)
        self.address: str = listening[0]["address"]
        self.url = f"http://{self.address}"

    def lines(self, message: str) -> list[dict[str, Any]]:
        whole = [line for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in map(json.loads, whole) if line["message"] == message]


@pytest.fixture
def engine() -> Iterator[StubEngine]:
    with StubEngine() as engine:
        yield engine


@pytest.fixture
def service(engine: StubEngine, tmp_path: Path) -> Iterator[Process]:
    running = Process(tmp_path / "log", LLM_VLLM_ENDPOINT=engine.url, VLLM_API_KEY="engine-key-1")
    yield running
    running.process.kill()
    running.process.wait(10)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "keys").write_text("client-key\n")
    running = Process(tmp_path / "log of the locked one", LLM_API_KEYS_FILE=str(tmp_path / "keys"))
    yield running
    running.process.kill()
    running.process.wait(10)


def test_keys_that_cannot_be_read_end_with_2_and_a_sentence(tmp_path: Path) -> None:
    code, text = refused(LLM_API_KEYS_FILE=str(tmp_path / "none"))
    assert code == 2
    assert text.splitlines() == [
        f"berth: error: {tmp_path}/none cannot be read: No such file or directory.",
        "berth: hint: Let LLM_API_KEYS_FILE name a file that this user may read, with one key a line.",
    ]


def test_letting_other_machines_in_without_a_key_ends_with_2_and_a_sentence() -> None:
    code, text = refused(LLM_USVC_HOST="0.0.0.0")
    assert code == 2
    assert text.startswith("berth: error: LLM_USVC_HOST=0.0.0.0 lets other machines in, and they would need no key.\n")
    assert "LLM_ALLOW_NO_KEY=true" in text


def test_bad_settings_end_with_2_and_a_sentence_with_a_hint_for_each() -> None:
    code, text = refused(LLM_USVC_PORT="x", LLM_MODLE_NAME="m")
    assert code == 2
    assert text.splitlines() == [
        "berth: error: LLM_MODLE_NAME: no such setting.",
        "berth: hint: Did you mean LLM_MODEL_NAME? Remove LLM_MODLE_NAME if it is not needed.",
        "berth: error: LLM_USVC_PORT=x is not accepted.",
        "berth: hint: LLM_USVC_PORT takes 0 to 65535.",
    ]


def test_a_port_in_use_ends_with_1_and_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = refused(LLM_USVC_PORT=str(port))
    assert code == 1
    assert text.splitlines() == [
        f"berth: error: Cannot listen on 127.0.0.1 port {port}: Address already in use.",
        "berth: hint: Stop what holds the port, or set LLM_USVC_PORT.",
    ]


def test_an_address_that_is_not_this_machines_ends_with_1_and_a_sentence() -> None:
    for host in ("no-such-host.invalid", "192.0.2.1"):
        code, text = refused(LLM_USVC_HOST=host, LLM_ALLOW_NO_KEY="true")
        assert code == 1
        assert text.startswith(f"berth: error: Cannot listen on {host} port 0: ")
        assert text.endswith("berth: hint: Check LLM_USVC_HOST and LLM_USVC_PORT.\n")


def test_the_missing_extra_ends_with_3_and_the_remedy(tmp_path: Path) -> None:
    hide = (
        "import runpy, sys; sys.modules['langchain_openai'] = None\n"
        "runpy.run_module('llm_service', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide],
        cwd=MICROSERVICE,
        env=environ(LLM_CONNECTOR="langchain"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert "optional extra langchain" in done.stderr
    assert "requirements-langchain.txt" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_package_reads_no_environment() -> None:
    watch = (
        "import os, sys; import fastapi, aiohttp, uvicorn, orjson\n"
        "real = os.environ\n"
        "class Watched(dict):\n"
        "    def get(self, name, default=None): read.append(name); return default\n"
        "    def __getitem__(self, name): read.append(name); raise KeyError(name)\n"
        "read = []; os.environ = Watched()\n"
        "import llm_service.app, llm_service.__main__, llm_service.healthcheck\n"
        "os.environ = real; print([name for name in read if 'LLM' in name])"
    )
    done = subprocess.run([sys.executable, "-c", watch], cwd=MICROSERVICE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_starts_without_an_engine(tmp_path: Path) -> None:
    running = Process(tmp_path / "log", LLM_VLLM_ENDPOINT="http://127.0.0.1:1")
    try:
        assert httpx.get(f"{running.url}/health", trust_env=False).status_code == 200
        assert httpx.get(f"{running.url}/ready", trust_env=False).json()["state"] == "starting"
    finally:
        running.process.kill()
        running.process.wait(10)


def test_the_log_has_the_settings_once_and_a_line_for_each_request_but_no_prompt_and_no_key(
    service: Process, tmp_path: Path
) -> None:
    body = {**STREAM, "messages": [{"role": "user", "content": "canary-prompt"}]}
    httpx.post(service.url + CHAT, json=body, headers={"Authorization": "Bearer canary-key"}, trust_env=False)
    httpx.post(service.url + CHAT, content=b"canary-body", trust_env=False)
    for probe in ("/health", "/ready"):
        httpx.get(service.url + probe, trust_env=False)
    httpx.get(f"{service.url}/v1/health_check", trust_env=False)
    wait_until(lambda: len(service.lines("request")) == 3, 10, "the lines are logged", interval=0.02)
    chat, bad, check = service.lines("request")
    assert check["path"] == "/v1/health_check"
    assert (chat["status"], chat["outcome"], chat["form"], chat["model"], chat["stream"]) == (
        200,
        "ok",
        "openai",
        "stub-model",
        True,
    )
    assert {"request_id", "bytes", "first_byte_ms", "total_ms"} <= set(chat)
    assert (bad["status"], bad["outcome"]) == (400, "BadRequestError")
    [settings] = service.lines("settings")
    assert settings["settings"]["VLLM_API_KEY"] == "***"
    text = (tmp_path / "log").read_text()
    assert "canary" not in text
    assert "engine-key-1" not in text


def test_a_client_that_left_is_logged_as_such(service: Process, engine: StubEngine) -> None:
    engine.knobs.hold = "before headers"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(service.url + CHAT, json=STREAM, timeout=httpx.Timeout(10, read=0.1), trust_env=False)
    wait_until(lambda: service.lines("request"), 10, "the line is logged", interval=0.02)
    assert (service.lines("request")[0]["status"], service.lines("request")[0]["outcome"]) == (499, "client gone")


def test_sigterm_lets_a_stream_finish_and_ends_with_0(service: Process, engine: StubEngine) -> None:
    engine.knobs.pieces, engine.knobs.piece_seconds = ["a"] * 20, 0.02
    with httpx.stream("POST", service.url + CHAT, json=STREAM, trust_env=False) as reply:
        parts = reply.iter_bytes()
        text = next(parts)
        service.process.send_signal(signal.SIGTERM)
        text += b"".join(parts)
    assert text.endswith(b"data: [DONE]\n\n")
    assert service.process.wait(20) == 0
    assert [line["outcome"] for line in service.lines("request")] == ["ok"]  # of the last moment, too


def test_what_cannot_finish_in_time_ends_with_an_error_event(engine: StubEngine, tmp_path: Path) -> None:
    service = Process(tmp_path / "log", LLM_VLLM_ENDPOINT=engine.url, LLM_DRAIN_TIMEOUT_SECONDS="0")
    engine.knobs.hold = "after first piece"
    with httpx.stream("POST", service.url + CHAT, json=STREAM, trust_env=False) as reply:
        parts = reply.iter_bytes()
        text = next(parts)
        service.process.send_signal(signal.SIGTERM)
        text += b"".join(parts)
    assert b"ShuttingDownError" in text
    assert b"[DONE]" not in text
    assert service.process.wait(20) == 0


def test_the_health_check_of_the_container_ends_with_0_or_1(service: Process, locked: Process) -> None:
    def check(port: str, host: str = "0.0.0.0") -> int:
        return subprocess.run(
            [sys.executable, "-m", "llm_service.healthcheck"],
            cwd=MICROSERVICE,
            env=environ(LLM_USVC_PORT=port, LLM_USVC_HOST=host, HTTP_PROXY="http://127.0.0.1:1"),
            timeout=60,
        ).returncode

    assert check(service.address.rsplit(":", 1)[1]) == 0
    assert check(locked.address.rsplit(":", 1)[1]) == 0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert check(str(closed.getsockname()[1])) == 1
