"""Failures are told from logs by what programs really say; healthy logs tell of none."""

from pathlib import Path

import pytest

from berth.errors import Exit
from berth.slurm.explain import LOG_END, explain
from berth.slurm.failures import EVERYWHERE
from tests.unit.slurm.failure_messages import MESSAGES

LOGS = Path(__file__).parent / "logs"


@pytest.mark.parametrize(("message", "sentence", "hint"), MESSAGES, ids=[words for _, words, _ in MESSAGES])
def test_a_real_message_is_explained(message: str, sentence: str, hint: str) -> None:
    healthy = (LOGS / "healthy-head.log").read_text(encoding="utf-8").splitlines()
    problem = explain([*healthy, *message.splitlines(), "Process ended."])
    assert problem is not None
    assert sentence in problem.sentence
    assert hint in problem.hint
    assert problem.exit_code != Exit.OK
    assert "{" not in f"{problem.sentence}{problem.hint}"
    assert "  " not in problem.sentence


@pytest.mark.parametrize("log", sorted(LOGS.glob("healthy-*.log")), ids=lambda log: log.stem)
def test_a_healthy_log_explains_nothing(log: Path) -> None:
    assert explain(log.read_text(encoding="utf-8").splitlines()) is None


def test_what_another_nodes_end_did_here_is_told_as_such() -> None:
    problem = explain((LOGS / "other-node-died.log").read_text(encoding="utf-8").splitlines())
    assert problem is not None
    assert problem.sentence == "the engine on another node ended first"


def test_the_cause_counts_and_not_what_it_led_to() -> None:
    died = (LOGS / "other-node-died.log").read_text(encoding="utf-8").splitlines()
    problem = explain([*died, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.", *died])
    assert problem is not None
    assert "memory of a GPU" in problem.sentence


def test_the_launchers_own_words_are_kept() -> None:
    problem = explain(["berth: error: QUANT_CONFIG: x is not there", "berth: hint: calibrate the model first"])
    assert problem is not None
    assert problem.sentence == "QUANT_CONFIG: x is not there"
    assert problem.hint == "calibrate the model first"


def test_nothing_and_noise_explain_nothing() -> None:
    assert explain([]) is None
    assert explain(["", "\x00\xff", "a" * 1_000_000, "out of cheese"]) is None


def test_only_the_end_of_a_log_counts() -> None:
    assert explain(["OSError: [Errno 28] No space left on device", *["fine"] * LOG_END]) is None


def test_outside_slurm_nothing_is_said_of_a_site_file() -> None:
    assert EVERYWHERE
    for known in EVERYWHERE:
        assert "SITE_" not in known.hint
        assert "Slurm" not in f"{known.sentence}{known.hint}"
    assert explain(["OSError: [Errno 28] No space left on device"], EVERYWHERE) is None
    assert explain(["torch.OutOfMemoryError: CUDA out of memory."], EVERYWHERE) is not None
