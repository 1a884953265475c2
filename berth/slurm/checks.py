"""What is looked at on the cluster before a job is submitted: the store, the image, the models."""

import re

from berth.deployment import Deployment
from berth.errors import Exit, Problem
from berth.slurm.cluster import Cluster
from berth.slurm.site import Site
from berth.slurm.store import Store
from berth.slurm.submit import Plan

# One trip for all: each line that comes back is something that is wrong.
_LOOK = """
mkdir -p -m 700 -- "$1" 2>/dev/null; [ -w "$1" ] && [ -x "$1" ] || echo store
[ -e "$2" ] || echo no-sif; [ ! -e "$2" ] || [ -r "$2" ] || echo sif
[ -z "$3" ] || { [ -d "$3" ] && [ -r "$3" ] && [ -x "$3" ]; } || echo models
case $4 in /*) [ -r "$4/config.json" ] || [ -f "$4" -a -r "$4" ] || echo model ;; esac
"""
_FREE = 'd=$1; while [ ! -d "$d" ]; do d=$(dirname "$d"); done; df -Pk "$d"'
_WEIGHTS = "find -L {} -maxdepth 3 ( -name *.safetensors -o -name *.bin -o -name *.gguf -o -name *.pt )"


def models_dir(deployment: Deployment, store: Store) -> str:
    """The model store: SITE_MODELS, else BERTH_CACHE where that is a path, else the store's own."""
    cache = deployment.value("BERTH_CACHE")
    return store.site.models or (cache if cache.startswith("/") else f"{store.root}/models")


def problems(plan: Plan, deployment: Deployment, store: Store) -> list[Problem]:
    """What stands in the way on the cluster's file system; exit code 3."""
    given = models_dir(deployment, store)
    said = store.cluster.run(
        ["sh", "-c", _LOOK, "sh", store.root, plan.sif, given if store.site.models else "", deployment.model]
    ).stdout.split()
    device, site = deployment.device, store.site
    texts = {
        "store": (
            f"{site.where('scratch')}the store {store.root} cannot be written",
            "set SITE_SCRATCH in the site file to a directory of yours that login and compute nodes share",
        ),
        "no-sif": (f"there is no image {plan.sif}", f"make it: scripts/berth sif {device}"),
        "sif": (
            f"the image {plan.sif} cannot be read",
            "it must be yours, or readable for you: ls -l says whose it is",
        ),
        "models": (
            f"{site.where('models')}SITE_MODELS={given}: not a directory that you can read",
            "ask its owner for read and search permission (rx), or leave SITE_MODELS out",
        ),
        "model": (
            f"{deployment.where('LLM_VLLM_MODEL_NAME')}{deployment.model} is no model folder that the cluster can read",
            "give the path that the compute nodes know, of a folder with config.json",
        ),
    }
    found = [Problem(*texts[word], Exit.MISSING_PREREQUISITE) for word in said if word in texts]
    return found or image_problems(plan.sif, device, store.cluster, site)


def image_problems(sif: str, device: str, cluster: Cluster, site: Site) -> list[Problem]:
    """Whether an image is for the device and for the nodes' processor, as far as its labels say; exit code 3."""
    found = labels(sif, cluster, site)
    remedy = f"make the right one: scripts/berth sif {device} --force"
    if (made := found.get("berth.device", device)) != device:
        return [Problem(f"{sif} is an image for {made}, not for {device}", remedy, Exit.MISSING_PREREQUISITE)]
    names = {"amd64": "x86_64", "arm64": "aarch64"}
    built = names.get(found.get("org.label-schema.build-arch", ""), "")
    said = cluster.run(["scontrol", "--oneliner", "show", "nodes"], check=False).stdout
    nodes = set(re.findall(r"\bArch=(\S+)", said))
    if built and nodes and built not in nodes:
        here = ", ".join(sorted(nodes))
        return [Problem(f"{sif} is an image for {built}, and the nodes are {here}", remedy, Exit.MISSING_PREREQUISITE)]
    return []


def labels(sif: str, cluster: Cluster, site: Site) -> dict[str, str]:
    """An image's labels; none where the login node has no Apptainer."""
    done = cluster.run([*apptainer(cluster, site), "inspect", "--labels", sif], check=False)
    pairs = (line.partition(": ") for line in done.stdout.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs} if done.code == 0 else {}


def apptainer(cluster: Cluster, site: Site) -> list[str]:
    """The beginning of a command that runs Apptainer on the login node, through the site's module if it has one."""
    pick = 'p=${1:-$(command -v apptainer || command -v singularity || echo apptainer)}; shift; exec "$p" "$@"'
    if site.module:
        return ["bash", "-lc", f"module load $0 >/dev/null 2>&1; {pick}", site.module, site.apptainer]
    return ["bash", "-c", pick, "bash", site.apptainer]


def has_model(deployment: Deployment, store: Store) -> bool:
    """Whether the model store holds weights of the model and nothing of it is still on its way."""
    place = f"{models_dir(deployment, store)}/hub/models--{deployment.model.replace('/', '--')}"
    if any(name.endswith(".incomplete") for name in store.cluster.listdir(f"{place}/blobs")):
        return False
    words = [place + "/snapshots" if word == "{}" else word for word in _WEIGHTS.split()]
    return bool(store.cluster.run(words, check=False).stdout.strip())


def free_bytes(deployment: Deployment, store: Store) -> int | None:
    """Free space where the model store is, or would be."""
    said = store.cluster.run(["sh", "-c", _FREE, "sh", models_dir(deployment, store)], check=False).stdout
    cells = said.splitlines()[-1].split() if said.strip() else []
    return int(cells[3]) * 1024 if len(cells) > 3 and cells[3].isdigit() else None
