"""apptainer/devices: which devices a node hands to its container, and what it says when they are too few."""

import re
from pathlib import Path

import pytest

from tests.support.job_script import APPTAINER, bash

PARTS = ("lib/messages", "lib/container")
FOUR = "".join(f"GPU {index}: NVIDIA H100 (UUID: GPU-{index}{index}aa-{index})\\n" for index in range(4))
TWO = "".join(f"GPU {index}: NVIDIA H100 (UUID: GPU-{index}{index}aa-{index})\\n" for index in range(2))
MIG = "GPU 0: NVIDIA H100 (UUID: GPU-00aa-0)\\n  MIG 1g.10gb Device 0: (UUID: MIG-b1)\\n"
MIGS = MIG + "  MIG 1g.10gb Device 1: (UUID: MIG-b2)\\n"


def prepare(device: str, ranks: int, tools: Path, **environ: str) -> tuple[int, dict[str, str], str]:
    """Exit code, the variables for the container (and ARGS), and what it said."""
    show = 'printf "ARGS=%s\\n" "${device_args[*]}"; env | sed -n "s/^APPTAINERENV_//p"'
    done = bash(
        f"setting_prefix=APPTAINERENV_; apptainer=apptainer\ndevice_prepare {ranks}; {show}",
        parts=(*PARTS, f"devices/{device}"),
        environ={"PATH": f"{tools}:/usr/bin:/bin", **environ},
    )
    return done.returncode, dict(line.split("=", 1) for line in done.stdout.splitlines()), done.stderr


def driver(tmp_path: Path, listed: str) -> Path:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    tool.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("file", sorted(APPTAINER.glob("devices/*.sh")), ids=lambda file: file.stem)
def test_every_device_offers_the_same(file: Path, tmp_path: Path) -> None:
    done = bash("declare -F device_prepare", parts=(*PARTS, f"devices/{file.stem}"))
    assert done.returncode == 0, done.stderr


def test_a_cpu_needs_nothing(tmp_path: Path) -> None:
    assert prepare("cpu", 2, tmp_path) == (0, {"ARGS": ""}, "")


@pytest.mark.parametrize(
    ("given", "listed", "ranks", "seen"),
    [
        ("0,1", TWO, 2, "0,1"),
        ("2,3", FOUR, 2, "2,3"),
        ("GPU-00aa-0,GPU-11aa-1", TWO, 2, "0,1"),
        ("GPU-33aa-3,GPU-22aa-2", FOUR, 2, "3,2"),  # nothing hides the others: their own numbers
        ("GPU-33", FOUR, 1, "3"),
        ("MIG-b1", MIG, 1, "0"),
        ("MIG-b2", MIGS, 1, "MIG-b2"),  # the other part can be seen too, so a number would be a guess
        ("GPU-unknown", FOUR, 1, "GPU-unknown"),
    ],
)
def test_gpus_get_the_numbers_that_vllm_wants(tmp_path: Path, given: str, listed: str, ranks: int, seen: str) -> None:
    code, found, said = prepare("cuda", ranks, driver(tmp_path, listed), CUDA_VISIBLE_DEVICES=given)
    assert code == 0, said
    assert found["ARGS"] == "--nv"
    assert found["CUDA_VISIBLE_DEVICES"] == seen


def test_without_a_word_from_slurm_the_driver_counts(tmp_path: Path) -> None:
    code, found, said = prepare("cuda", 4, driver(tmp_path, FOUR))
    assert code == 0, said
    assert "CUDA_VISIBLE_DEVICES" not in found


def test_too_few_gpus_are_refused_before_anything_loads(tmp_path: Path) -> None:
    code, _, said = prepare("cuda", 4, driver(tmp_path, TWO), CUDA_VISIBLE_DEVICES="0,1")
    assert code == 3
    assert "shows 2 GPUs, and VLLM_TP_SIZE x VLLM_PP_SIZE needs 4 on each node" in said
    assert "SITE_GRES" in said
    assert prepare("cuda", 1, tmp_path / "none")[0] == 3


def test_more_gpus_than_ranks_are_told(tmp_path: Path) -> None:
    code, _, said = prepare("cuda", 1, driver(tmp_path, TWO), CUDA_VISIBLE_DEVICES="0,1")
    assert code == 0
    assert "shows 2 GPUs; 1 of them are used" in said


def test_gaudi_cards_are_named_to_the_container(tmp_path: Path) -> None:
    code, found, said = prepare("hpu", 2, tmp_path, HABANA_VISIBLE_DEVICES="4,5")
    assert code == 0, said
    assert found == {"ARGS": "", "HABANA_VISIBLE_DEVICES": "4,5", "HABANA_LOGS": "/tmp/habana_logs"}
    assert prepare("hpu", 2, tmp_path, SLURM_STEP_GPUS="6,7")[1]["HABANA_VISIBLE_DEVICES"] == "6,7"


def test_too_few_gaudi_cards_are_refused(tmp_path: Path) -> None:
    code, _, said = prepare("hpu", 8, tmp_path, HABANA_VISIBLE_DEVICES="0,1")
    assert code == 3
    assert "shows 2 Gaudi cards, and VLLM_TP_SIZE needs 8" in said


@pytest.mark.parametrize("knows", [True, False])
def test_a_container_with_a_small_dev_is_told_of_the_cards(tmp_path: Path, knows: bool) -> None:
    tool = tmp_path / "apptainer"
    tool.write_text(f"#!/bin/sh\necho '{'--intel-hpu' if knows else '--nv'}'\n")
    tool.chmod(0o755)
    script = f"apptainer={tool}; device_args=(); device_contained; echo ${{device_args[*]-}}"
    said = bash(script, parts=(*PARTS, "devices/hpu")).stdout.strip()
    # Binds are for what is there, and this machine has no card.
    assert said == ("--intel-hpu" if knows else "")


def test_no_word_of_a_device_stands_outside_its_file() -> None:
    words = re.compile(
        r"--nv\b|\bnvidia|\bcuda\b(?!\.env)|CUDA_|\bhpu\b|habana|gaudi|--intel-hpu|/dev/accel", re.IGNORECASE
    )
    for file in (APPTAINER / "serve.sbatch", *APPTAINER.glob("lib/*.sh")):
        code = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
        assert not [line for line in code if words.search(line)], file
