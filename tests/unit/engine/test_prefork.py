"""The fork server hands each process the environment and the CPUs of whoever asked for it. No vLLM needed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import os, signal, sys
from engine import prefork

IMPORTED = os.getpid()  # one import for all: a process that was started anew would have a number of its own

def worker(pipe):
    pipe.send((IMPORTED, os.environ["WHO"], os.getppid(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL))

def engine(pipe):
    os.environ["WHO"] = "worker"
    process = prefork._Context().Process(target=worker, args=(pipe,))
    process.start()
    process.join()
    os.environ["WHO"] = "engine"
    pipe.send((IMPORTED, "engine", os.getppid(), process.exitcode))
    pipe.send(sorted(os.sched_getaffinity(0)))

def main():
    os.environ["WHO"] = "nobody"
    with prefork._listen() as listener:
        address = listener.getsockname()
        prefork._split_off_fork_server(listener)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    context = prefork._Context()
    receive, send = context.Pipe()
    process = context.Process(target=engine, args=(send,))
    process.start()
    print(repr([IMPORTED, [receive.recv() for _ in range(3)], sorted(os.sched_getaffinity(0)), address]))
    process.join()
    print(process.exitcode)

if __name__ == "__main__":
    main()
"""


def test_processes_are_forked_with_their_starters_environment_and_cpus(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, program], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told, exitcode = done.stdout.splitlines()
    imported, (worker, engine, cpus), own_cpus, address = eval(told)
    assert exitcode == "0"
    assert worker[:2] == (imported, "worker")
    assert engine[:2] == (imported, "engine")
    assert worker[2] == engine[2] != imported, "both come from the fork server"
    assert worker[3], "a forked process has the usual answer to SIGTERM"
    assert engine[3] == 0
    assert cpus == own_cpus
    assert not Path(address).exists(), "the fork server leaves no file behind"


def test_a_temporary_folder_with_too_long_a_name_is_no_failure(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    code = "from engine import prefork; print(prefork._listen())"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(deep)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == "None", done.stderr
    assert not list(deep.iterdir())


def test_a_signal_to_the_whole_group_leaves_the_fork_server_to_its_processes() -> None:
    code = (
        "import os, signal\n"
        "from engine import prefork\n"
        "with prefork._listen() as listener:\n"
        "    prefork._split_off_fork_server(listener)\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "os.killpg(0, signal.SIGTERM)\n"
        "process = prefork._Context().Process(target=os.getpid)\n"
        "process.start()\n"
        "process.join()\n"
        "print(process.exitcode)\n"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert done.returncode != -signal.SIGTERM
    assert done.stdout.strip() == "0", done.stderr


def test_a_killed_server_takes_everything_along() -> None:
    code = (
        "import os, signal, time\n"
        "from engine import prefork\n"
        "def work(pipe):\n"
        "    pipe.send([os.getpid(), os.getppid()])\n"
        "    time.sleep(600)\n"
        "with prefork._listen() as listener:\n"
        "    prefork._split_off_fork_server(listener)\n"
        "receive, send = prefork._Context().Pipe()\n"
        "prefork._Context().Process(target=work, args=(send,)).start()\n"
        "print(*receive.recv(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True, timeout=60)
    pids = done.stdout.split()
    assert len(pids) == 2
    wait_until(lambda: not any(Path("/proc", pid).exists() for pid in pids), 30, "both are gone")


def test_a_vllm_that_is_laid_out_otherwise_starts_as_it_always_does(tmp_path: Path) -> None:
    package = tmp_path / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    (package / "main.py").write_text("import sys\ndef main(): print('started', sys.argv)\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "engine.prefork", "vllm", "serve", "tiny"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "started ['vllm', 'serve', 'tiny']\n"
    assert "import it each for themselves" in done.stderr
