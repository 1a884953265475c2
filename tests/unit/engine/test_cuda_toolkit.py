"""Which compiler builds kernels on CUDA, and where they are kept."""

from pathlib import Path

from engine.decisions import Situation
from engine.devices import cuda


def situation(**environ: str) -> Situation:
    return Situation(environ=environ, values={}, model="demo")


def test_kernels_are_compiled_by_the_toolkit_of_this_installation(tmp_path: Path) -> None:
    decisions = cuda.tune(situation(), tmp_path)
    assert [decision.environ for decision in decisions] == [{"CUDA_HOME": str(tmp_path)}]


def test_a_toolkit_that_the_user_names_is_kept(tmp_path: Path) -> None:
    assert cuda.tune(situation(CUDA_HOME="/usr/local/cuda"), tmp_path) == []


def test_an_installation_without_a_toolkit_leaves_the_choice_to_vllm(tmp_path: Path) -> None:
    assert cuda.tune(situation(), tmp_path / "none") == []


def test_libraries_keep_their_kernels_below_vllms_cache(tmp_path: Path) -> None:
    (decision,) = cuda.tune(situation(VLLM_CACHE_ROOT="/cache/vllm", QUACK_CACHE_DIR="/mine"), tmp_path / "none")
    assert decision.environ["FLASHINFER_WORKSPACE_BASE"] == "/cache/vllm/flashinfer"
    assert "QUACK_CACHE_DIR" not in decision.environ
