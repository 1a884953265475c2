"""`--runtime kubernetes`, with a kubectl that has no cluster and remembers what it was asked."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from berth.errors import BerthError, Exit
from berth.kubernetes import overlay
from berth.progress import Progress
from berth.runtimes import Request
from berth.runtimes.kubernetes import Runtime
from engine.phases import Phase
from tests.unit.kubernetes.cluster import Cluster, demo, ended, pod, service, waiting_for


def test_secrets_go_by_standard_input_and_stand_in_no_argument_and_no_manifest(
    cluster: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice sha256:0123\n")
    deployment = demo(HF_TOKEN="hf_secret", VLLM_API_KEY="engine-secret", LLM_API_KEYS_FILE=str(keys))
    runtime = Runtime()
    runtime.start(deployment, Progress(), False)
    applied = [call for call in cluster.calls() if call["words"][0] == "apply"]
    assert len(applied) == 2
    sent = {each["metadata"]["name"]: each["data"] for each in json.loads(applied[0]["given"])["items"]}
    assert base64.b64decode(sent["berth-engine"]["hf_token"]) == b"hf_secret"
    assert base64.b64decode(sent["berth-engine"]["vllm_api_key"]) == b"engine-secret"
    assert base64.b64decode(sent["berth-clients"]["llm_api_keys"]) == b"alice sha256:0123\n"
    written = "".join(path.read_text() for path in overlay.FOLDER.rglob("*.yaml"))
    shown = runtime.render(deployment) + "".join(runtime.commands(deployment)) + capfd.readouterr().err
    words = json.dumps([call["words"] for call in cluster.calls()])
    for secret in ("hf_secret", "engine-secret", "0123", *sent["berth-engine"].values()):
        assert secret not in written + shown + words


def test_a_service_without_keys_is_refused_unless_a_lock_stands_in_front_of_it(cluster: Cluster) -> None:
    (problem,) = Runtime().problems(demo())
    assert "would need no key" in problem.sentence
    assert Runtime().problems(demo(LLM_ALLOW_NO_KEY="true")) == []


def test_what_no_pod_can_have_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    said = demo(LLM_ALLOW_NO_KEY="true", LLM_VLLM_MODEL_NAME=str(tmp_path), S3_SECRET_ACCESS_KEY="x")
    sentences = " ".join(problem.sentence for problem in Runtime().problems(said))
    assert "no pod can see" in sentences
    assert "S3_SECRET_ACCESS_KEY would stand open" in sentences


def test_without_a_cluster_every_verb_says_so_with_exit_code_3(cluster: Cluster) -> None:
    (cluster.folder / "objects.json").unlink()
    runtime = Runtime()
    (problem,) = runtime.problems(demo())
    assert problem.exit_code == Exit.MISSING_PREREQUISITE
    for ask in (runtime.status, lambda: runtime.stop(Progress()), lambda: runtime.start(demo(), Progress(), False)):
        with pytest.raises(BerthError) as refused:
            ask()
        assert refused.value.exit_code == Exit.MISSING_PREREQUISITE


def test_it_is_ready_when_an_engine_and_a_service_are(cluster: Cluster) -> None:
    cluster.has(service(), pod("engine", ready=True), pod("llm", ready=True))
    ready = Runtime().wait(demo(LLM_USVC_PORT="9123"), Progress(), 5, False)
    assert ready.endpoint.service == "http://127.0.0.1:9123"
    assert "9123:9000" in ready.facts["forward"]
    status = Runtime().status()
    assert (status.state, status.ready, status.model, status.device) == ("running", True, "demo", "cpu")


def test_the_way_in_stays_open_until_it_is_closed(cluster: Cluster) -> None:
    cluster.has(service(), pod("engine", ready=True), pod("llm", ready=True))
    runtime = Runtime()
    runtime.wait(demo(), Progress(), 5, True)
    told = []

    def tell() -> None:
        told.append("ready")
        cluster.has()  # somebody takes it down

    runtime.stay(Progress(), tell, True)
    assert told == ["ready"]


def test_a_cluster_that_does_not_answer_for_a_while_closes_no_way_in(cluster: Cluster) -> None:
    runtime = Runtime()
    cluster.has(service(), pod("engine", ready=True))
    assert not runtime._is_gone()
    (cluster.folder / "objects.json").unlink()
    assert not runtime._is_gone()
    cluster.has()
    assert runtime._is_gone()


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (ended(2, "berth: error: VLLM_X: no such setting\nberth: hint: remove it"), "no such setting", 2),
        (ended(137, reason="OOMKilled"), "lack of memory", 1),
        (ended(1), "exit code 1", 1),
        (waiting_for("ErrImageNeverPull"), "names no registry", 3),
        (waiting_for("ImagePullBackOff"), "the registry says no", 3),
        (waiting_for("CreateContainerConfigError"), "the registry says no", 1),
    ],
)
def test_a_pod_that_will_not_be_ready_ends_the_wait_in_its_own_words(
    cluster: Cluster, status: dict[str, Any], said: str, code: int
) -> None:
    cluster.has(service(), pod("engine", **status), pod("llm", ready=True))
    with pytest.raises(BerthError, match=said) as refused:
        Runtime().wait(demo(), Progress(), 5, False)
    assert refused.value.exit_code == code
    assert Runtime().status().state == "degraded"


def test_a_pod_that_is_ready_again_is_not_reported_for_how_it_ended_before(cluster: Cluster) -> None:
    before = [
        {"name": "engine", "restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137}}}
    ]
    cluster.has(service(), pod("engine", ready=True, containerStatuses=before), pod("llm", ready=True))
    assert [part.detail for part in Runtime().status().parts if part.name == "engine-1"] == [""]


def test_what_a_pod_waits_for_is_shown(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: no nvidia.com/gpu"}
    cluster.has(service(), pod("engine", conditions=[scheduled]), pod("llm", ready=True))
    shown: list[Phase] = []
    monkeypatch.setattr(Progress, "show", lambda _, phase: shown.append(phase))
    with pytest.raises(BerthError) as late:
        Runtime().wait(demo(), Progress(), 0, False)
    assert late.value.exit_code == Exit.NOT_READY
    assert "no nvidia.com/gpu" in str(late.value)


def test_down_ends_the_pods_first_and_keeps_the_volumes_and_secrets_of_others(cluster: Cluster) -> None:
    cluster.has(service(), pod("engine", ready=True), pod("llm", ready=True))
    assert Runtime().stop(Progress())
    deleted = [call["words"] for call in cluster.calls() if call["words"][0] == "delete"]
    assert deleted[0][1].endswith("deployments.apps")
    assert "--cascade=foreground" in deleted[0]
    assert not any("persistentvolumeclaims" in words for words in deleted)
    assert all("app.kubernetes.io/part-of=berth" in word for words in deleted for word in words if "selector" in word)
    assert any("managed-by=berth" in word for words in deleted if "secrets" in words for word in words)
    assert [line.split()[1] for line in Runtime().stop_commands()] == ["delete"] * 3


def test_down_with_all_deletes_the_volumes_too(cluster: Cluster) -> None:
    assert not Runtime().stop(Progress()), "nothing runs"
    assert Runtime(Request(everything=True)).stop(Progress())
    assert any("persistentvolumeclaims" in call["words"] for call in cluster.calls())


def test_the_same_model_is_applied_again_and_another_one_is_in_its_way(cluster: Cluster) -> None:
    cluster.has(service("other"), pod("engine", ready=True), pod("llm", ready=True))
    assert Runtime().status(demo()).model == "other"
    cluster.has(service("demo"), pod("engine", ready=True), pod("llm", ready=True))
    assert Runtime().status(demo()).stopped


@pytest.mark.parametrize(
    "said",
    [
        "error: spec is immutable after creation",
        "Warning: it is old\nThe Volume is invalid: spec is immutable\n  core.Volume{\n- \tModes: 1,\n  }",
        "E1122 03:41:31.1 12 memcache.go:265] no answer\nError from server (Invalid): spec is immutable",
        "error: spec is immutable\nensure CRDs are installed first",
    ],
)
def test_what_the_cluster_refuses_is_told_in_its_words(cluster: Cluster, said: str) -> None:
    (cluster.folder / "refused").write_text(f"{said}\n")
    with pytest.raises(BerthError, match="spec is immutable"):
        Runtime().start(demo(), Progress(), False)


def test_log_lines_name_their_part(cluster: Cluster) -> None:
    (cluster.folder / "log").write_text("[pod/engine-1/engine] loading\n[pod/llm-1/llm] listening\n")
    assert list(Runtime().logs(None, False, None)) == ["engine | loading", "llm    | listening"]
    assert next(iter(Runtime().logs("engine", False, 5))) == "loading"


def test_what_kubectl_says_of_logs_that_it_cannot_read_is_told_after_those_it_could(cluster: Cluster) -> None:
    (cluster.folder / "log").write_text("[pod/llm-1/llm] listening\n")
    (cluster.folder / "refused").write_text('error: container "engine" is waiting to start: ContainerCreating\n')
    lines = Runtime().logs(None, False, None)
    assert next(lines) == "llm    | listening"
    with pytest.raises(BerthError, match="waiting to start"):
        next(lines)


def test_an_option_of_slurm_is_refused() -> None:
    with pytest.raises(BerthError, match="--hold is for Slurm"):
        Runtime(Request(hold=True))
    Runtime(Request(nodes=2, replicas=2))
