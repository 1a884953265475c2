"""What the container benchmarks share: our CPU image, the naive one, and `docker`. Standard library only."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
OURS = f"{os.environ.get('BERTH_REGISTRY') or 'berth'}/vllm-cpu:{os.environ.get('BERTH_VERSION') or '0.1.0'}"
NAIVE = "berth-benchmark/naive-cpu:latest"


def fail(sentence: str, hint: str, code: int = 1) -> NoReturn:
    """End with one sentence, the remedy, and an exit code: 1 failed, 3 missing prerequisite."""
    print(f"berth: error: {sentence}\nberth: hint: {hint}", file=sys.stderr)
    sys.exit(code)


def note(text: str) -> None:
    """Progress, on stderr, so that stdout holds results only."""
    print(f"berth: {text}", file=sys.stderr, flush=True)


def docker(*arguments: str | Path, quiet: bool = True) -> str:
    """What the docker client prints. Raises CalledProcessError when it fails, SystemExit when there is none."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quiet else None,
        )
    except FileNotFoundError:
        fail("no docker client on PATH", "install Docker Engine, or start a private one: tests/lab/docker-engine up", 3)
    return done.stdout.strip()


def last_words(container: str) -> str:
    """The last line of its log."""
    done = subprocess.run(["docker", "logs", "--tail", "1", container], text=True, capture_output=True)
    return (done.stderr + done.stdout).strip()


def inspect(image: str) -> dict[str, Any] | None:
    """What the engine knows of an image, None when it has none of that name."""
    try:
        details: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    except subprocess.CalledProcessError:
        return None
    return details


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark of images has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--image", default=OURS, help="our image (default: %(default)s)")
    parser.add_argument("--naive", default=NAIVE, help="compare with, built when missing (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def need_images(ours: str, naive: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both images' details; builds the naive one when it is missing, from the same base and the same vLLM as ours."""
    try:
        docker("version")
    except subprocess.CalledProcessError:
        fail("no Docker Engine answers", "start one, or a private one: tests/lab/docker-engine up", 3)
    details = inspect(ours)
    if details is None:
        fail(f"there is no image {ours}", "build it: scripts/berth build cpu", 3)
    if inspect(naive) is None:
        note(f"building {naive}, some minutes")
        _build_naive(naive, details["Config"]["Labels"]["berth.vllm.version"])
    beside = inspect(naive)
    if beside is None:
        fail(f"there is no image {naive} after its build", "read the lines above")
    return details, beside


def _build_naive(tag: str, version: str) -> None:
    command: list[str | Path] = ["build", "-f", HERE / "naive.Dockerfile", "-t", tag]
    command += ["--build-arg", f"VLLM_VERSION={version}"]
    environment = os.environ
    if base := environment.get("BERTH_BASE_IMAGE"):
        command += ["--build-arg", f"BASE_IMAGE={base}"]
    if wheels := environment.get("BERTH_WHEELS"):
        command += ["--build-context", f"wheels={wheels}"]
    if bundle := environment.get("BERTH_CA_BUNDLE"):
        command += ["--secret", f"id=ca,src={bundle}"]
    try:
        docker(*command, HERE, quiet=False)
    except subprocess.CalledProcessError:
        fail(
            "the naive image did not build",
            "behind a proxy set BERTH_CA_BUNDLE, without an image registry BERTH_BASE_IMAGE and BERTH_WHEELS",
        )
