"""The service in front of real vLLM with the demo model, against that vLLM by itself, measured by `vllm bench serve`.

Both ways are taken at the same time, so that they share each step of the engine: one after the other, the machine's own
changes are larger than what is looked for. The engine has one core; the service and the loads share the next one, where
there is no third.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from containers import fail, note
from door_contestants import KEY, free_port, run
from door_machine import ROOT, cores, start

ENGINE = ROOT / ".berth" / "engine-cpu" / "bin"
MODEL = ROOT / "models" / "demo"
PATIENCE_S = 600.0
# Streams of 64 tokens, each as long as it was asked to be, so that both ways do the same work.
WORKLOAD = "--dataset-name random --random-input-len 128 --random-output-len 64 --ignore-eos"
# Four at once each say how much passes. What the first token takes is told by requests that come now and then: where
# all come at once, it is their place in the queue that is measured.
FULL, PACED = "--max-concurrency 4", "--request-rate 1 --max-concurrency 4"
FIGURES = {
    "output_throughput": "tokens a second",
    "median_itl_ms": "next token p50",
    "median_ttft_ms": "first token p50",
}
BOUND = 0.02


def real(rounds: int, prompts: int, as_json: bool) -> int:
    """Print both sides' medians and ratios; 1 when one is more than 2 % worse through the service."""
    if not (ENGINE / "python").exists():
        fail("there is no vLLM for this machine's CPU", "scripts/test contract installs it", 3)
    core = cores()
    third = sorted(os.sched_getaffinity(0))[2:3]
    taken: dict[str, list[dict[str, Any]]] = {"direct": [], "ours": []}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="berth-door-")))
        port = free_port()
        log = stack.enter_context((place / "engine.log").open("wb"))
        settings = {
            "LLM_DEVICE": "cpu",
            "LLM_VLLM_MODEL_NAME": "demo",
            "LLM_VLLM_PORT": str(port),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_PREFIX_CACHING": "false",  # both ways read the same prompts
            "PATH": f"{ENGINE}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
        }
        engine = start([ENGINE / "python", "-P", "-m", "engine.serve"], core.ends, log, env={**os.environ, **settings})
        stack.callback(engine.end)
        note("starting vLLM, up to some minutes")
        _wait(port, engine.process, place / "engine.log")
        ours = run("ours", port, core.relay, place)
        assert ours.watched is not None
        stack.callback(ours.watched.end)
        ports = {"direct": port, "ours": ours.port}
        spot = third[0] if third else core.relay
        for turn in range(-1, rounds):  # the first one warms up
            full = _both(ports, FULL, prompts if turn >= 0 else 16, turn + 1, spot, place)
            if turn < 0:
                continue
            paced = _both(ports, PACED, max(10, prompts // 2), turn + 1, spot, place)
            for name in ports:
                found = {**full[name], "median_ttft_ms": paced[name]["median_ttft_ms"]}
                taken[name].append(found)
                note(f"{name}: {', '.join(f'{found[key]:.4g} {word}' for key, word in FIGURES.items())}")
    return _report(taken, as_json)


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            opener.open(f"http://127.0.0.1:{port}/health", timeout=5)
            return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                fail(f"vLLM did not start: {log.read_text(errors='replace').strip()[-300:]}", "start it by hand")
            time.sleep(0.5)


def _both(
    ports: dict[str, int], pace: str, prompts: int, turn: int, core: int, place: Path
) -> dict[str, dict[str, Any]]:
    """One run each way, begun together."""
    with ThreadPoolExecutor(len(ports)) as pool:
        runs = {
            name: pool.submit(_bench, port, pace, prompts, turn * len(ports) + at, core, place / f"{name}.json")
            for at, (name, port) in enumerate(ports.items())
        }
        return {name: run.result() for name, run in runs.items()}


def _bench(port: int, pace: str, prompts: int, seed: int, core: int, out: Path) -> dict[str, Any]:
    words = f"--backend openai-chat --endpoint /v1/chat/completions --base-url http://127.0.0.1:{port}"
    words += f" --model demo --tokenizer {MODEL} --num-prompts {prompts} --seed {seed} {WORKLOAD} {pace}"
    words += f" --disable-tqdm --save-result --result-dir {out.parent} --result-filename {out.name}"
    environ = {**os.environ, "OPENAI_API_KEY": KEY, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        # `vllm bench serve`, without the half minute in which the program makes itself ready.
        [ENGINE / "python", "-P", "-m", "engine.bench_vllm", "serve", out.parent, *words.split()],
        env=environ,
        text=True,
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        fail(f"vllm bench serve failed: {(done.stderr or done.stdout).strip()[-300:]}", "run it by hand")
    result: dict[str, Any] = json.loads(out.read_text())
    if result["failed"] or result["completed"] != prompts:
        fail(f"{result['failed']} of {prompts} requests failed", "read the service's log")
    return result


def _report(taken: dict[str, list[dict[str, Any]]], as_json: bool) -> int:
    medians = {
        name: {key: statistics.median(one[key] for one in all_) for key in FIGURES} for name, all_ in taken.items()
    }
    ratios = {
        key: statistics.median(
            ours[key] / direct[key] for ours, direct in zip(taken["ours"], taken["direct"], strict=True)
        )
        for key in FIGURES
    }
    kept = ratios["output_throughput"] >= 1 - BOUND and ratios["median_ttft_ms"] <= 1 + BOUND
    if as_json:
        print(json.dumps({"benchmark": "door --real", "medians": medians, "ratios": ratios, "kept": kept}))
        return 0 if kept else 1
    print(f"{'':20}{'direct':>10}{'ours':>10}{'ratio':>8}")
    for key, word in FIGURES.items():
        print(f"{word:20}{medians['direct'][key]:10.4g}{medians['ours'][key]:10.4g}{ratios[key]:8.3f}")
    print(f"{'kept' if kept else 'MISSED'}: throughput and first token within {BOUND:.0%} of direct")
    return 0 if kept else 1
