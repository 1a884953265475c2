"""The Kubernetes manifests under `podman kube play`, with real vLLM: an answer, a killed engine, a clean end.

The tests run in this order, on one set of pods.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.podman.conftest import Host, known_answer, rendered
from tests.support.waiting import wait_until

SECRET = """apiVersion: v1
kind: Secret
metadata: {name: berth-engine}
stringData: {hf_token: hf_of-the-engine-alone}
"""
ENGINE = "engine-pod-engine"


@pytest.fixture(scope="module")
def played(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    (file,) = rendered("podman", tmp_path_factory.mktemp("kube"))
    host.put([file], "/tmp/kube")
    host.run("podman", "network", "create", "--ignore", "berth")
    host.run("podman", "kube", "play", "-", given=SECRET)
    host.run("podman", "kube", "play", "--network", "berth", f"/tmp/kube/{file.name}")
    yield host
    host.run("podman", "kube", "down", "--force", f"/tmp/kube/{file.name}", check=False)
    host.run("podman", "secret", "rm", "berth-engine", check=False)


def inspected(host: Host, name: str) -> dict[str, object]:
    found: list[dict[str, object]] = json.loads(host.run("podman", "inspect", name))
    return found[0]


def test_the_demo_model_answers_with_a_stream(played: Host) -> None:
    played.wait_until_ready()
    assert played.answer() == known_answer()


@pytest.mark.parametrize("name", [ENGINE, "llm-pod-llm"])
def test_no_container_has_rights_or_writes_to_its_image(played: Host, name: str) -> None:
    status = played.run("podman", "exec", name, "cat", "/proc/1/status")
    words = dict(line.split(":", 1) for line in status.splitlines())
    assert {words[key].strip() for key in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert words["NoNewPrivs"].strip() == "1"
    assert words["Uid"].split()[0] == "10001"
    assert "Read-only file system" in played.run("podman", "exec", name, "sh", "-c", "touch /x 2>&1", check=False)


def test_the_token_for_the_hub_is_not_the_services_business_and_pods_share_no_folder(played: Host) -> None:
    assert played.run("podman", "exec", ENGINE, "cat", "/run/secrets/hf_token") == "hf_of-the-engine-alone"
    played.run("podman", "exec", ENGINE, "touch", "/tmp/of-the-engine")
    seen = played.run("podman", "exec", "llm-pod-llm", "sh", "-c", "ls /run/secrets /tmp 2>&1", check=False)
    assert "hf_token" not in seen
    assert "of-the-engine" not in seen


def test_an_engine_that_is_killed_comes_back(played: Host) -> None:
    before = inspected(played, ENGINE)["State"]
    played.kill(ENGINE)
    wait_until(lambda: played.state() != "ready", 60, "the loss of the engine being noticed")
    played.wait_until_ready()
    assert inspected(played, ENGINE)["State"] != before
    assert played.answer() == known_answer()


def test_what_streams_when_the_pods_are_taken_down_is_finished_first(played: Host) -> None:
    with subprocess.Popen(played.streaming(600, "ignore_eos"), stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout
        assert asking.stdout.readline().startswith("data: ")
        played.run("podman", "kube", "down", "/tmp/kube/berth.yaml")
        rest = asking.stdout.read()
    assert '"finish_reason":"length"' in rest
    assert rest.endswith("data: [DONE]\n\n")
    assert played.run("podman", "ps", "--quiet") == ""
    assert {"models", "compiled"} <= set(played.run("podman", "volume", "ls", "--quiet").split())


def test_a_kubernetes_manifest_names_no_folder_of_the_machine_that_made_it(tmp_path: Path) -> None:
    (file,) = rendered("podman", tmp_path)
    assert str(tmp_path.home()) not in file.read_text(encoding="utf-8")
