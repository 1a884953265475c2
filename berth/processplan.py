"""The plan of a deployment as plain processes: what the supervisor is to run, and in which environment."""

import os
import sys
from pathlib import Path
from typing import Any

from berth.deployment import Deployment
from berth.host.installing import engine_directory
from berth.paths import ROOT, RUN, shown
from berth.runtimes import ENGINE, SERVICE, local_url
from engine import names
from engine.decisions import SHUTDOWN_TIMEOUT_S

ENGINE_GRACE_S = SHUTDOWN_TIMEOUT_S + 15  # the drain, and the teardown of vLLM's workers after it
SERVICE_GRACE_S = 15
PHASE_FILE = RUN / "phase.json"
LOOPBACK = "127.0.0.1"  # the service is the door; the engine is for this machine alone


def environ(deployment: Deployment) -> dict[str, str]:
    """The merged environment. BERTH_CACHE means what it means in Compose where it is a path: the hub's home."""
    merged = deployment.environ
    cache = merged.get("BERTH_CACHE", "")
    if "/" in cache and not merged.get("HF_HOME"):
        merged["HF_HOME"] = str(Path(cache).expanduser().absolute())
    return merged


def plan(deployment: Deployment) -> dict[str, Any]:
    """What the supervisor runs. No secret and no setting is in it: those are in its environment."""
    engine = local_url(LOOPBACK, deployment.engine_port)
    service = local_url(deployment.address, deployment.service_port, tls=bool(deployment.certificate))
    return {
        "children": [_engine(deployment, engine), _service(deployment, engine, service)],
        "deployment": {
            "device": deployment.device,
            "model": deployment.model,
            "files": [shown(file) for file in deployment.files],
            "service": service,
            "certificate": deployment.certificate,
            "engine": engine,
        },
    }


def _engine(deployment: Deployment, url: str) -> dict[str, Any]:
    python = engine_directory(deployment.device) / "bin" / "python"
    return {
        "name": ENGINE,
        "argv": [str(python), "-P", "-m", "engine.serve"],
        "cwd": str(ROOT),
        "environ": {
            names.HOST: LOOPBACK,
            names.DEVICE: deployment.device,
            names.PHASE_FILE: str(PHASE_FILE),
            # The engine's own programs (ninja, for one) first; nothing of the shell's Python.
            "PATH": f"{python.parent}{os.pathsep}{deployment.value('PATH', os.defpath)}",
            "PYTHONPATH": None,
            "PYTHONHOME": None,
        },
        "ready_url": f"{url}/health",
        "grace_s": ENGINE_GRACE_S,
    }


def _service(deployment: Deployment, engine: str, url: str) -> dict[str, Any]:
    return {
        "name": SERVICE,
        "argv": [sys.executable, "-P", "-m", "llm_service"],
        "cwd": str(ROOT / "microservice"),
        "environ": {
            "LLM_USVC_HOST": deployment.address,
            "LLM_USVC_PORT": str(deployment.service_port),
            "LLM_VLLM_ENDPOINT": engine,
            names.PHASE_FILE: str(PHASE_FILE),
            names.HF_TOKEN: None,  # the service downloads nothing
        },
        "ready_url": f"{url}/health",
        "certificate": deployment.certificate,
        "grace_s": SERVICE_GRACE_S,
    }
