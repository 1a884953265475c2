"""A checkout's env folder in a temporary place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from berth import deployment as deployments
from berth.deployment import Deployment

Resolve = Callable[..., Deployment]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """env/cpu.env, env/hpu.env and env/models/demo.env, as small as can be."""
    (tmp_path / "env/models").mkdir(parents=True)
    (tmp_path / "env/cpu.env").write_text("LLM_DEVICE=cpu\nLLM_VLLM_MODEL_NAME=some/model\nVLLM_MAX_MODEL_LEN=4096\n")
    (tmp_path / "env/hpu.env").write_text("LLM_DEVICE=hpu\nLLM_VLLM_MODEL_NAME=some/model\n")
    (tmp_path / "env/models/demo.env").write_text("LLM_VLLM_MODEL_NAME=demo\nVLLM_MAX_MODEL_LEN=\n")
    return tmp_path


@pytest.fixture
def resolve(root: Path) -> Resolve:
    """`deployment.resolve` in that place, with an empty shell unless one is given."""

    def run(*files: str, device: str | None = None, shell: dict[str, str] | None = None) -> Deployment:
        return deployments.resolve([root / file for file in files], device, shell or {}, root)

    return run
