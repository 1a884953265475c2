"""What `berth sif` makes of a source and of Apptainer's complaints, without Apptainer: tests/slurm/ has the rest."""

import sys
from pathlib import Path

import pytest

from berth import sif, sources
from berth.errors import BerthError, Exit
from berth.host import apptainer
from berth.sources import Source

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("complaint", "said", "code"),
    [
        ("FATAL: While making image: write /scratch/x: no space left on device", "no space left", Exit.FAILED),
        ("FATAL: mkdir /home/a/x: disk quota exceeded", "quota", Exit.FAILED),
        (
            "FATAL: /etc/subuid mapping found but no user namespace available for fakeroot",
            "no user namespaces",
            Exit.MISSING_PREREQUISITE,
        ),
        (
            "FATAL: permission denied while trying to connect to unix:///var/run/docker.sock",
            "does not let you in",
            Exit.MISSING_PREREQUISITE,
        ),
        ("FATAL: initializing source docker://x: reading manifest: unauthorized", "registry", Exit.FAILED),
    ],
)
def test_a_known_complaint_of_apptainers_is_said_with_the_remedy(complaint: str, said: str, code: Exit) -> None:
    error = apptainer.explained(["INFO: Starting build...", complaint], "build")
    assert said in error.problems[0].sentence
    assert error.exit_code == code
    assert error.problems[0].hint


def test_another_complaint_is_passed_on_in_apptainers_last_words() -> None:
    said = ["INFO: Starting build...", "FATAL:   While performing build: something new", "INFO: Cleaning up"]
    assert apptainer.explained(said, "build").problems[0].sentence == (
        "apptainer build failed: While performing build: something new"
    )


def test_an_apptainer_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "apptainer"
    program.write_text(f"#!{sys.executable}\nprint('apptainer version 1.1.9')\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BerthError, match=r"version 1\.1, and 1\.2 or newer"):
        apptainer.find()


def test_an_image_in_a_registry_is_known_by_its_digest() -> None:
    found = sources.find(f"docker://registry.example:5000/vllm@{DIGEST}")
    assert (found.bootstrap, found.place, found.digest) == ("docker", f"registry.example:5000/vllm@{DIGEST}", DIGEST)
    assert str(found) == f"docker://registry.example:5000/vllm@{DIGEST}"


def test_a_path_with_a_blank_stays_one_word_of_the_command() -> None:
    plan = sif.Plan("apptainer", "cpu", Source("docker-archive", "/a/b c.tar", DIGEST), Path("/s/vllm-cpu.sif"), "lz4")
    words = plan.build(Path("/s/new.sif"))
    assert words[-2:] == ["/s/new.sif", str(sif.DEFINITION)]
    assert "--build-arg=from=/a/b c.tar" in words
    assert words[words.index("--mksquashfs-args") + 1] == "-comp lz4"
    (_, build, *_) = plan.commands()
    assert "'--build-arg=from=/a/b c.tar'" in build


def test_only_layers_from_a_registry_are_cached() -> None:
    registry = sif.Plan("apptainer", "cpu", Source("docker", f"r/x@{DIGEST}", DIGEST), Path("/s/vllm-cpu.sif"))
    archive = sif.Plan("apptainer", "cpu", Source("docker-archive", "/x.tar", DIGEST), Path("/s/vllm-cpu.sif"))
    assert "--disable-cache" not in registry.build(Path("/s/new.sif"))
    assert "--disable-cache" in archive.build(Path("/s/new.sif"))
