"""Writes compose/settings.yaml: the names that Compose hands to the containers. Run: python -m compose.write_settings

Compose gives a container only the names that a file lists, so every name that an engine or the service knows stands
there, without a value: the value comes from the env files, and the shell beats them.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import fill

from engine import catalog, devices, names
from llm_service.config import loading
from llm_service.config.settings import Settings

HERE = Path(__file__).resolve().parent
TARGET = HERE / "settings.yaml"

# base.yaml settles these itself, or hands them over as files.
_SETTLED = {names.PORT, names.HOST, names.PHASE_FILE, *names.SECRETS, names.API_KEY_FILE, names.HF_TOKEN_PATH}
_SETTLED_FOR_SERVICE = {
    *("LLM_USVC_HOST", "LLM_USVC_PORT", "LLM_VLLM_ENDPOINT", "BIND_ADDR", "LLM_API_KEYS_FILE", "LLM_ALLOW_NO_KEY"),
    *("LLM_TLS_CERT_FILE", "LLM_TLS_KEY_FILE", names.PHASE_FILE, names.API_KEY),
}

# What the libraries below vLLM read. Paths of caches and of programs are left out: a user's HF_HOME or LD_LIBRARY_PATH
# means a folder of this machine, and would break the container.
NATIVE = """
    HF_ENDPOINT HF_HUB_OFFLINE HF_HUB_DOWNLOAD_TIMEOUT HF_HUB_ETAG_TIMEOUT HF_HUB_DISABLE_XET HF_XET_HIGH_PERFORMANCE
    HF_HUB_DISABLE_TELEMETRY DO_NOT_TRACK TRANSFORMERS_OFFLINE TOKENIZERS_PARALLELISM
    HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy
    OMP_NUM_THREADS OMP_WAIT_POLICY KMP_BLOCKTIME KMP_AFFINITY CPU_VISIBLE_MEMORY_NODES
    CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_MODULE_LOADING PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF
    NCCL_DEBUG NCCL_SOCKET_IFNAME NCCL_IB_HCA NCCL_IB_DISABLE NCCL_IB_GID_INDEX NCCL_P2P_DISABLE NCCL_P2P_LEVEL
    NCCL_SHM_DISABLE NCCL_CUMEM_ENABLE NCCL_NVLS_ENABLE NCCL_NET NCCL_NET_GDR_LEVEL NCCL_TIMEOUT GLOO_SOCKET_IFNAME
    TORCH_LOGS TORCH_NCCL_ASYNC_ERROR_HANDLING TORCHINDUCTOR_COMPILE_THREADS
    OMPI_MCA_btl_vader_single_copy_mechanism LOG_LEVEL_ALL ENABLE_CONSOLE FUSER_ENABLE_MULTI_THREADED_INVOCATIONS
    EXPERIMENTAL_WEIGHT_SHARING FP8_DATASET_PATH
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL OTEL_SERVICE_NAME S3_ENDPOINT_URL AWS_ENDPOINT_URL AWS_REGION NO_COLOR TZ
"""

# What OpenTelemetry reads by itself. The headers that a collector may ask for are left out: they hold its key.
OPENTELEMETRY = """
    OTEL_EXPORTER_OTLP_ENDPOINT OTEL_SDK_DISABLED OTEL_SERVICE_NAME OTEL_RESOURCE_ATTRIBUTES
    OTEL_TRACES_SAMPLER OTEL_TRACES_SAMPLER_ARG
"""

_HEADER = """\
# Written by `python -m compose.write_settings` from engine/catalogs/ and the service's settings: change it there.
# Names without values: Compose passes each one that the shell or an --env-file sets, and the shell wins.
"""


def image_names() -> set[str]:
    """What the images set by ENV. A name that is listed and has no value would take the image's value away."""
    texts = [path.read_text(encoding="utf-8") for path in HERE.parent.glob("Dockerfile.*")]
    blocks = [block for text in texts for block in re.findall(r"^ENV (?:.*\\\n)*.*$", text, re.MULTILINE)]
    return {name for block in blocks for name in re.findall(r"(\w+)=", block)}


def engine_names() -> set[str]:
    """Every setting of every device's vLLM, with the aliases, and what the libraries below it read."""
    found = {names.MODEL, names.EXTRA_ARGS, names.DEVICE, names.FP8, names.FORCE, "VLLM_MODEL", *names.ALIASES}
    found |= {*NATIVE.split()}
    for path in sorted(catalog.TRACKED.glob("*.json")):
        known = catalog.parse(path.read_text(encoding="utf-8"))
        found |= {*known.by_setting, *(name for name in known.variables if name.startswith("VLLM_"))}
    for device in devices.names():
        found |= {*devices.load(device).VARIABLES, *devices.load(device).STALE}
    return found - _SETTLED - image_names()


def service_names() -> set[str]:
    """Every setting of the service that Compose does not settle."""
    own = {str(field.alias) for field in Settings.model_fields.values()}
    return (own | {*OPENTELEMETRY.split()}) - _SETTLED_FOR_SERVICE


def host_names() -> set[str]:
    """Every name that the Compose files read for themselves: ports, images, what the containers may use."""
    texts = [path.read_text(encoding="utf-8") for path in HERE.glob("*.yaml") if path != TARGET]
    return {name for text in texts for name in re.findall(r"\$\{([A-Za-z_]\w*)", text)} - set(names.SECRETS)


def kit_names() -> set[str]:
    """Every name beginning with BERTH_ or LLM_ that any part of the kit reads; another one is a typo."""
    sources = [path for folder in ("berth", "engine") for path in (HERE.parent / folder).rglob("*.py")]
    sources += [path for path in HERE.glob("*.yaml") if path != TARGET]
    written = {name for path in sources for name in re.findall(r"\bBERTH_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    return written | {name for name in host_names() | set(loading.OURS) if name.startswith("LLM_")}


def text() -> str:
    """The whole file."""
    indent = " " * 8
    kit = fill(" ".join(sorted(kit_names())), 118, initial_indent=indent, subsequent_indent=indent)
    return (
        f"{_HEADER}x-settings: &settings\n{_keys(engine_names(), 2)}"
        f"services:\n  prepare:\n    environment:\n      <<: *settings\n      BERTH_NAMES: >-\n{kit}\n"
        f"  engine:\n    environment: *settings\n"
        f"  llm:\n    environment:\n{_keys(service_names(), 6)}"
    )


def _keys(found: Iterable[str], indent: int) -> str:
    return "".join(f"{' ' * indent}{name}:\n" for name in sorted(found))


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    sys.stderr.write(f"{TARGET.relative_to(HERE.parent)}: {len(engine_names())} names of the engine\n")
