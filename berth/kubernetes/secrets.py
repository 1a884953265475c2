"""The Secrets of a deployment, from files and from the shell: sent on kubectl's standard input, and shown nowhere."""

import base64
import json
from pathlib import Path

from berth.deployment import Deployment
from berth.errors import Exit, Problem, failed
from engine import names

# As kubernetes/base names them: what the engine reads, and the keys of the service's clients.
ENGINE, CLIENTS = "berth-engine", "berth-clients"
MANAGER = "berth"
_FILES = {names.HF_TOKEN: "hf_token", names.API_KEY: "vllm_api_key"}
_PATHS = {names.HF_TOKEN: names.HF_TOKEN_PATH, names.API_KEY: names.API_KEY_FILE}


def of(deployment: Deployment) -> dict[str, dict[str, str]]:
    """Each Secret's content by its name; those that hold nothing are left out.

    Raises BerthError (exit code 2) for a file that cannot be read.
    """
    engine = {file: text for name, file in _FILES.items() if (text := _text(deployment, name))}
    if path := deployment.value(names.STORE_KEYS):
        engine["aws_credentials"] = _read(deployment, names.STORE_KEYS, path)
    keys = deployment.value("LLM_API_KEYS_FILE")
    clients = {"llm_api_keys": _read(deployment, "LLM_API_KEYS_FILE", keys)} if keys else {}
    return {name: content for name, content in ((ENGINE, engine), (CLIENTS, clients)) if content}


def misplaced(deployment: Deployment) -> list[Problem]:
    """Secrets that no file carries: they would have to stand in a ConfigMap."""
    hint = f"rename a token to {names.HF_TOKEN}; put an object store's keys into a file that {names.STORE_KEYS} names"
    return [
        Problem(f"{deployment.where(name)}{name} would stand open in the cluster", hint)
        for name in names.SECRETS
        if name not in _FILES and deployment.value(name)
    ]


def manifest(secrets: dict[str, dict[str, str]]) -> str:
    """What `kubectl apply -f -` reads."""
    labels = {"app.kubernetes.io/part-of": "berth", "app.kubernetes.io/managed-by": MANAGER}
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": labels},
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in content.items()},
        }
        for name, content in secrets.items()
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _text(deployment: Deployment, name: str) -> str:
    if value := deployment.value(name):
        return value
    path = deployment.value(_PATHS[name])
    return _read(deployment, _PATHS[name], path).strip() if path else ""


def _read(deployment: Deployment, name: str, path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        sentence = f"{deployment.where(name)}{name}={path} cannot be read: {reason}"
        raise failed(sentence, "name a file of this machine; it is sent as a Secret", Exit.BAD_SETTING) from error
