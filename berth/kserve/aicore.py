"""SAP AI Core: a ServingTemplate (`ai.sap.com/v1alpha1`), which wraps the spec of a KServe InferenceService.

AI Core fills `{{inputs.…}}` from its configuration, lets containers run as nobody only, and asks clients for its token
before anything reaches them. Sources: SAP's API schema spec of ai.sap.com/v1alpha1, "Serving Templates" and
"Kubernetes Security" of its service guide (github.com/SAP-docs/sap-artificial-intelligence).
"""

import re
from datetime import datetime
from typing import Any

from berth import handed
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, Problem, failed
from berth.kserve import naming, plans
from berth.kserve.manifests import Block, dump
from berth.paths import ROOT
from berth.spread import gpus_per_node
from engine import names

IMAGE = "aicore-vllm"
NOBODY = 65534  # the only user and group that AI Core lets a container run as
HOME = "/nonexistent"  # nobody's home in the images' passwd; a volume is mounted there
MODELS = "/mnt/models"  # where KServe's storage initializer puts what STORAGE_URI names
SCENARIO = "berth"
# Knative cuts a reply after its revision's timeout, 300 s unless said; it refuses more than 600.
REPLY_S = 600


def render(deployment: Deployment) -> str:
    """The template, with how to bring image and model there. Raises BerthError (exit code 2) for what cannot be."""
    template = serving_template(deployment)
    image = template["spec"]["inputs"]["parameters"][0]["default"]
    plan = plans.smallest(deployment.device, gpus_per_node(deployment, 1) or 1)
    notes = [f"Resource plan {plan.id}: {plan.words()}. It is a parameter; what the model needs: scripts/berth plan"]
    notes += [f"The image:  docker tag {_built(deployment)} {image} && docker push {image}"]
    if "artifacts" in template["spec"]["inputs"]:
        model = naming.flat(deployment.model)
        notes += [f"The model:  scripts/berth fetch {deployment.model} --tar {model}", *_to_the_store(deployment)]
    if left := sorted(name for name, setting in deployment.settings.items() if setting.value and _of_service(name)):
        notes += [f"Without effect here, where AI Core's gateway stands before vLLM itself: {', '.join(left)}"]
    return dump(template, notes=notes)


def _of_service(name: str) -> bool:
    own = name in (*names.OWN, names.PHASE_FILE) or name.startswith("LLM_VLLM_")
    return name in ("BIND_ADDR", names.API_KEY) or (name.startswith("LLM_") and not own)


def _to_the_store(deployment: Deployment) -> list[str]:
    model = naming.flat(deployment.model)
    revision = deployment.value("VLLM_REVISION")[:7] or "REVISION"
    return [f"            aws s3 cp {model}.tar s3://BUCKET/models/{deployment.short_name}/{revision}/"]


def serving_template(deployment: Deployment) -> dict[str, Any]:
    """The document. Raises BerthError (exit code 2)."""
    name = naming.template(deployment.model, deployment.value("VLLM_REVISION"))
    inputs: dict[str, Any] = {"parameters": _parameters(deployment)}
    if artifact := _artifact(deployment):
        inputs["artifacts"] = [{"name": artifact}]
    kind = {f"artifacts.ai.sap.com/{artifact}.kind": "model"} if artifact else {}
    return {
        "apiVersion": "ai.sap.com/v1alpha1",
        "kind": "ServingTemplate",
        "metadata": {
            "name": name,
            "annotations": {
                "scenarios.ai.sap.com/name": SCENARIO,
                "scenarios.ai.sap.com/description": "Open LLMs served by vLLM",
                "executables.ai.sap.com/name": name,
                "executables.ai.sap.com/description": f"{deployment.model}, OpenAI's API",
                **kind,
            },
            "labels": {
                "scenarios.ai.sap.com/id": SCENARIO,
                "executables.ai.sap.com/id": name,
                "ai.sap.com/version": "0.1.0",
            },
        },
        "spec": {
            "inputs": inputs,
            "template": {
                "apiVersion": "serving.kserve.io/v1beta1",
                "metadata": {
                    "labels": Block(dump({"ai.sap.com/resourcePlan": _parameter("resourcePlan")}) + "\n"),
                },
                "spec": Block(dump(_spec(deployment, artifact)) + "\n"),
            },
        },
    }


def _parameter(name: str) -> str:
    return f"{{{{inputs.parameters.{name}}}}}"


def _parameters(deployment: Deployment) -> list[dict[str, str]]:
    plan = plans.smallest(deployment.device, gpus_per_node(deployment, 1) or 1)
    served = deployment.value("VLLM_SERVED_MODEL_NAME", deployment.model)
    given = {
        "image": (_image(deployment), "Engine image in a registry that AI Core may pull from"),
        "resourcePlan": (plan.id, "Machine to run on"),
        "modelId": (deployment.model, "Name of the model on the Hugging Face hub"),
        "revision": (deployment.value("VLLM_REVISION"), "Commit of the model; empty: what its main was when packed"),
        "modelName": (served, "Name by which clients ask for the model"),
    }
    return [
        {"name": name, "type": "string", "default": value, "description": text} for name, (value, text) in given.items()
    ]


def _image(deployment: Deployment) -> str:
    """The image by AI Core's convention: REGISTRY/aicore-vllm:vDDMMYY-NN. Raises BerthError (exit code 2)."""
    registry, version = deployment.value("BERTH_REGISTRY"), deployment.value("BERTH_VERSION")
    hint = "in env/local.env, for instance: BERTH_REGISTRY=docker.io/you and BERTH_VERSION=v090124-01 (day, number)"
    problems = []
    if not registry:
        said = "BERTH_REGISTRY is not set: AI Core pulls the image from a registry"
        problems.append(Problem(said, hint, Exit.BAD_SETTING))
    if not _is_version(version):
        said = f"{deployment.where('BERTH_VERSION')}BERTH_VERSION={version}: images of AI Core are versioned vDDMMYY-NN"
        problems.append(Problem(said, hint, Exit.BAD_SETTING))
    if problems:
        raise BerthError(problems)
    return f"{registry.rstrip('/')}/{IMAGE}:{version}"


def _built(deployment: Deployment) -> str:
    """The engine's image as it is built here: what the device's Compose file says while nothing else is asked for."""
    text = (ROOT / "compose" / f"{deployment.device}.yaml").read_text(encoding="utf-8")
    found = re.search(r"image: (\S+)", text)
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", found[1]) if found else "IMAGE"


def _is_version(text: str) -> bool:
    found = re.fullmatch(r"v(\d{6})-(\d\d)", text, re.ASCII)
    try:
        return bool(found and datetime.strptime(found[1], "%d%m%y") and int(found[2]))
    except ValueError:
        return False


def _artifact(deployment: Deployment) -> str:
    """The model's artifact in AI Core; nothing for the built-in model. Raises BerthError (exit code 2)."""
    model = deployment.model
    if model == names.DEMO:
        return ""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model, re.ASCII):
        raise failed(
            f"{deployment.where(names.MODEL)}{names.MODEL}={model}: no name on the hub, so no artifact of AI Core",
            "name the model as the hub does; the artifact says in which object store it lies",
            Exit.BAD_SETTING,
        )
    return naming.artifact(model)


def _spec(deployment: Deployment, artifact: str) -> dict[str, Any]:
    """The InferenceService's spec: one container, whose name KServe looks for."""
    mounts = {"home": HOME, "shm": "/dev/shm"}  # noqa: S108 (shared memory of the tensor parallel workers)
    container = {
        "name": "kserve-container",
        "image": _parameter("image"),
        "workingDir": HOME,
        "ports": [{"containerPort": int(names.DEFAULT_PORT), "protocol": "TCP"}],
        "env": [{"name": name, "value": value} for name, value in _environ(deployment, artifact).items()],
        "readinessProbe": {"httpGet": {"path": "/health", "port": int(names.DEFAULT_PORT)}, "periodSeconds": 5},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["all"]},  # in small letters: AI Core compares
        },
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    volumes = [{"name": "home", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "9Gi"}}]
    return {
        "predictor": {
            "minReplicas": 1,
            "maxReplicas": 1,
            "timeout": REPLY_S,
            "enableServiceLinks": False,
            "imagePullSecrets": [{"name": "registry"}],
            "containers": [container],
            "volumes": volumes,
        }
    }


def _environ(deployment: Deployment, artifact: str) -> dict[str, str]:
    """The settings, as Kubernetes wants them written, and over them what is AI Core's."""
    given = {name: value for name, value in handed.to_a_pod(deployment).items() if not _of_service(name)}
    problems = [
        Problem(
            f"{deployment.where(name)}{name} holds '{{{{', which AI Core takes for a parameter of the template",
            "write a blank between the two braces",
            Exit.BAD_SETTING,
        )
        for name, value in given.items()
        if "{{" in value
    ]
    if problems:
        raise BerthError(problems)
    # Kubernetes reads $(NAME) in a value as another variable, and $$ as one $.
    settings = {name: value.replace("$", "$$") for name, value in given.items()}
    places = {"HOME": HOME, "HF_HOME": f"{HOME}/.cache/huggingface", "VLLM_CACHE_ROOT": f"{HOME}/.cache/vllm"}
    model = {
        names.MODEL: _parameter("modelId"),
        "VLLM_REVISION": _parameter("revision"),
        "VLLM_SERVED_MODEL_NAME": _parameter("modelName"),
    }
    # STORAGE_URI is what KServe's storage initializer looks for in a container of one's own.
    store = {"STORAGE_URI": f"{{{{inputs.artifacts.{artifact}}}}}", "HF_HUB_CACHE": MODELS, "HF_HUB_OFFLINE": "1"}
    return {
        **settings,
        **model,
        names.HOST: "0.0.0.0",
        names.PORT: names.DEFAULT_PORT,
        **places,
        **(store if artifact else {}),
    }
