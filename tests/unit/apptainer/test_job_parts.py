"""Small parts of the job script, each by itself: ports, JSON, reasons, addresses, ranks."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.job_script import bash


def proc(tmp_path: Path, *ports: int) -> dict[str, str]:
    """A /proc/net with these local ports taken, half of them by IPv6."""
    for name, width in (("tcp", 8), ("tcp6", 32)):
        lines = ["  sl  local_address rem_address   st\n"]
        for index, port in enumerate(ports):
            if (index % 2 == 0) == (name == "tcp"):
                lines.append(f"{index:4}: {'0' * width}:{port:04X} {'0' * width}:0000 0A 0 0 0\n")
        (tmp_path / name).write_text("".join(lines))
    return {"PORTS_PROC": str(tmp_path)}


def block(tmp_path: Path, job: int, *taken: int, skip: int = 0) -> int:
    done = bash('port_block "$1" "$2"', str(job), str(skip), parts=["lib/ports"], environ=proc(tmp_path, *taken))
    return int(done.stdout) if done.returncode == 0 else -1


def test_each_job_has_ports_of_its_own_below_those_that_kernels_hand_out(tmp_path: Path) -> None:
    found = [block(tmp_path, job) for job in (0, 1, 12, 1499, 1500, 987654)]
    assert found == [20000, 20008, 20096, 31992, 20000, 20000 + 987654 % 1500 * 8]


def test_a_block_with_any_port_taken_is_passed_over(tmp_path: Path) -> None:
    assert block(tmp_path, 12, 20096) == 20104
    assert block(tmp_path, 12, 20103, 20104) == 20112
    assert block(tmp_path, 1499, 31999) == 20000
    assert block(tmp_path, 12, skip=1) == 20104


def test_no_block_at_all_is_an_error(tmp_path: Path) -> None:
    assert block(tmp_path, 7, *range(20000, 32000, 8)) == -1


relaxed = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@given(texts=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=20))
@relaxed
def test_any_text_becomes_a_json_string(texts: list[str]) -> None:
    texts = ["\\", '\\"', "a\tb\x1b[1m", "é", *texts]
    done = bash('for text; do json_string "$text"; echo; done', *texts, parts=["lib/record"])
    expected = ["".join(" " if ord(c) < 32 or ord(c) == 127 else c for c in text) for text in texts]
    assert [json.loads(line) for line in done.stdout.split("\n")[:-1]] == expected


RECORD = """
SLURM_JOB_ID=7 run=7 started=1 run_dir=$1 deployment=/x/de\\"mo job_nodes=(n1 n2) model='a "b"' device=cpu
door_host=10.0.0.1 door_port=20008 key_file=/k ends=99
record starting; record failed "$(printf 'it "said"\\n\\\\ \\033[1m \\377 caf\\303\\251')"
"""


def test_a_hostile_reason_leaves_the_record_readable(tmp_path: Path) -> None:
    (tmp_path / "watch.json").write_text('{"ready": true}\n')
    done = bash(RECORD, tmp_path, parts=["lib/messages", "lib/record"])
    said = json.loads((tmp_path / "endpoint.json").read_text(encoding="utf-8"))
    assert said["state"] == "failed"
    assert said["reason"] == 'it "said" \\  [1m  café'
    assert said["deployment"] == 'de"mo'
    assert said["base_url"] == "http://10.0.0.1:20008"
    assert said["watch"] == {"ready": True}
    assert said["nodes"] == ["n1", "n2"]
    assert "berth: failed" in done.stderr
    assert [path.name for path in tmp_path.glob("endpoint*")] == ["endpoint.json"]


@pytest.mark.parametrize("torn", ["", "{", '{"ready": tr', "[]", "nonsense"])
def test_a_torn_watch_file_leaves_the_record_readable(tmp_path: Path, torn: str) -> None:
    (tmp_path / "watch.json").write_text(torn)
    bash(RECORD, tmp_path, parts=["lib/messages", "lib/record"])
    assert json.loads((tmp_path / "endpoint.json").read_text(encoding="utf-8"))["watch"] == {}


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("x\nberth: error: it is so\nberth: hint: do that\ny\n", "it is so (do that)"),
        ("ValueError: a\nberth: error: it is so\n", "it is so"),
        (
            "Traceback (most recent call last):\n(EngineCore pid=7) ERROR 11-21 10:00:00 [core.py:1]"
            " torch.OutOfMemoryError: CUDA out of memory. Tried 1 GiB\n"
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n",
            "torch.OutOfMemoryError: CUDA out of memory. Tried 1 GiB",
        ),
        ("\x1b[31mKeyError: 'x'\x1b[0m\n", "KeyError: 'x'"),
        ("a\rOSError: no\n", "OSError: no"),
        ("INFO the word Error: is no exception of Python in lower error: case\n", ""),
        ("all is well\n", ""),
        ("", ""),
    ],
)
def test_the_last_words_of_an_engine(tmp_path: Path, log: str, words: str) -> None:
    (tmp_path / "log").write_text(log)
    assert bash('last_words "$1"', tmp_path / "log", parts=["lib/reason"]).stdout.strip() == words


FAILURE = 'job_nodes=(n1 n2); failure "$1"'


def test_of_several_ranks_the_first_to_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "rank-0.exit").write_text("1795259149.449968021 n1 0 143\n")
    (tmp_path / "rank-1.exit").write_text("1795259149.187437660 n2 1 137\n")
    said = bash(FAILURE, tmp_path, parts=["lib/reason"]).stdout
    assert said.startswith("the engine on n2 (rank 1) was killed by signal 9")
    (tmp_path / "rank-1.exit").write_text("1795259149.187437660 n2 1 1\n")
    (tmp_path / "engine-1.log").write_text("ValueError: no\n")
    assert bash(FAILURE, tmp_path, parts=["lib/reason"]).stdout == "ValueError: no (n2, rank 1)\n"


def test_a_step_without_a_word_is_told_by_slurms(tmp_path: Path) -> None:
    (tmp_path / "step.log").write_text("srun: error: n2: task 1: Killed\nsrun: Terminating StepId=7.0\n")
    said = bash(FAILURE, tmp_path, parts=["lib/reason"]).stdout
    assert said == "the job step was ended from outside (Slurm: n2: task 1: Killed)\n"


@pytest.mark.parametrize(
    ("lines", "nodes", "interface"),
    [
        ("0 ib0 10.1.0.1\n0 eth0 10.0.0.1\n1 eth0 10.0.0.2\n1 ib0 10.1.0.2\n", 2, "ib0"),
        ("0 ib0 10.1.0.1\n0 eth0 10.0.0.1\n1 eth0 10.0.0.2\n", 2, "eth0"),
        ("0 eth0 10.0.0.1\n1 eno1 10.0.0.2\n", 2, ""),
        ("0 eth0 10.0.0.1\n0 eth0 10.0.0.9\n1 eth1 10.0.0.2\n", 2, ""),
        ("0 eth0 10.0.0.1\n", 2, ""),
        ("", 2, ""),
    ],
)
def test_the_nodes_speak_over_an_interface_that_all_have(lines: str, nodes: int, interface: str) -> None:
    done = bash('common_interface "$2" <<<"$1"', lines, str(nodes), parts=["lib/addresses"])
    assert done.stdout.strip() == interface
    assert (done.returncode == 0) == bool(interface)


@pytest.mark.parametrize(
    ("given", "nodes", "ranks"),
    [
        ({}, 1, "1"),
        ({"VLLM_TP_SIZE": "8", "VLLM_PP_SIZE": "2"}, 2, "8"),
        ({"VLLM_TP_SIZE": "4", "VLLM_PP_SIZE": "4"}, 4, "4"),
        ({"VLLM_TENSOR_PARALLEL_SIZE": "2"}, 2, "1"),
        ({"VLLM_TP_SIZE": "2", "VLLM_DATA_PARALLEL_SIZE": "2"}, 1, "4"),
        ({"VLLM_TP_SIZE": "8"}, 3, "3 nodes for 8 ranks"),
        ({"VLLM_TP_SIZE": "x"}, 1, "1"),
        ({"LLM_VLLM_EXTRA_ARGS": "--tensor-parallel-size 8", "BERTH_GPUS_PER_NODE": "4"}, 2, "4"),
    ],
)
def test_ranks_are_spread_over_the_nodes(given: dict[str, str], nodes: int, ranks: str) -> None:
    said = "declare -A settings=(" + " ".join(f"[{name}]='{value}'" for name, value in given.items()) + ")\n"
    done = bash(f"{said}ranks_per_node {nodes}", parts=["lib/messages", "lib/parallel"])
    assert ranks in (done.stdout + done.stderr)
    assert done.returncode == (64 if "nodes" in ranks else 0)
