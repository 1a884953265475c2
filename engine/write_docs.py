"""Writes docs/settings.md from what the launcher knows: `python -P -m engine.write_docs [FILE]`."""

# ruff: noqa: E501 (rows of tables cannot be broken)

import sys
from collections.abc import Iterable
from pathlib import Path

from engine import catalog, cpu_memory, decisions, devices, names
from engine.catalog import Catalog, Flag

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"

_INTRODUCTION = f"""# Settings of the engine

This page is written by `python -m engine.write_docs`; a test keeps it fresh.
A setting is a line `NAME=value` in an env file, or a variable in the shell, which wins. Empty means unset.

## The rule

- `VLLM_<FLAG>` is the flag `--<flag>` of `vllm serve`: `VLLM_MAX_MODEL_LEN=4096` becomes `--max-model-len 4096`.
- A switch takes `true`, `1`, `yes`, `on` or `false`, `0`, `no`, `off`.
- JSON passes literally, without quotes around the whole: `VLLM_COMPILATION_CONFIG={{"mode": 3}}`.
- A list is split as a shell would: `VLLM_SERVED_MODEL_NAME=one "number two"`.
- Where vLLM itself reads a variable of that name, the variable passes untouched and is no flag. That concerns
  `VLLM_API_KEY`, `VLLM_PORT` (a port between vLLM's own processes; the API's port is `{names.PORT}`) and
  `VLLM_DCP_Q_REPLICATE`.
- Any other name that begins with `VLLM_` or `LLM_VLLM_` is refused with the nearest right name.
- A wrong setting ends the launcher with exit code 2 before anything is loaded.
  `python -P -m engine.serve --check` looks at names and values alone; `--dry-run` prints the command.

## Names beyond the rule

| name | what it sets |
| --- | --- |
| `{names.MODEL}` | the model: a Hugging Face name, a folder, or `{names.DEMO}` for the built-in one. Required |
| `{names.PORT}` | `--port`, {names.DEFAULT_PORT} unless set |
| `{names.HOST}` | `--host`, {names.DEFAULT_HOST} unless set (Compose sets 0.0.0.0 inside its own network) |
| `VLLM_TP_SIZE`, `VLLM_PP_SIZE` | `--tensor-parallel-size`, `--pipeline-parallel-size` |
| `{names.EXTRA_ARGS}` | words that follow all flags, split as a shell would |
| `{names.FORCE}` | `true` starts an engine although the model cannot fit (docs/plan.md) |
| `{names.DEVICE}` | {{devices}}; must agree with the image or installation |
| `{names.HF_TOKEN}`, `{names.HF_TOKEN_PATH}` | the hub's token, or its file; `/run/secrets/hf_token` if that is there |
| `{names.API_KEY}`, `{names.API_KEY_FILE}` | the key that clients show, or its file; `/run/secrets/vllm_api_key` if that is there |

A token or key never becomes an argument: `--api-key` and `--hf-token` with a value are refused.
`VLLM_HF_TOKEN=true` still means the token that `hf auth login` stored.
"""

_DECISIONS = f"""
## What the launcher settles

Each is one line of the log, with its reason, and gives way to a setting.

| what | when | unless |
| --- | --- | --- |
| `--shutdown-timeout {decisions.SHUTDOWN_TIMEOUT_S}`: requests in flight may finish | always | `VLLM_SHUTDOWN_TIMEOUT` |
| `--disable-access-log-for-endpoints {decisions.QUIET_PATHS}` | always | `VLLM_DISABLE_ACCESS_LOG_FOR_ENDPOINTS` |
| `VLLM_NO_USAGE_STATS=1`, `HF_HUB_DISABLE_TELEMETRY=1` | always | the variable is set |
| `VLLM_ENGINE_READY_TIMEOUT_S={decisions.ENGINE_READY_TIMEOUT_S}` (enters the compile-cache key) | always | the variable is set |
| `HOME`, `USER`, `TMPDIR` | no writable home, no passwd entry, no writable `/tmp` | |
| `VLLM_CACHE_ROOT`, `HF_HOME` below `TMPDIR` | the cache is not writable | |
| `TORCHINDUCTOR_CACHE_DIR`, `TRITON_CACHE_DIR` below `VLLM_CACHE_ROOT` | always | the variable is set |
| `--safetensors-load-strategy prefetch`; `eager` where the weights exceed the free memory | the weights are on a network file system (NFS, Lustre, GPFS, BeeGFS, Ceph, …) | it, `VLLM_LOAD_FORMAT` or `VLLM_MODEL_LOADER_EXTRA_CONFIG` |
| `--load-format runai_streamer` | the model is `s3://…`, and the streamer is installed | as above |

On CPU:

| what | when | unless |
| --- | --- | --- |
| `VLLM_CPU_OMP_THREADS_BIND`: one thread for each of the first physical cores that the quota allows, less one core for each worker, left to the front end | a CFS quota (`--cpus`, `limits.cpu`) below the CPUs of the affinity mask | it or `OMP_NUM_THREADS` is set |
| `VLLM_CPU_OMP_THREADS_BIND`: the cores shared out | more workers than NUMA nodes, which vLLM alone refuses | as above |
| `--kv-cache-memory-bytes` | always | it, `VLLM_CPU_KVCACHE_SPACE` or `VLLM_GPU_MEMORY_UTILIZATION` is set |
| tcmalloc and Intel's OpenMP in `LD_PRELOAD` | they are installed | `LD_PRELOAD` has such a library |
| vLLM's processes are forked after one import | Intel's OpenMP is preloaded | `VLLM_WORKER_MULTIPROC_METHOD` is set |
| `VLLM_USE_AOT_COMPILE=0` (enters the compile-cache key) | always | the variable is set |

The KV cache on CPU leaves the weights and {cpu_memory.gib(cpu_memory.HEADROOM)} GiB free under the memory limit; it takes no more than
all requests together can use, no more than half of the free memory where there is no limit, and a quarter of the
free memory while the model is still to be downloaded.

Several engines with a quota on one machine would be bound to the same first cores: set
`VLLM_CPU_OMP_THREADS_BIND=nobind` and `OMP_NUM_THREADS` for each, or give each a cpuset, which vLLM honours.
"""


def page() -> str:
    """Return the whole page."""
    known = {device: _catalog(device) for device in devices.names() if (catalog.TRACKED / f"{device}.json").exists()}
    parts = [_INTRODUCTION.replace("{devices}", ", ".join(devices.names())), _DECISIONS]
    parts += [_device(device) for device in known]
    parts += [_flags(known), _variables(known)]
    return "\n".join(parts)


def _catalog(device: str) -> Catalog:
    return catalog.parse((catalog.TRACKED / f"{device}.json").read_text(encoding="utf-8"))


def _device(device: str) -> str:
    module = devices.load(device)
    lines = [f"## Further names on {device}\n"]
    rows = [f"| `{name}` | {what} |" for name, what in module.VARIABLES.items()]
    rows += [f"| `{name}` | accepted, and ignored: {why} |" for name, why in module.STALE.items()]
    return "\n".join([*lines, "| name | what it is |", "| --- | --- |", *rows, ""]) if rows else ""


def _flags(known: dict[str, Catalog]) -> str:
    versions = ", ".join(f"{one.vllm} ({device})" for device, one in known.items())
    flags: dict[str, Flag] = {}
    for one in known.values():
        flags.update({name: flag for name, (flag, negated) in one.by_setting.items() if not negated})
    lines = [f"`{name}` {_kind(flag)}" for name, flag in sorted(flags.items())]
    text = (
        "Name and kind of value; `vllm serve --help=all` says what each does. A switch has its `VLLM_NO_…` form, too."
    )
    return f"## Every flag as a setting\n\nOf vLLM {versions}. {text}\n\n" + ",\n".join(lines) + ".\n"


def _kind(flag: Flag) -> str:
    kind = "choice" if flag.choices else {"int": "number", "float": "fraction", "str": "text"}.get(flag.type, flag.type)
    return f"{kind} list" if flag.is_list else kind


def _variables(known: dict[str, Catalog]) -> str:
    found = sorted({name for one in known.values() for name in one.variables})
    heading = "## Variables that vLLM reads itself\n\nThey pass untouched, also where they look like a flag.\n\n"
    return heading + _joined(f"`{name}`" for name in found)


def _joined(words: Iterable[str]) -> str:
    return ",\n".join(words) + ".\n"


def main() -> None:
    """Write the page to the file named as argument, by default to docs/settings.md."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.parent.mkdir(exist_ok=True)
    target.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
