"""The crux of Compose's face: a flag in any env file reaches vLLM, a typo is refused, the shell beats the files."""

import pytest

from engine import names
from tests.compose.conftest import MakeProject, WriteEnv
from tests.support.compose import ROOT

pytestmark = pytest.mark.docker

DEVICE = (
    "COMPOSE_FILE=compose/base.yaml:compose/settings.yaml:compose/cpu.yaml",
    "LLM_DEVICE=cpu",
    "HF_TOKEN=",
    "VLLM_API_KEY=",
)


def words(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_a_flag_in_any_layer_and_in_a_file_that_names_no_layer_reaches_vllm(
    project: MakeProject, write_env: WriteEnv
) -> None:
    files = [
        write_env("device", *DEVICE, "VLLM_MAX_NUM_SEQS=11", "VLLM_SEED=1"),
        write_env("model", "LLM_VLLM_MODEL_NAME=demo", "VLLM_MAX_MODEL_LEN=222", "VLLM_SEED=2"),
        write_env("local", 'VLLM_HF_OVERRIDES={"a b": [1, "x y"]}', "VLLM_SEED=3"),
        write_env("own", "VLLM_BLOCK_SIZE=32", "NCCL_DEBUG=INFO", "VLLM_SEED=4", names_itself=False),
    ]
    berth = project(*files)
    berth.run("up", "--detach", "engine")
    started = berth.started_with()
    assert words(started["argv"], "--max-num-seqs") == "11"
    assert words(started["argv"], "--max-model-len") == "222"
    assert words(started["argv"], "--hf-overrides") == '{"a b": [1, "x y"]}'
    assert words(started["argv"], "--block-size") == "32"
    assert words(started["argv"], "--seed") == "4"
    assert started["environ"]["NCCL_DEBUG"] == "INFO"


def test_a_variable_that_no_list_has_reaches_vllm_from_a_file_that_names_itself(
    project: MakeProject, write_env: WriteEnv
) -> None:
    local = write_env("local", "SOME_LIBRARY_OPTION=a b  c")
    berth = project("env/cpu.env", "env/models/demo.env", local)
    berth.run("up", "--detach", "engine")
    assert berth.started_with()["environ"]["SOME_LIBRARY_OPTION"] == "a b  c"


def test_the_shell_beats_the_files_and_an_empty_value_unsets(project: MakeProject) -> None:
    shell = {"VLLM_MAX_NUM_SEQS": "7", "VLLM_TP_SIZE": "", "VLLM_LOGGING_LEVEL": "DEBUG"}
    berth = project("env/cpu.env", "env/models/demo.env", shell=shell)
    berth.run("up", "--detach", "engine")
    started = berth.started_with()
    assert words(started["argv"], "--max-num-seqs") == "7"
    assert "--tensor-parallel-size" not in started["argv"]
    assert started["environ"]["VLLM_LOGGING_LEVEL"] == "DEBUG"


def test_quotes_in_a_file_that_users_bring_are_read_as_compose_reads_them(
    project: MakeProject, write_env: WriteEnv
) -> None:
    local = write_env("local", 'VLLM_SERVED_MODEL_NAME="one two"', "VLLM_MAX_NUM_SEQS='9'")
    berth = project("env/cpu.env", "env/models/demo.env", local)
    berth.run("up", "--detach", "engine")
    argv = berth.started_with()["argv"]
    assert words(argv, "--served-model-name") == "one"
    assert words(argv, "--max-num-seqs") == "9"


@pytest.mark.parametrize("layer", ["device", "model", "local"])
@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("VLLM_MAX_NUM_SEQ=5", "VLLM_MAX_NUM_SEQS"),
        ("LLM_VLLM_MODEL_NAM=demo", "LLM_VLLM_MODEL_NAME"),
        ("LLM_STREM_FORMAT=repr", "LLM_STREAM_FORMAT"),
        ("BERTH_CPUSETS=0", "BERTH_CPUSET"),
    ],
)
def test_a_typo_in_any_layer_is_refused_before_anything_starts(
    project: MakeProject, write_env: WriteEnv, layer: str, line: str, meant: str
) -> None:
    lines = {"device": [*DEVICE], "model": ["LLM_VLLM_MODEL_NAME=demo"], "local": []}
    lines[layer].append(line)
    berth = project(*(write_env(name, *own) for name, own in lines.items()))
    done = berth.run("up", "--detach", check=False)
    assert done.returncode != 0
    assert 'service "prepare" didn\'t complete successfully' in done.stderr
    said = berth.logs("prepare")
    assert f"{line.partition('=')[0]}: no such setting" in said
    assert meant in said
    assert "Traceback" not in said
    assert berth.inspect("prepare")["State"]["ExitCode"] == 2
    assert berth.inspect("engine")["State"]["Status"] == "created"
    assert berth.inspect("llm")["State"]["Status"] == "created"


def test_a_value_that_is_wrong_is_refused_from_a_file_that_names_no_layer(
    project: MakeProject, write_env: WriteEnv
) -> None:
    own = write_env("own", "VLLM_MAX_NUM_SEQS=many", names_itself=False)
    berth = project("env/cpu.env", "env/models/demo.env", own)
    assert berth.run("up", "--detach", check=False).returncode != 0
    assert "VLLM_MAX_NUM_SEQS" in berth.logs("prepare")


def test_every_listed_name_arrives_with_its_value(project: MakeProject, write_env: WriteEnv) -> None:
    """All of them at once, from a file that does not name itself, so that only the list can carry them."""
    listed = [
        line.strip(" :")
        for line in (ROOT / "compose" / "settings.yaml").read_text().partition("services:")[0].splitlines()
        if line.startswith("  ")
    ]
    assert len(listed) > 600
    own = write_env("own", *(f"{name}=value of {name}, {{1}}" for name in listed), names_itself=False)
    berth = project("env/cpu.env", own)
    berth.run("run", "--rm", "prepare", check=False)
    printed = berth.run("run", "--rm", "--no-deps", "--entrypoint", "env", "engine").stdout.splitlines()
    arrived = dict(line.split("=", 1) for line in printed)
    assert {name: arrived.get(name) for name in listed} == {name: f"value of {name}, {{1}}" for name in listed}


def test_the_service_gets_its_own_settings_and_no_other(project: MakeProject, write_env: WriteEnv) -> None:
    local = write_env("local", "LLM_STREAM_FORMAT=repr", "LLM_VLLM_ENDPOINT=http://127.0.0.1:1", "OTHER=x")
    berth = project("env/cpu.env", "env/models/demo.env", local)
    berth.run("run", "--rm", "prepare")
    printed = berth.run("run", "--rm", "--no-deps", "--entrypoint", "env", "llm").stdout.splitlines()
    arrived = dict(line.split("=", 1) for line in printed)
    assert arrived["LLM_STREAM_FORMAT"] == "repr"
    assert arrived["LLM_VLLM_MODEL_NAME"] == "demo"
    assert arrived["LLM_VLLM_ENDPOINT"] == "http://engine:8008"
    assert "OTHER" not in arrived
    assert names.HF_TOKEN not in arrived
