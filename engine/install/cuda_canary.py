"""Run by cuda.sh with the new environment's Python and a stub of libcuda: imports what a server loads, compiles."""

import importlib
import sys
from pathlib import Path
from typing import Any

# A line each for what serves, what brings kernels, and what moves data between GPUs or loads weights.
MODULES = """
    torch vllm transformers tokenizers safetensors xgrammar llguidance numba cv2 torchcodec
    triton tokenspeed_triton tokenspeed_mla flashinfer tilelang cutlass.cute quack humming cudnn
    nccl.bindings nccl.core cuda.bindings.driver fastsafetensors instanttensor
"""
KERNEL = """
import triton
import triton.language as tl

@triton.jit
def double(x, n, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(x + at, tl.load(x + at, mask=at < n) * 2, mask=at < n)
"""


def load_kernels() -> list[str]:
    """Load every compiled module of vLLM, and return their names. Raises ImportError for a library that is missing."""
    root = Path(importlib.import_module("vllm").__file__ or "").parent
    names = sorted(
        ".".join(("vllm", *path.relative_to(root).parts))[: -len(".abi3.so")] for path in root.rglob("*.abi3.so")
    )
    for name in names:
        importlib.import_module(name)
    return names


def compile_kernel() -> int:
    """Compile a Triton kernel for the H100; return the size of the machine code in bytes."""
    Path("canary_kernel.py").write_text(KERNEL, encoding="utf-8")
    sys.path.insert(0, ".")
    kernel: Any = importlib.import_module("canary_kernel")
    triton: Any = importlib.import_module("triton")
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    signature = {"x": "*fp32", "n": "i32", "SIZE": "constexpr"}
    source = triton.compiler.ASTSource(fn=kernel.double, signature=signature, constexprs={"SIZE": 128})
    return len(triton.compile(source, target=target).asm["cubin"])


def main() -> None:
    """Stop with a traceback at the first thing that is broken."""
    torch: Any = importlib.import_module("torch")
    if not torch.version.cuda:
        raise SystemExit(f"torch {torch.__version__} is no CUDA build")
    modules = MODULES.split()
    for module in modules:
        importlib.import_module(module)
    vllm: Any = importlib.import_module("vllm")
    if vllm.__version__ != sys.argv[1]:
        raise SystemExit(f"vLLM {vllm.__version__} was installed, {sys.argv[1]} was asked for")
    loaded = load_kernels()
    if not hasattr(torch.ops._C, "silu_and_mul"):
        raise SystemExit("vLLM's kernels did not register")
    size = compile_kernel()
    sys.stdout.write(
        f"vLLM {vllm.__version__}, torch {torch.__version__}: {len(modules)} packages and {len(loaded)} libraries of"
        f" kernels load, a Triton kernel compiles to {size} bytes\n"
    )


if __name__ == "__main__":
    main()
