#!/usr/bin/env bash
# Installs vLLM and its plugin for Intel Gaudi into a virtual environment: engine/install/hpu.sh [--prune] VENV_DIR
# Needs no Gaudi, but a Python that has Gaudi's PyTorch, which stays as it is (Intel's pytorch-upstream-installer image).
# The plugin is in no package index: its source comes from GitHub, or as vllm_gaudi-VERSION.tar.gz from $UV_FIND_LINKS.
set -euo pipefail

version=${VLLM_VERSION:-0.26.0}
# shellcheck source=engine/install/common.sh
source "$(dirname "$0")/common.sh"

read_arguments "$@"
if up_to_date hpu "$version"; then exit 0; fi
python=${UV_PYTHON:-python3}
base_torch=$("$python" -c 'import importlib.metadata as m; m.version("habana-torch-plugin"); print(m.version("torch"))' 2>/dev/null) ||
    fail 3 "$python has no PyTorch for Gaudi" "use Intel's image (Dockerfile.hpu), or install its software for this Python first"

# Of pip and uv only pip sees what the base's Python already has, and keeps it where it will do.
pip_install() {
    "$venv/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check --root-user-action ignore \
        --constraint "$venv/constraints.txt" "$@"
}

# download ADDRESS: to standard output; what went wrong in one line.
download() {
    "$venv/bin/python" - "$1" <<'PYTHON'
import shutil, sys, urllib.request

try:
    with urllib.request.urlopen(sys.argv[1], timeout=60) as answer:
        shutil.copyfileobj(answer, sys.stdout.buffer)
except OSError as error:
    sys.exit(f"berth: {sys.argv[1]}: {error}")
PYTHON
}

# plugin_source DIRECTORY: unpack the plugin's release into DIRECTORY. Releases of both projects carry the same number.
plugin_source() {
    local given="" address=https://github.com/vllm-project/vllm-gaudi/archive/refs/tags/v$version.tar.gz
    if [ -n "${UV_FIND_LINKS:-}" ]; then
        # shellcheck disable=SC2086 # several folders are separated by commas
        given=$(find ${UV_FIND_LINKS//,/ } -maxdepth 1 -name "vllm?gaudi-$version*.tar.gz" 2>/dev/null | head -n 1 || true)
    fi
    mkdir -p "$1"
    if [ -n "$given" ]; then cat "$given"; else download "$address"; fi | tar -xz --strip-components=1 -C "$1" ||
        fail 3 "vllm-gaudi $version cannot be had from ${given:-$address}" \
            "put its source archive into the folder of wheels (--build-context wheels=DIRECTORY), or check the proxy"
}

install_vllm() {
    local source=$venv/vllm-gaudi
    plugin_source "$source"
    echo "torch==$base_torch" >"$venv/constraints.txt"
    say "installing vLLM $version without kernels of its own"
    # Both build with what is here, since their build requirements name a torch that is not Gaudi's.
    pip_install 'setuptools>=77.0.3,<80' 'setuptools-scm>=8' 'setuptools-rust>=1.9' 'packaging>=24.2' wheel jinja2 cmake ninja
    # Left alone, the build would call itself $version+empty, which pip refuses as another version than the one asked for.
    VLLM_TARGET_DEVICE=empty VLLM_VERSION_OVERRIDE=$version pip_install --no-build-isolation --no-binary vllm "vllm==$version"
    say "installing vllm-gaudi $version"
    SETUPTOOLS_SCM_PRETEND_VERSION=$version VLLM_TARGET_DEVICE=hpu pip_install --no-build-isolation "$source"
    # What the calibration scripts for FP8 import, and the scripts themselves.
    pip_install datasets pandas
    install_service pip_install
    mkdir -p "$venv/share/vllm-gaudi"
    cp -r "$source/calibration" "$source/LICENSE" "$venv/share/vllm-gaudi/"
    rm -rf "$source" "$venv/constraints.txt"
}

# Some models import torchaudio: its CPU build does, and without dependencies it leaves torch alone.
install_torchaudio() {
    if ! "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --torch-backend cpu "torchaudio==${base_torch%%[+a]*}" 2>/dev/null; then
        say "torchaudio is left out, and the models that need it do not load: PyTorch's index of CPU builds is out of reach"
    fi
}

# As far as that goes without a card: the plugin itself imports Gaudi's bridge, which looks for one.
canary() {
    local scratch
    scratch=$(mktemp -d)
    (cd "$scratch" && VLLM_PLUGINS='' VLLM_LOGGING_LEVEL=ERROR "$venv/bin/python" -P - "$version" "$base_torch") <<'PYTHON'
import sys
from importlib.metadata import entry_points, version

import torch, transformers, vllm, vllm_gaudi

assert vllm.__version__.startswith(sys.argv[1]), vllm.__version__
assert version("vllm-gaudi") == sys.argv[1], version("vllm-gaudi")
assert version("torch") == sys.argv[2], f"torch became {version('torch')}, the base has {sys.argv[2]}"
assert not torch.__file__.startswith(sys.prefix), f"a second torch: {torch.__file__}"
assert "hpu" in entry_points(group="vllm.platform_plugins").names
print(f"vLLM {vllm.__version__}, vllm-gaudi {sys.argv[1]}, torch {torch.__version__} of the base, transformers {transformers.__version__}")
PYTHON
    rm -rf "$scratch"
}

mkdir -p "$(dirname "$venv")"
[ -x "$venv/bin/python" ] || "$uv" venv --quiet --system-site-packages --python "$python" "$venv"
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || fail 3 "$python has no pip" "install pip for it (python3-pip): uv does not see the base's PyTorch"
install_vllm
install_torchaudio
canary
finish hpu "$version"
