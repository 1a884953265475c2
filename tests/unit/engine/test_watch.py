"""What watch.json says of an engine: nothing there yet, loading, serving, gone again."""

import json
import os
import signal
import socketserver
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from engine import prometheus, watch

METRICS = """# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0",model_name="a } b"} 30.0
vllm:prompt_tokens_total{engine="1",model_name="a } b"} 12.0
vllm:prompt_tokens_by_source_total{engine="0",source="x"} 999.0
vllm:prompt_tokens_created{engine="0"} 1.7e+09
vllm:generation_tokens_total{engine="0"} 7.0
vllm:num_requests_running{engine="0"} 2.0
vllm:num_requests_waiting{engine="0"} 3.0
"""
LOADING = "INFO [x.py:1] Loading safetensors checkpoint shards:  40% Completed | 12/30 [00:01<00:02, 9.9it/s]\r"


class Engine(socketserver.ThreadingUnixStreamServer):
    """Answers as vLLM does, behind a key."""

    daemon_threads = True
    well, key, metrics = True, "", METRICS


class _Answers(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        allowed = not self.path.startswith("/v1") or self.headers["Authorization"] == f"Bearer {self.server.key}"
        bodies = {"/health": "", "/v1/models": json.dumps({"data": [{"id": "demo"}]}), "/metrics": self.server.metrics}
        self.send_response(200 if self.server.well and (allowed or not self.server.key) else 503)
        self.end_headers()
        self.wfile.write(bodies[self.path].encode())

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine on the socket `s` in the test's folder."""
    with Engine(str(tmp_path / "s"), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def look(folder: Path, **more: Any) -> dict[str, Any]:
    return watch.Watch(folder / "log", str(folder / "s"), **more).look()


def test_nothing_there_yet_is_an_engine_that_starts(tmp_path: Path) -> None:
    seen = look(tmp_path)
    assert seen["phase"] == {"name": "starting vLLM", "fraction": None, "detail": ""}
    assert not seen["ready"]
    assert seen["models"] == []
    assert seen["generation_tokens_per_s"] == 0.0


def test_the_phase_follows_a_log_that_grows(tmp_path: Path) -> None:
    watching = watch.Watch(tmp_path / "log", str(tmp_path / "s"))
    with (tmp_path / "log").open("w") as log:
        print(LOADING, end="", file=log, flush=True)
        assert watching.look()["phase"] == {"name": "loading weights", "fraction": 0.4, "detail": "12/30 files"}
        print("INFO torch.compile took 3 s", end="", file=log, flush=True)
        assert watching.look()["phase"]["name"] == "loading weights"
        print(" in total", file=log, flush=True)
        assert watching.look()["phase"]["name"] == "warming up"


def test_a_line_without_end_is_neither_kept_whole_nor_in_the_way(tmp_path: Path) -> None:
    watching = watch.Watch(tmp_path / "log", str(tmp_path / "s"))
    with (tmp_path / "log").open("wb") as log:
        for _ in range(3):
            log.write(b"\xff" * (3 << 20))
            log.flush()
            watching.look()
        assert len(watching._log._rest) <= 1 << 16
        log.write(b"\n" + LOADING.encode())
        log.flush()
        assert watching.look()["phase"]["name"] == "loading weights"


def test_an_engine_that_serves_is_ready_and_counted(tmp_path: Path, engine: Engine) -> None:
    seen = look(tmp_path)
    assert seen["ready"]
    assert seen["phase"]["name"] == "ready"
    assert seen["models"] == ["demo"]
    assert (seen["prompt_tokens"], seen["generation_tokens"]) == (42, 7)
    assert (seen["requests_running"], seen["requests_waiting"]) == (2, 3)
    assert abs(seen["at"] - time.time()) < 60


@pytest.mark.parametrize("metrics", ["", "vllm:other 1\n", "\x00\xff{", "vllm:prompt_tokens_total NaN\n"])
def test_metrics_that_are_missing_or_strange_are_nought(tmp_path: Path, engine: Engine, metrics: str) -> None:
    engine.metrics = metrics
    seen = look(tmp_path)
    assert seen["ready"]
    assert seen["prompt_tokens"] == 0


@pytest.mark.parametrize(
    "line", ["vllm_generation_tokens 5", "vllm:generation_tokens 5.0 1790000000", "generation_tokens_total 5"]
)
def test_other_spellings_of_a_metric_are_understood(line: str) -> None:
    assert prometheus.counts(line) == {"generation_tokens": 5}


def test_an_engine_that_is_not_well_is_not_ready(tmp_path: Path, engine: Engine) -> None:
    watching = watch.Watch(tmp_path / "log", str(tmp_path / "s"))
    watching.look()
    engine.well = False
    seen = watching.look()
    assert not seen["ready"]
    assert seen["models"] == []
    assert seen["requests_running"] == 0
    assert seen["prompt_tokens"] == 42


def test_the_key_opens_the_engine(tmp_path: Path, engine: Engine) -> None:
    engine.key = "sesame"
    assert not look(tmp_path)["ready"]
    assert not look(tmp_path, key_file=tmp_path / "missing")["ready"]
    (tmp_path / "key").write_text("sesame\n", encoding="utf-8")
    assert look(tmp_path, key_file=tmp_path / "key")["ready"]


def test_tokens_per_second_are_those_of_the_last_seconds_and_survive_a_new_engine() -> None:
    usage = prometheus.Usage()
    assert usage.update({"generation_tokens": 100}, 0.0)["generation_tokens_per_s"] == 0.0
    assert usage.update({"generation_tokens": 120}, 2.0)["generation_tokens_per_s"] == 10.0
    again = usage.update({"generation_tokens": 10}, 4.0)
    assert again["generation_tokens"] == 130
    assert again["generation_tokens_per_s"] == 7.5
    for second in range(6, 18, 2):
        last = usage.update({}, float(second))
    assert last["generation_tokens"] == 130
    assert last["generation_tokens_per_s"] == 0.0


def start(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", "engine.watch", "--log", "log", "--socket", "s", "--out", "out"]
    environ = {**os.environ, "PYTHONPATH": str(Path(watch.__file__).parents[1])}
    return subprocess.Popen([*command, "--interval", "0.05", *words], cwd=folder, env=environ, stderr=subprocess.PIPE)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_file_is_replaced_whole_for_its_owner_alone_until_sigterm(tmp_path: Path, engine: Engine) -> None:
    engine.key = "sesame"
    (tmp_path / "key").write_text("sesame", encoding="utf-8")
    with start(tmp_path, "--key-file", "key") as process:
        until(lambda: (tmp_path / "out").exists())
        first = (tmp_path / "out").stat().st_ino
        until(lambda: (tmp_path / "out").stat().st_ino != first)
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600
        text = (tmp_path / "out").read_text(encoding="utf-8")
        assert json.loads(text)["ready"]
        assert b"sesame" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said == b""
    assert "sesame" not in text


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with start(tmp_path) as process:
        until(lambda: (tmp_path / ".out.new").exists())
        written = (tmp_path / ".out.new").stat().st_mtime_ns
        until(lambda: (tmp_path / ".out.new").stat().st_mtime_ns != written)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert said.decode().count("cannot be written") == 1


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    words = " ".join(["-P -m engine.watch --log log --socket s --out out --interval 0.05"])
    shell = f"{sys.executable} {words} & echo $!; read -r _"
    environ = {**os.environ, "PYTHONPATH": str(Path(watch.__file__).parents[1])}
    with subprocess.Popen(
        ["sh", "-c", shell], cwd=tmp_path, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(lambda: (tmp_path / "out").exists())
        parent.kill()
    until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_the_tokens_of_a_job_that_was_requeued_are_counted_on(tmp_path: Path) -> None:
    out = tmp_path / "watch.json"
    watch.write(out, {"prompt_tokens": 100, "generation_tokens": 50})
    again = prometheus.Usage(watch.read(out))
    assert again.update({}, 0.0)["generation_tokens"] == 50
    load = again.update({"prompt_tokens": 1, "generation_tokens": 2}, 2.0)
    assert (load["prompt_tokens"], load["generation_tokens"]) == (101, 52)


@pytest.mark.parametrize("before", ["", "[]", "{", '{"generation_tokens": "many"}'])
def test_a_file_from_before_that_says_nothing_counts_as_nought(tmp_path: Path, before: str) -> None:
    (tmp_path / "out").write_text(before)
    assert prometheus.Usage(watch.read(tmp_path / "out")).update({}, 0.0)["generation_tokens"] == 0
