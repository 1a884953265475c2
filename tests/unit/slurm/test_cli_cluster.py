"""The login node: programs and files, on this machine and through SSH. `ssh` is a script that runs the rest here."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from berth.errors import BerthError, Exit
from berth.slurm.cluster import Cluster

# What ssh does at the other end: one string, for the shell there.
SSH = """#!/bin/sh
for word; do [ "$word" = -G ] && exit 0; done
while [ "$1" != -- ]; do shift; done
shift
echo "$*" >>"$SSH_LOG"
exec sh -c "$*"
"""


@pytest.fixture(params=["here", "ssh"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Both kinds must do the same."""
    return Cluster() if request.param == "here" else remote(tmp_path, monkeypatch)


def remote(place: Path, monkeypatch: pytest.MonkeyPatch, script: str = SSH) -> Cluster:
    programs = place / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(script)
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SSH_LOG", str(place / "ssh.log"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    return Cluster("me@login")


def test_arguments_arrive_literally(cluster: Cluster) -> None:
    words = ["a b", "$HOME", "it's", '{"a": [1]}', "ü", "*", ""]
    assert cluster.run(["printf", "%s|", *words]).stdout == "".join(f"{word}|" for word in words)


def test_a_file_is_replaced_for_its_owner_alone_and_read_back(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b c" / "file"
    cluster.write(str(path), b"\x00\xff\n")
    cluster.write(str(path), b"twice\n", 0o640)
    assert cluster.read(str(path)) == b"twice\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert cluster.listdir(str(path.parent)) == ["file"]


def test_a_directory_is_written_at_once_with_each_files_mode(cluster: Cluster, tmp_path: Path) -> None:
    place = tmp_path / "deployment"
    cluster.write_all(str(place), {"job/run.sh": (b"#!/bin/sh\n", 0o700), "key": (b"k", 0o600)})
    assert stat.S_IMODE((place / "job" / "run.sh").stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "key").stat().st_mode) == 0o600
    assert (place / "key").read_bytes() == b"k"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_what_is_not_there_is_none_or_empty(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster.read(str(tmp_path / "none")) is None
    assert cluster.listdir(str(tmp_path / "none")) == []
    assert cluster.read_each(str(tmp_path / "none"), "*") == {}
    cluster.remove(str(tmp_path / "none"))


def test_files_that_match_are_read_in_one_go(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("1/endpoint.json", "2_0/endpoint.json", "2_0/other"):
        file = tmp_path / "runs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}\nmore")
    found = cluster.read_each(str(tmp_path / "runs"), "*/endpoint.json")
    assert found == {name: f"{name}\nmore".encode() for name in ("1/endpoint.json", "2_0/endpoint.json")}


def test_a_log_is_followed_as_it_grows(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\ntwo\n")
    lines: Iterator[str] = cluster.follow(str(log), 1)
    assert next(lines) == "two"
    with open(log, "a") as file:
        file.write("three\n")
    assert next(lines) == "three"
    lines.close()  # type: ignore[attr-defined]


def test_a_program_that_fails_or_is_missing_is_one_sentence(cluster: Cluster) -> None:
    with pytest.raises(BerthError, match="sh failed: no such thing") as caught:
        cluster.run(["sh", "-c", "echo no such thing >&2; exit 3"])
    assert caught.value.exit_code == Exit.FAILED
    with pytest.raises(BerthError, match="no nosbatch on") as caught:
        cluster.run(["nosbatch"])
    assert caught.value.exit_code == Exit.MISSING_PREREQUISITE
    with pytest.raises(BerthError, match="no nosqueue on"):
        cluster.run(["env", "TZ=UTC0", "nosqueue"])
    assert not cluster.has("nosbatch")
    assert cluster.has("sh")


def test_secrets_of_the_shell_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch gives a job the whole environment, and Slurm keeps it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("VLLM_API_KEY", "key")
    said = Cluster().run(["env"]).stdout
    assert "HF_TOKEN" not in said
    assert "VLLM_API_KEY" not in said


def test_a_login_node_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = remote(tmp_path, monkeypatch, "#!/bin/sh\necho 'ssh: connect to host login: No route' >&2; exit 255\n")
    with pytest.raises(BerthError, match="me@login cannot be reached: ssh: connect to host login: No route") as caught:
        cluster.run(["true"])
    assert caught.value.exit_code == Exit.MISSING_PREREQUISITE


def test_one_connection_serves_all_verbs_unless_the_users_own_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = remote(tmp_path, monkeypatch).ssh_options()
    assert "BatchMode=yes" in options
    assert f"ControlPath={tmp_path}/berth-{os.getuid()}/%C" in options
    (tmp_path / "bin" / "ssh").write_text("#!/bin/sh\necho controlpath /tmp/mine\n")
    assert not [word for word in Cluster("me@login").ssh_options() if word.startswith("Control")]


def test_a_file_that_cannot_be_written_is_one_sentence(cluster: Cluster) -> None:
    with pytest.raises(BerthError):
        cluster.write("/proc/nowhere/file", b"")
