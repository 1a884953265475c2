"""The CUDA image, as far as it goes without a GPU. It is large (8 GB), so these tests use the one that is there."""

import json
import os
from typing import Any

import pytest

from tests.support.compose import docker, needs_engine

IMAGE = os.environ.get("BERTH_TEST_IMAGE_CUDA") or "berth/vllm-cuda:0.1.0"
NAIVE_BYTES = 8_710_000_000  # `pip install vllm==0.32.0` on the same base, without a C++ compiler
# A user that nobody knows, in a container that can write to two places only and reaches no network.
STRANGER = ("--user", "1000540000:0", "--read-only", "--tmpfs", "/tmp:exec", "--tmpfs", "/cache:exec,mode=1777")

# On a machine with a GPU the container toolkit mounts the driver's. The others are for ways not taken by default:
# torchcodec has one build for each FFmpeg (video is read by OpenCV, which brings its own), numba one for oneTBB.
NOT_IN_THE_IMAGE = ("libcuda.so", "libnvcuvid.so", "libnvidia-", "libav", "libsw", "libheif.so", "libtbb.so")

pytestmark = [pytest.mark.image, pytest.mark.docker]


@pytest.fixture(autouse=True)
def image() -> None:
    needs_engine()
    if not docker("image", "ls", "--quiet", IMAGE).strip():
        pytest.skip(f"{IMAGE} is not built here (docker buildx bake vllm-cuda, or name one: BERTH_TEST_IMAGE_CUDA)")


def run(*command: str, options: tuple[str, ...] = ()) -> str:
    return docker("run", "--rm", "--network", "none", *STRANGER, *options, IMAGE, *command)


def inspect() -> dict[str, Any]:
    return dict(json.loads(docker("image", "inspect", IMAGE))[0])


def test_it_is_no_larger_than_a_plain_installation_of_vllm() -> None:
    assert inspect()["Size"] <= NAIVE_BYTES


def test_the_container_toolkit_is_told_what_to_hand_in() -> None:
    environ = dict(pair.split("=", 1) for pair in inspect()["Config"]["Env"])
    assert environ["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert set(environ["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility", "video"}


def test_everything_a_server_imports_loads_and_kernels_compile_for_a_user_of_any_number() -> None:
    """With a libcuda that does nothing; with no network, and a root that cannot be written to."""
    prepare = "export HOME=/tmp && cd /tmp && ln -s /opt/venv/cuda/lib/stubs/libcuda.so libcuda.so.1"
    canary = "LD_LIBRARY_PATH=/tmp python -W ignore -P /opt/berth/engine/install/cuda_canary.py 0.32.0"
    said = run("sh", "-c", f"{prepare} && {canary}")
    assert "libraries of kernels load" in said


def test_flashinfer_compiles_a_kernel_with_the_compiler_in_the_image() -> None:
    program = (
        "from flashinfer.jit.page import gen_page_module; module = gen_page_module(); module.build(verbose=False);"
        "print(module.get_library_path())"
    )
    variables = ("FLASHINFER_WORKSPACE_BASE=/cache/kernels", "FLASHINFER_CUDA_ARCH_LIST=9.0a", "MAX_JOBS=2")
    options = tuple(word for variable in variables for word in ("--env", variable))
    said = run("python", "-P", "-c", program, options=options)
    assert "/cache/kernels/" in said


def test_every_library_finds_what_it_is_linked_to() -> None:
    """Some find their way only once torch has loaded CUDA's libraries: so it is loaded first."""
    program = """
import ctypes, os, pathlib, subprocess, sys
import torch
missing = set()
loaded = {line.split()[-1].rpartition("/")[2] for line in open("/proc/self/maps") if ".so" in line}
places = {path.name for path in pathlib.Path(sys.prefix).rglob("*.so*")}
for path in pathlib.Path(sys.prefix).rglob("*.so"):
    for line in subprocess.run(["ldd", path], capture_output=True, text=True).stdout.splitlines():
        name = line.split()[0]
        if "not found" in line and name not in loaded and name not in places:
            missing.add(name)
print("\\n".join(sorted(missing)))
"""
    missing = run("python", "-P", "-c", program).split()
    assert [name for name in missing if not name.startswith(NOT_IN_THE_IMAGE)] == []


def test_verbs_for_infiniband_are_there() -> None:
    assert run("python", "-c", "import ctypes; print(ctypes.CDLL('libibverbs.so.1'), ctypes.CDLL('librdmacm.so.1'))")


def test_settings_are_checked_without_a_gpu() -> None:
    model = ("--env", "LLM_VLLM_MODEL_NAME=demo")
    assert run("--check", options=model) == ""
    with pytest.raises(AssertionError, match="did you mean VLLM_MAX_NUM_SEQS"):
        run("--check", options=(*model, "--env", "VLLM_MAX_NUM_SEQ=4"))


def test_without_a_gpu_it_says_so_and_does_not_start() -> None:
    with pytest.raises(AssertionError, match="no NVIDIA GPU is visible here"):
        run(options=("--env", "LLM_VLLM_MODEL_NAME=demo"))
