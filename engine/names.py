"""Setting names that no rule gives: aliases, this project's own, and names that are no settings at all."""

import re

MODEL = "LLM_VLLM_MODEL_NAME"
PORT = "LLM_VLLM_PORT"
HOST = "LLM_VLLM_HOST"
EXTRA_ARGS = "LLM_VLLM_EXTRA_ARGS"
DEVICE = "LLM_DEVICE"
FP8 = "IF_FP8_QUANTIZATION"
API_KEY = "VLLM_API_KEY"
API_KEY_FILE = "VLLM_API_KEY_FILE"
HF_TOKEN = "HF_TOKEN"
HF_TOKEN_PATH = "HF_TOKEN_PATH"
FORCE = "LLM_VLLM_FORCE"
STORE_KEYS = "AWS_SHARED_CREDENTIALS_FILE"

# Names that users of Intel's kit already have, and the flag that each stands for.
ALIASES = {
    PORT: "port",
    HOST: "host",
    "VLLM_TP_SIZE": "tensor-parallel-size",
    "VLLM_PP_SIZE": "pipeline-parallel-size",
}

# Read by the launcher itself; none of them reaches vLLM under its own name.
OWN = frozenset({MODEL, EXTRA_ARGS, DEVICE, FP8, API_KEY_FILE, FORCE})

# Read by the service in front of the engine; one env file serves both, so the engine lets them pass.
OF_THE_SERVICE = frozenset({"LLM_VLLM_ENDPOINT"})

# Read by the launcher, by vLLM's processes through engine.announce, and by the service.
PHASE_FILE = "LLM_PHASE_FILE"

# Flags that carry a secret: an argument list is visible to every user of a machine.
SECRET_FLAGS = {"api-key": f"{API_KEY} or {API_KEY_FILE}", "hf-token": f"{HF_TOKEN} or {HF_TOKEN_PATH}"}
SECRETS = (
    HF_TOKEN,
    API_KEY,
    "VLLM_HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "S3_SECRET_ACCESS_KEY",
    "AWS_SECRET_ACCESS_KEY",
)

# One of these tells a program that it runs in an Apptainer (or Singularity) container.
APPTAINER = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")

DEFAULT_PORT = "8008"
DEFAULT_HOST = "127.0.0.1"
DEMO = "demo"

# What Kubernetes (and Docker links) inject into a container for a service called vllm or llm-vllm.
_INJECTED = re.compile(
    r"(?:VLLM|LLM_VLLM)(?:_[A-Z0-9_]+)?"
    r"(?:_SERVICE_HOST|_SERVICE_PORT(?:_[A-Z0-9_]+)?|_PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://")


def is_setting_like(name: str) -> bool:
    """Whether the launcher answers for this name: a typo in it is an error."""
    return name.startswith(("VLLM_", "LLM_VLLM_"))


def is_injected(name: str, value: str) -> bool:
    """Whether Kubernetes put this variable here to announce a service."""
    if not is_setting_like(name):
        return False
    return bool(_INJECTED.fullmatch(name)) or (name.endswith("_PORT") and bool(_ADDRESS.match(value)))
