"""The small parts of the job script, each by itself: ports, JSON, reasons, addresses, ranks, models."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berth import deployment
from tests.support.job_script import APPTAINER, bash

relaxed = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


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


SETTINGS = """
job_dir=$1 deployment=$2 checkout=/elsewhere env_files=("${@:3}")
read_settings
for name in "${!settings[@]}"; do printf '%s=%s\\n' "$name" "${settings[$name]}"; done
"""


def read_settings(tmp_path: Path, *files: Path, **environ: str) -> dict[str, str]:
    parts = ["lib/messages", "lib/envfile", "lib/settings"]
    done = bash(SETTINGS, APPTAINER, tmp_path, *files, parts=parts, environ=environ)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_later_files_win_and_the_shell_wins_for_names_that_they_set(tmp_path: Path) -> None:
    one, two = tmp_path / "one.env", tmp_path / "two.env"
    one.write_text("LLM_DEVICE=cpu\nLLM_VLLM_MODEL_NAME=demo\nA=1\nB=1\nC=1\n")
    # Names that the script itself uses are no different from others.
    two.write_text("B=2\nC=2\njob_dir=x\nname=y\nfile=z\n_env_into=v\n")
    found = read_settings(tmp_path, one, two, C="3", D="3")
    usual = {"LLM_DEVICE": "cpu", "LLM_VLLM_MODEL_NAME": "demo"}
    assert found == {**usual, "A": "1", "B": "2", "C": "3", "job_dir": "x", "name": "y", "file": "z", "_env_into": "v"}


def test_what_berth_merged_is_literal_and_the_shell_has_had_its_say(tmp_path: Path) -> None:
    merged = tmp_path / "job.env"
    merged.write_text("LLM_DEVICE=cpu\nLLM_VLLM_MODEL_NAME=demo\nA='$x' # y\nB=1\n")
    found = read_settings(tmp_path, merged, B="3")
    assert found == {"LLM_DEVICE": "cpu", "LLM_VLLM_MODEL_NAME": "demo", "A": "'$x' # y", "B": "1"}


@given(models=st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=70), max_size=30))
@relaxed
def test_a_deployment_is_named_as_berth_up_names_it(models: list[str]) -> None:
    models = ["meta-llama/Llama-3.1-8B", "/models/My Model/", "a--b", "..", *models]
    parts = ["lib/messages", "lib/envfile", "lib/settings"]
    done = bash('for model; do deployment_name "$model"; done', *models, parts=parts)
    assert done.stdout.splitlines() == [deployment.slug(model) for model in models]


def make_model(store: Path, *files: str, index: tuple[str, ...] = ()) -> Path:
    folder = store / "hub/models--org--small/snapshots/abc"
    folder.mkdir(parents=True)
    (store / "hub/models--org--small/refs").mkdir()
    (store / "hub/models--org--small/refs/main").write_text("abc")
    for file in files:
        (folder / file).write_text("x")
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(index, index[0])}))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {str(n): n for n in index}}))
    return folder


def complete(store: Path, model: str = "org/small") -> bool:
    script = f"declare -A settings=([LLM_VLLM_MODEL_NAME]='{model}'); models_dir={store}; model_is_complete"
    return bash(script, parts=["lib/models"]).returncode == 0


def test_a_model_that_is_all_there_needs_no_hub(tmp_path: Path) -> None:
    assert complete(tmp_path, "demo")
    assert complete(tmp_path, str(tmp_path))
    assert not complete(tmp_path)
    make_model(tmp_path, "config.json", "model.safetensors")
    assert complete(tmp_path)
    assert not complete(tmp_path, "org/other")


@pytest.mark.parametrize("lack", ["config", "weights", "shard", "incomplete", "dangling"])
def test_a_model_that_lacks_a_file_needs_the_hub(tmp_path: Path, lack: str) -> None:
    files = ["config.json", "a-1.safetensors", "a-2.safetensors"]
    shards = ("a-1.safetensors", "a-2.safetensors")
    if lack == "config":
        files.pop(0)
    if lack == "weights":
        files[1:], shards = [], ()
    if lack == "shard":
        files.pop()
    folder = make_model(tmp_path, *files, index=shards)
    if lack == "incomplete":
        (tmp_path / "hub/models--org--small/blobs").mkdir()
        (tmp_path / "hub/models--org--small/blobs/1.incomplete").touch()
    if lack == "dangling":
        (folder / "tokenizer.json").symlink_to("../../blobs/none")
    assert not complete(tmp_path)


def test_a_snapshot_of_the_hub_is_shown_with_the_files_that_it_links_to(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "config.json")
    script = f"declare -A settings=([LLM_VLLM_MODEL_NAME]='{folder}' [VLLM_TOKENIZER]=/no/such); model_paths"
    assert bash(script, parts=["lib/models"]).stdout == f"{tmp_path}/hub/models--org--small\n"


def test_a_squashfs_image_of_a_model_is_mounted_under_its_own_name(tmp_path: Path) -> None:
    image, tar = tmp_path / "model.squashfs", tmp_path / "model.tar"
    image.touch()
    tar.touch()
    script = (
        f"declare -A settings=([LLM_VLLM_MODEL_NAME]='{image}' [VLLM_TOKENIZER]='{tar}') site=();"
        f"models_dir={tmp_path} cache_dir={tmp_path} run_dir={tmp_path}; container_shared_binds"
    )
    lines = bash(script, parts=["lib/messages", "lib/models", "lib/container"]).stdout.splitlines()
    assert f"{image}:{image}:image-src=/" in lines
    assert f"{tar}:{tar}:ro" in lines


def test_a_name_that_no_site_file_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site.env").write_text("SITE_SCRATCH=/x\nSITE_PARTITON=gpu\n")
    done = bash('read_site "$1"', tmp_path / "site.env", parts=["lib/messages", "lib/envfile", "lib/site"])
    assert done.returncode == 64
    assert "SITE_PARTITON: no such name in a site file" in done.stderr


def test_the_job_script_says_how_it_is_called(tmp_path: Path) -> None:
    script = APPTAINER / "serve.sbatch"
    for words in ((), ("--no-such-option", "x.env")):
        done = subprocess.run(["bash", script, *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 64
        assert "sbatch [sbatch options] apptainer/serve.sbatch [options] ENVFILE" in done.stdout
        assert "set -uo pipefail" not in done.stdout
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(["bash", script, "x.env"], capture_output=True, text=True, cwd=tmp_path, env=outside)
    assert done.returncode == 64
    assert "this is a job script" in done.stderr


def test_only_what_is_right_everywhere_stands_in_the_header() -> None:
    lines = (APPTAINER / "serve.sbatch").read_text(encoding="utf-8").splitlines()
    options = {line.split("=")[0].removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH ")}
    assert options == {"job-name", "ntasks-per-node", "signal", "requeue", "open-mode", "output"}


def test_the_site_files_that_come_along_are_read() -> None:
    for file in (APPTAINER / "site.env.example", *APPTAINER.glob("sites/*.env")):
        done = bash('read_site "$1"', file, parts=["lib/messages", "lib/envfile", "lib/site"])
        assert done.returncode == 0, done.stderr
