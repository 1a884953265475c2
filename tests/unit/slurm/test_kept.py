"""A child that is started again whenever it ends."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from berth.slurm import kept as keeping
from berth.slurm.kept import Kept

BOUND_S = 30.0  # for hangs
STAYS = [sys.executable, "-c", "import signal; signal.pause()"]


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_a_killed_child_is_started_again_with_a_fresh_command(tmp_path: Path) -> None:
    asked = []

    def command() -> list[str]:
        asked.append(1)
        return STAYS

    child = Kept(command, tmp_path / "log")
    child.start()
    await until(lambda: child.pid)
    first = child.pid
    assert first
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid not in (None, first))
    assert len(asked) == 2
    assert child.ends == 1
    await child.stop()


async def test_stopping_leaves_nothing_not_even_what_the_child_started(tmp_path: Path) -> None:
    child = Kept(lambda: ["sh", "-c", "sleep 1000 & echo $!; wait"], tmp_path / "log")
    child.start()
    await until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text().strip())
    grandchild = int((tmp_path / "log").read_text())
    pid = child.pid
    assert pid
    await child.stop()
    assert gone(pid)
    await until(lambda: gone(grandchild))


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: object) -> None:
    keeping.GRACE_S, kept_grace = 0.2, keeping.GRACE_S
    try:
        child = Kept(lambda: ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], tmp_path / "log")
        child.start()
        await until(lambda: (tmp_path / "log").exists() and "up" in (tmp_path / "log").read_text())
        pid = child.pid
        assert pid
        await child.stop()
        assert gone(pid)
    finally:
        keeping.GRACE_S = kept_grace


async def test_a_program_that_is_not_there_is_said_in_its_log(tmp_path: Path) -> None:
    child = Kept(lambda: ["/no/such/program"], tmp_path / "log")
    child.start()
    await until(lambda: child.ends)
    assert child.said() == ["/no/such/program: No such file or directory"]
    await child.stop()


async def test_what_it_said_leaves_out_what_is_no_news(tmp_path: Path) -> None:
    child = Kept(lambda: ["sh", "-c", "echo 'Warning: Permanently added x'; echo; echo refused; exec sleep 1000"],
                 tmp_path / "log")  # fmt: skip
    child.start()
    await until(lambda: child.said())
    assert child.said() == ["refused"]
    await child.stop()
