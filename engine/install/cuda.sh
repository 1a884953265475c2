#!/usr/bin/env bash
# Installs vLLM for NVIDIA GPUs into a virtual environment: engine/install/cuda.sh [--prune] VENV_DIR
# Needs no GPU, but a C++ compiler. uv's own settings (UV_DEFAULT_INDEX, UV_FIND_LINKS, UV_PYTHON) say where packages come from.
set -euo pipefail

version=${VLLM_VERSION:-0.32.0}
# shellcheck source=engine/install/common.sh
source "$(dirname "$0")/common.sh"

read_arguments "$@"
if up_to_date cuda "$version"; then exit 0; fi
command -v c++ >/dev/null || fail 3 "a C++ compiler is missing" "install g++: kernels are compiled when a model first needs them"

# The CUDA 12 flavour (240 MB): the CUDA 13 one, which stands beside it, is chosen wherever this torch runs.
without=(nvidia-cutlass-dsl-libs-cu12)

and_also=(
    # A compiler of the same release as torch's CUDA runtime, whose version torch pins in `cuda-toolkit`. Without this the
    # newest is taken, and kernels fail on it: "CUDA compiler and CUDA toolkit headers are incompatible".
    'cuda-toolkit[nvcc,cccl]'
    # Without this the resolver settles for 12.6, whose files overwrite those of cuda-bindings 13 in no certain order.
    'cuda-python>=13'
)

# A folder of wheels may serve several devices, and to a resolver 2.13.0+cpu is the best 2.13.0.
leave_out_cpu_wheels() {
    local place places=$venv/wheels
    mkdir -p "$venv/wheels"
    for place in ${UV_FIND_LINKS//,/ }; do
        if [ -d "$place" ]; then
            find "$(realpath "$place")" -maxdepth 1 -name '*.whl' -not -name '*+cpu*' -exec ln -sf {} "$venv/wheels" \;
        else
            places+=,$place
        fi
    done
    export UV_FIND_LINKS=$places
}

install_vllm() {
    say "installing vLLM $version for CUDA"
    printf '%s; sys_platform == "never"\n' "${without[@]}" >"$venv/overrides.txt"
    "$uv" pip install --python "$venv/bin/python" --overrides "$venv/overrides.txt" "vllm==$version" "${and_also[@]}"
    install_service "$uv" pip install --python "$venv/bin/python" --overrides "$venv/overrides.txt"
    install_streamer "$uv" pip install --python "$venv/bin/python" --overrides "$venv/overrides.txt"
    rm "$venv/overrides.txt"
}

# The wheels lay CUDA out for loading. Compiling also needs lib64, names without a version, and a libcuda to link against:
# the real one comes with the driver, so this one has every function of cuda.h and does nothing (34: a stub was called).
lay_out_toolkit() {
    local cuda library
    cuda=$("$venv/bin/python" -c 'import nvidia; print(nvidia.__path__[0] + "/cu13")')
    ln -sfn "$(realpath --relative-to="$venv" "$cuda")" "$venv/cuda"
    ln -sfn lib "$cuda/lib64"
    for library in "$cuda"/lib/lib*.so.*; do
        ln -sf "${library##*/}" "${library%%.so.*}.so"
    done
    mkdir -p "$cuda/lib/stubs"
    c++ -E -P -I "$cuda/include" -include cuda.h -x c++ /dev/null |
        grep -oE 'CUresult +cu[A-Z][A-Za-z0-9_]*' | sort -u |
        sed -E 's/CUresult +(.*)/extern "C" int \1() { return 34; }/' |
        c++ -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$cuda/lib/stubs/libcuda.so" -x c++ -
}

# Kernels that FlashInfer would download when a model first needs them, on GPUs of the Blackwell generation.
# From a folder of wheels, or from FlashInfer's own index. `vllm download-kernels` does the same, but not without a GPU.
fetch_kernels() {
    local wanted
    wanted=$("$venv/bin/python" -c 'from importlib.metadata import version; print("flashinfer-cubin==" + version("flashinfer-python"))')
    if "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-index "$wanted" 2>/dev/null ||
        FLASHINFER_DISABLE_VERSION_CHECK=1 PATH="$(dirname "$uv"):$PATH" \
            "$venv/bin/python" -P -m flashinfer install-cubin-wheel >/dev/null 2>&1; then
        say "FlashInfer's kernels are installed"
    else
        say "FlashInfer's kernels are out of reach: left out, and downloaded at start where a model needs them"
    fi
}

# A server loads these libraries and compiles kernels of both kinds: prove it now, as far as that goes without a GPU.
canary() {
    local scratch
    scratch=$(mktemp -d)
    ln -s "$venv/cuda/lib/stubs/libcuda.so" "$scratch/libcuda.so.1"
    cat >"$scratch/total.cu" <<'CUDA'
#include <cub/cub.cuh>
#include <curand_kernel.h>
__global__ void total(float *x) {
    using Reduce = cub::BlockReduce<float, 128>;
    __shared__ typename Reduce::TempStorage storage;
    float sum = Reduce(storage).Sum(x[threadIdx.x]);
    if (threadIdx.x == 0) x[0] = sum;
}
CUDA
    "$venv/cuda/bin/nvcc" -arch=sm_90a -shared -Xcompiler -fPIC -o "$scratch/total.so" "$scratch/total.cu" -lcudart -lcuda
    (cd "$scratch" && LD_LIBRARY_PATH=$scratch TRITON_CACHE_DIR=$scratch VLLM_LOGGING_LEVEL=ERROR \
        "$venv/bin/python" -W ignore -P "$install/cuda_canary.py" "$version")
    rm -rf "$scratch"
}

mkdir -p "$(dirname "$venv")"
[ -x "$venv/bin/python" ] || "$uv" venv --quiet --python '>=3.11' "$venv"
if [ -n "${UV_FIND_LINKS:-}" ]; then leave_out_cpu_wheels; fi
install_vllm
lay_out_toolkit
fetch_kernels
if [ -n "$prune" ]; then prune_listed "$install/cuda.prune"; fi
rm -rf "$venv/wheels"
canary
finish cuda "$version"
