"""The site file: where it is looked for, what it says, and what is wrong with it."""

from pathlib import Path

import pytest

from berth.errors import BerthError, Exit
from berth.slurm import site


def written(place: Path, text: str) -> Path:
    file = place / "site.env"
    file.write_text(text)
    return file


def test_values_are_literal_and_know_their_line(tmp_path: Path) -> None:
    file = written(tmp_path, "# a comment\nSITE_GRES=--gres=gpu:a100:{n}\nSITE_SBATCH=--exclusive --mail-type=NONE\n")
    read = site.load(file, {})
    assert (read.gres, read.sbatch, read.account) == ("--gres=gpu:a100:{n}", "--exclusive --mail-type=NONE", "")
    assert read.where("gres") == f"{file}:2: "
    assert read.where("account") == ""


def test_an_empty_value_is_unset(tmp_path: Path) -> None:
    assert site.load(written(tmp_path, "SITE_QOS=\n"), {}).lines == {}


def test_the_file_given_beats_the_variable(tmp_path: Path) -> None:
    other = tmp_path / "other.env"
    other.write_text("SITE_ACCOUNT=variable\n")
    shell = {"BERTH_SITE": str(other)}
    assert site.load(None, shell).account == "variable"
    assert site.load(written(tmp_path, "SITE_ACCOUNT=given\n"), shell).account == "given"


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("SITE_PARTITON=x\n", "{}:1: SITE_PARTITON: no such name in a site file", "did you mean SITE_PARTITION?"),
        ("VLLM_TP_SIZE=2\n", "{}:1: VLLM_TP_SIZE: no such name in a site file", "apptainer/site.env.example"),
        ("SITE_TRANSPORT=pigeon\n", "{}:1: SITE_TRANSPORT=pigeon: no such way to a node", "direct, jump, job"),
        ("SITE_MEM\n", "{}:1: SITE_MEM has no value", "SITE_MEM="),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, sentence: str, hint: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(BerthError) as caught:
        site.load(file, {})
    (problem,) = caught.value.problems
    assert problem.sentence == sentence.format(file)
    assert hint in problem.hint
    assert problem.exit_code == Exit.BAD_SETTING


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BerthError, match=r"\$BERTH_SITE .*no such file"):
        site.load(None, {"BERTH_SITE": str(tmp_path / "none.env")})


def test_the_store_is_in_scratch_and_somebody_must_say_where_that_is() -> None:
    assert site.root(site.Site(scratch="/scratch/me/"), "/other") == "/scratch/me/berth"
    assert site.root(site.Site(), "/scratch/you") == "/scratch/you/berth"
    assert site.root(site.Site()).endswith("/.berth/slurm")
    with pytest.raises(BerthError, match="does not say where the shared file system is"):
        site.root(site.Site(login="cluster"))
