"""What a person is shown of a submission before it happens, and of one that waits to be released."""

import shlex

from berth.deployment import Deployment
from berth.slurm import submit
from berth.slurm.cluster import Cluster
from berth.slurm.store import Deployed, Store
from berth.slurm.submit import Plan
from engine import credentials
from engine.messages import mask


def shown(argv: list[str], cluster: Cluster) -> str:
    """A command for the login node as a person would type it on this machine."""
    return (
        shlex.join(argv) if cluster.destination is None else shlex.join(["ssh", cluster.destination, shlex.join(argv)])
    )


def render(plan: Plan, deployment: Deployment, store: Store) -> str:
    """The sbatch commands, then each file that the job reads, secrets masked."""
    files = submit.files(deployment, store.site)
    parts = [shown(argv, store.cluster) for argv in plan.commands()]
    for name in ("job.env", "site.env", "job/serve.sbatch"):
        text = files.get(name, (b"", 0))[0].decode(errors="replace").rstrip("\n")
        parts += ["", f"# ---- {plan.directory}/{name}", text]
    parts += ["", f"# ---- {plan.directory}: api_key, hf_token (0600, not shown), and below job/:"]
    parts += [f"#   {name}" for name in files if name.startswith("job/")]
    return mask("\n".join(parts), credentials.secrets(deployment.environ))


def held(deployed: Deployed) -> str:
    """What is said of jobs that --hold keeps in the queue."""
    job = deployed.jobs[0]
    return (
        f"\njob {job} is held. Let it start:  scontrol release {job}\n"
        f"  then come back:  scripts/berth connect {deployed.name}\n"
        f"  or drop it:      scripts/berth stop {deployed.name}\n"
    )


def farewell(name: str) -> str:
    """The verbs to come back with."""
    return (
        f"\n  how it is:  scripts/berth status --name {name}\n"
        f"  back here:  scripts/berth connect {name}\n"
        f"  end it:     scripts/berth stop {name}\n"
    )
