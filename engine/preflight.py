"""What this machine lacks for these settings, found before vLLM is imported."""

import os
from pathlib import Path

from engine import devices, host, hub, model, names, nodes, ranks
from engine.decisions import Situation
from engine.messages import Exit, Problem
from engine.writable import is_writable

GIB = 1 << 30
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (only named)


def check(situation: Situation, device: str) -> list[Problem]:
    """Return what is missing; asks the hub only for a model that is not on this machine."""
    found = devices.load(device).preflight(situation)
    found += [*ranks.problems(situation), *nodes.problems(situation)]
    found += _too_many_ranks(situation, device)
    found += _shared_memory(situation)
    if situation.model is not None:
        found += _model(situation.model, situation)
    return found


def _too_many_ranks(situation: Situation, device: str) -> list[Problem]:
    visible = devices.load(device).visible_devices(situation.environ)
    nodes, here = situation.number("nnodes"), ranks.here(situation)
    if (
        visible is None
        or visible == 0
        or here <= visible
        or situation.values.get("distributed-executor-backend") == "ray"
    ):
        return []
    return [
        Problem(
            f"VLLM_TP_SIZE x VLLM_PP_SIZE asks for {here} devices; visible here: {visible}",
            f"set VLLM_TP_SIZE={visible}, or give the engine more devices"
            if nodes == 1
            else f"give each of the {nodes} nodes {here} devices, or spread the model over more nodes",
        )
    ]


def _shared_memory(situation: Situation) -> list[Problem]:
    """1 GiB and 1 GiB for each rank: vLLM's workers on one machine talk through /dev/shm, and hang or die without."""
    workers = min(ranks.here(situation), situation.number("tensor-parallel-size"))
    free = host.shared_memory_free()
    needed = (1 + workers) * GIB
    if workers <= 1 or free is None or free >= needed:
        return []
    return [
        Problem(
            f"{SHARED_MEMORY} has {free / GIB:.2f} GiB free; {workers} tensor parallel workers need {needed // GIB}",
            f"give the container `--shm-size {needed // GIB}g` (Compose: BERTH_SHM_SIZE={needed // GIB}gb),"
            " or on Kubernetes an emptyDir with medium Memory there",
            Exit.MISSING_PREREQUISITE,
        )
    ]


def _model(name: str, situation: Situation) -> list[Problem]:
    if "://" in name:  # an object store; vLLM's loader knows how to ask there
        return []
    if model.is_path(name):
        return _folder(name)
    if model.find(name, situation.environ, situation.values) is not None:
        return []
    if {"VLLM_USE_MODELSCOPE", "VLLM_MODEL_REDIRECT_PATH"} & situation.environ.keys():
        return []
    return _download(name, situation)


def _folder(name: str) -> list[Problem]:
    path = Path(os.path.expanduser(name))
    hint = f"set {names.MODEL} to a folder that is there (in a container: mounted), or to a name on the hub"
    if not os.path.exists(path):
        return [Problem(f"{names.MODEL}: {name} does not exist", hint)]
    described = any((path / file).is_file() for file in ("config.json", "params.json"))
    if path.is_dir() and not described and not any(path.glob("*.gguf")):
        return [Problem(f"{names.MODEL}: {name} holds no model: no config.json in it", hint)]
    return []


_STORED_ELSEWHERE = f"serve the built-in model with {names.MODEL}={names.DEMO}, or a folder with the model's files"


def _download(name: str, situation: Situation) -> list[Problem]:
    environ = situation.environ
    name = "/".join(name.split("/")[:2]).partition(":")[0]  # of org/name:variant or org/name/file.gguf, the repository
    if hub.is_offline(environ):
        return [Problem(f"{name} is not in the model cache, and HF_HUB_OFFLINE forbids to fetch it", _STORED_ELSEWHERE)]
    answer = hub.ask(name, environ)
    has_token = hub.token(environ) is not None
    if not answer.reachable:
        endpoint = environ.get("HF_ENDPOINT") or "https://huggingface.co"
        found = [
            Problem(
                f"{name} is not in the model cache, and {endpoint} does not answer",
                _STORED_ELSEWHERE,
                Exit.MISSING_PREREQUISITE,
            )
        ]
        return found if has_token or not name.startswith(hub.GATED) else [_needs_token(name)]
    if answer.gated and not has_token:
        return [_needs_token(name)]
    if answer.status in (401, 403, 404):
        return [_refused(name, answer.status, has_token)]
    return _space(name, answer.size, situation)


def _needs_token(name: str) -> Problem:
    return Problem(
        f"{name} is gated on the hub, and there is no token",
        f"accept its licence at https://huggingface.co/{name}, then set {names.HF_TOKEN} or {names.HF_TOKEN_PATH}",
    )


def _refused(name: str, status: int, has_token: bool) -> Problem:
    if has_token:
        return Problem(
            f"the hub does not give {name} to this token (HTTP {status})",
            "check the spelling, accept the model's licence on the hub, and see that the token may read it",
        )
    return Problem(
        f"the hub has no model {name} that is open to everyone (HTTP {status})",
        f"check the spelling; a private or gated model needs {names.HF_TOKEN} or {names.HF_TOKEN_PATH}",
    )


def _space(name: str, size: int | None, situation: Situation) -> list[Problem]:
    target = situation.values.get("download-dir") or str(model.hub_cache(situation.environ))
    if not is_writable(Path(target)):
        return [
            Problem(
                f"{target} is not writable, and {name} is still to be downloaded",
                f"make it writable for uid {os.getuid()}, or set HF_HOME to another folder",
                Exit.MISSING_PREREQUISITE,
            )
        ]
    free = host.disk_free(Path(target))
    if size is None or free is None or size <= free:
        return []
    return [
        Problem(
            f"{name} takes {size / GIB:.1f} GiB, and {target} has {free / GIB:.1f} GiB free",
            "make room, or set HF_HOME to a folder on a larger disk",
            Exit.MISSING_PREREQUISITE,
        )
    ]
