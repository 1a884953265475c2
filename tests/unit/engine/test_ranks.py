"""One model over several machines: how many workers each has, and what each machine's command says."""

import pytest

from engine import catalog, preflight, ranks, settings
from engine.decisions import Situation
from engine.messages import Problem

HEAD = {
    "VLLM_TP_SIZE": "2",
    "VLLM_NNODES": "2",
    "VLLM_NODE_RANK": "0",
    "VLLM_MASTER_ADDR": "10.0.0.1",
    "VLLM_MASTER_PORT": "20489",
    "VLLM_DISTRIBUTED_EXECUTOR_BACKEND": "mp",
    "VLLM_HOST_IP": "10.0.0.1",
    "VLLM_PORT": "20490",
    "VLLM_UDS": "/tmp/s/engine.sock",
}
FOLLOWER = {**HEAD, "VLLM_NODE_RANK": "1", "VLLM_HEADLESS": "true", "VLLM_HOST_IP": "10.0.0.2"}


def command(environ: dict[str, str], device: str) -> settings.Command:
    known = catalog.parse((catalog.TRACKED / f"{device}.json").read_text(encoding="utf-8"))
    reading = settings.read({"LLM_VLLM_MODEL_NAME": "demo", **environ}, known, device)
    assert not reading.problems
    return settings.build(reading, known)


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_every_node_is_told_its_place_on_every_device(device: str) -> None:
    for rank, environ in enumerate((HEAD, FOLLOWER)):
        run = command(environ, device)
        assert after(run.argv, "--nnodes") == "2"
        assert after(run.argv, "--node-rank") == str(rank)
        assert after(run.argv, "--master-addr") == "10.0.0.1"
        assert after(run.argv, "--master-port") == "20489"
        assert after(run.argv, "--distributed-executor-backend") == "mp"
        assert after(run.argv, "--tensor-parallel-size") == "2"
        # The flag --port is the door's; these two are where the nodes find each other.
        assert run.environ["VLLM_HOST_IP"] == f"10.0.0.{rank + 1}"
        assert run.environ["VLLM_PORT"] == "20490"


def test_only_the_head_listens_for_requests(device: str) -> None:
    head, follower = command(HEAD, device), command({**FOLLOWER, "LLM_VLLM_PORT": "8008"}, device)
    assert after(head.argv, "--uds") == "/tmp/s/engine.sock"
    assert "--headless" not in head.argv
    assert "--headless" in follower.argv
    assert not {"--uds", "--host", "--port"} & set(follower.argv)


def test_a_follower_ends_with_its_head(device: str) -> None:
    assert "engine.follower" not in command(HEAD, device).argv
    # On a CPU engine.prefork may stand before it, and sees to the same.
    assert {"engine.follower", "engine.prefork"} & set(command(FOLLOWER, device).argv)


def test_what_an_env_file_says_of_the_door_is_left_to_the_head() -> None:
    known = catalog.parse((catalog.TRACKED / "cuda.json").read_text(encoding="utf-8"))
    said = {**FOLLOWER, "VLLM_API_SERVER_COUNT": "2", "LLM_VLLM_HOST": "0.0.0.0", "LLM_VLLM_MODEL_NAME": "demo"}
    reading = settings.read(said, known, "cuda")
    assert "VLLM_API_SERVER_COUNT ignored" in " ".join(reading.notes)
    assert "--api-server-count" not in settings.build(reading, known).argv


def test_nodes_differ_in_nothing_that_enters_the_compile_cache_key(device: str) -> None:
    head, follower = command(HEAD, device).environ, command(FOLLOWER, device).environ
    assert {name for name in head if head[name] != follower[name]} == {"VLLM_HOST_IP"}
    assert head["VLLM_ENGINE_READY_TIMEOUT_S"] == follower["VLLM_ENGINE_READY_TIMEOUT_S"] == "1800"


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        (1, {}),
        (4, {"tensor-parallel-size": "4"}),
        (1, {"tensor-parallel-size": "2", "nnodes": "2"}),
        (8, {"tensor-parallel-size": "8", "pipeline-parallel-size": "2", "nnodes": "2"}),
        (4, {"tensor-parallel-size": "4", "pipeline-parallel-size": "4", "nnodes": "4"}),
        (1, {"data-parallel-size": "2", "nnodes": "2"}),
        (2, {"data-parallel-size": "2"}),
        (3, {"data-parallel-size": "6", "data-parallel-size-local": "3"}),
    ],
)
def test_workers_of_one_node(expected: int, values: dict[str, str]) -> None:
    assert ranks.here(Situation({}, values, None)) == expected


def said(**values: str) -> list[Problem]:
    several = {"nnodes": "2", "master-addr": "10.0.0.1", "tensor-parallel-size": "2"}
    return ranks.problems(Situation({}, {**several, **{k.replace("_", "-"): v for k, v in values.items()}}, None))


def test_what_nodes_cannot_share_is_refused_before_vllm_is_imported() -> None:
    assert not said()
    assert not said(node_rank="1", headless="true")
    assert "is 3, which 2 nodes cannot share" in said(tensor_parallel_size="3")[0].sentence
    assert "VLLM_NODE_RANK=2 of VLLM_NNODES=2" in said(node_rank="2", headless="true")[0].sentence
    assert "VLLM_HEADLESS" in said(node_rank="1")[0].sentence
    (problem,) = ranks.problems(Situation({}, {"nnodes": "2", "tensor-parallel-size": "2"}, None))
    assert "VLLM_MASTER_ADDR is not set" in problem.sentence


def test_shared_memory_is_asked_for_by_the_workers_of_this_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.host, "shared_memory_free", lambda: 1 << 30)
    assert preflight._shared_memory(Situation({}, {"tensor-parallel-size": "2"}, None))
    assert not preflight._shared_memory(Situation({}, {"tensor-parallel-size": "2", "nnodes": "2"}, None))
