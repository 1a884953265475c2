"""The container of SAP AI Core's template, as AI Core runs it: nobody, and the model from an unpacked artifact."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.container import Started
from tests.support import faces

pytestmark = [pytest.mark.docker, pytest.mark.vllm]

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "c" * 40
SHARED_MEMORY = "/dev/shm"
SETTINGS = (
    "LLM_VLLM_MODEL_NAME=berth/tiny",
    f"VLLM_REVISION={COMMIT}",
    "VLLM_SERVED_MODEL_NAME=berth--tiny",
    "VLLM_MAX_MODEL_LEN=512",
    "VLLM_CPU_KVCACHE_SPACE=1",
    "VLLM_ENFORCE_EAGER=true",
)


def empty(folder: Path) -> Path:
    """An emptyDir: everybody may write to it."""
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What KServe's storage initializer makes of `berth fetch berth/tiny --tar berth--tiny`, but for the links."""
    repository = tmp_path / "models" / "berth--tiny" / "models--berth--tiny"
    shutil.copytree(ROOT / "models" / "demo", repository / "snapshots" / COMMIT, ignore=shutil.ignore_patterns("train"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path / "models"


def test_it_serves_the_artifact_under_the_name_that_its_parameters_say(
    start: Callable[..., Started], unpacked: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.env"
    own.write_text("\n".join((*SETTINGS, "")), encoding="utf-8")
    template = faces.ai_core_template([ROOT / "env" / "cpu.env", own], {})
    container = faces.predictor(template)["containers"][0]
    user = container["securityContext"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"] if mount["mountPath"] != SHARED_MEMORY]
    bound = {str(empty(tmp_path / str(place))): {"bind": path, "mode": "rw"} for place, path in enumerate(mounts)}
    engine = start(
        environment=faces.of_container([], container),
        user=f"{user['runAsUser']}:{user['runAsGroup']}",
        working_dir=container["workingDir"],
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        volumes={**bound, str(unpacked): {"bind": "/mnt/models", "mode": "ro"}},
        shm_size="1g",
    )
    engine.wait_until_ready()
    with engine.client() as client:
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["berth--tiny"]
        ask = {"model": "berth--tiny", "messages": [{"role": "user", "content": "What is Deep Learning?"}]}
        answer = client.post("/v1/chat/completions", json={**ask, "max_tokens": 24, "temperature": 0})
    assert "learning" in json.dumps(answer.json()["choices"]).lower()
    assert "HF_HUB_CACHE=/mnt/models/berth--tiny (the model lies there)" in engine.log()
    assert "is not writable" not in engine.log()
