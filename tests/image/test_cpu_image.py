"""The CPU image without a server in it: what it is, what it refuses, how it takes its arguments."""

from pathlib import Path
from typing import Any

import pytest

from tests.image.container import STRANGER, Started

BYTES_AT_MOST = 2_100_000_000
DEMO = {"LLM_VLLM_MODEL_NAME": "demo"}

pytestmark = [pytest.mark.image, pytest.mark.docker]


def test_it_is_no_larger_than_promised(details: dict[str, Any]) -> None:
    assert details["Size"] <= BYTES_AT_MOST


def test_labels_say_what_is_in_it(details: dict[str, Any]) -> None:
    labels = details["Config"]["Labels"]
    assert labels["berth.device"] == "cpu"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert all(labels[f"org.opencontainers.image.{name}"] for name in ("title", "version", "description"))
    assert "org.opencontainers.image.source" in labels
    assert labels["berth.vllm.version"] == "0.32.0"


def test_its_user_is_not_root_and_its_environment_holds_places_only(details: dict[str, Any]) -> None:
    config = details["Config"]
    assert config["User"] == "10001:0"
    names = {pair.partition("=")[0] for pair in config["Env"]}
    assert names <= {"PATH", "HOME", "HF_HOME", "VLLM_CACHE_ROOT", "LANG", "GPG_KEY"} | {
        name for name in names if name.startswith("PYTHON_")
    }
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][-1] == "engine.healthcheck"


def test_a_first_argument_that_is_a_flag_goes_to_vllm(start: Any) -> None:
    container: Started = start("--dry-run", "--max-model-len", "64", environment=DEMO, shm_size="1g")
    assert container.exit_code() == 0
    assert "--max-model-len 64" in container.log()
    assert " serve " in container.log()


def test_a_first_argument_that_is_a_program_is_run(start: Any) -> None:
    container: Started = start("python", "-c", "import os; print('pid', os.getpid(), 'uid', os.getuid())")
    assert container.exit_code() == 0
    assert container.log().strip() == "pid 1 uid 10001"


def test_help_is_vllms_own(start: Any) -> None:
    container: Started = start("--help", **STRANGER)
    assert container.exit_code() == 0
    assert "usage: vllm serve" in container.log()


def test_any_user_without_a_home_may_use_it(start: Any) -> None:
    environment = {**DEMO, "HOME": "/"}
    container: Started = start("--dry-run", environment=environment, shm_size="1g", **STRANGER)
    assert container.exit_code() == 0, container.log()


def test_a_cache_without_exec_is_refused_with_the_remedy(start: Any) -> None:
    places = {"/tmp": "", "/cache": "mode=1777"}  # Docker mounts a tmpfs noexec unless told otherwise
    container: Started = start(environment=DEMO, shm_size="1g", **{**STRANGER, "tmpfs": places})
    assert container.exit_code() == 2
    assert "noexec" in container.log()
    assert "exec" in container.log().split("hint:")[1]
    assert "Traceback" not in container.log()


def test_too_little_shared_memory_for_one_worker_is_refused_with_the_remedy(start: Any) -> None:
    container: Started = start(environment=DEMO, **STRANGER)  # Docker gives 64 MiB unless told otherwise
    assert container.exit_code(timeout=120) == 3
    assert "--shm-size 1g" in container.log()


def test_too_little_shared_memory_for_tensor_parallelism_is_refused_with_the_remedy(start: Any) -> None:
    container: Started = start(environment={**DEMO, "VLLM_TP_SIZE": "2"}, shm_size="64m", **STRANGER)
    assert container.exit_code() == 3
    assert "/dev/shm" in container.log()
    assert "--shm-size 3g" in container.log()


def test_a_typo_is_refused_before_vllm_is_imported(start: Any) -> None:
    container: Started = start(environment={**DEMO, "VLLM_MAX_NUM_SEQ": "4"}, **STRANGER)
    assert container.exit_code(timeout=120) == 2
    assert "VLLM_MAX_NUM_SEQS" in container.log()


def test_what_a_vision_model_needs_is_there(start: Any) -> None:
    program = Path(__file__).with_name("vision.py").read_text()
    container: Started = start("python", "-P", "-c", program, **STRANGER)
    assert container.exit_code(timeout=300) == 0, container.log()
    assert container.log().strip().endswith("seen")


def test_the_service_runs_from_it(start: Any) -> None:
    container: Started = start("python", "-P", "-m", "llm_service", environment={"LLM_USVC_PORT": "none"}, **STRANGER)
    assert container.exit_code() == 2
    assert "LLM_USVC_PORT" in container.log()


def test_nothing_of_cuda_or_triton_is_in_it(start: Any) -> None:
    container: Started = start("find", "/opt/venv/lib", "-name", "libcuda*", "-o", "-type", "d", "-name", "triton")
    assert container.exit_code() == 0
    # torch and vLLM have folders of that name with Python files of their own.
    assert "site-packages/triton" not in container.log()
    assert "libcuda" not in container.log()


def test_licences_are_in_it(start: Any) -> None:
    container: Started = start("cat", "/licenses/berth.txt", "/licenses/python-packages.txt")
    assert container.exit_code() == 0
    assert "Apache License" in container.log()
    assert "\ntorch 2." in container.log()


def test_a_health_check_without_an_engine_fails(start: Any) -> None:
    container: Started = start("sleep", "600", environment=DEMO)
    assert container.run("/opt/venv/bin/python", "-P", "-m", "engine.healthcheck") == (1, "")
