"""`berth doctor --runtime slurm`: what a deployment would find on the cluster, one check after another."""

from collections.abc import Iterator

from berth.doctor import Finding
from berth.errors import BerthError
from berth.slurm import checks, refusals
from berth.slurm.cluster import Cluster
from berth.slurm.site import Site
from berth.slurm.store import Store
from engine import devices

SCOPE = "slurm"
_WRITABLE = 'mkdir -p -m 700 -- "$1" && [ -w "$1" ] && df -Pk "$1" | tail -n 1'


def examine(store: Store, device: str | None, required: bool) -> Iterator[Finding]:
    """The checks, each on what the ones before it found. Raises nothing that a check can say."""
    cluster, site = store.cluster, store.site
    yield Finding(SCOPE, "site file", True, site.shown if site.file else "none: the cluster's defaults are used")
    try:
        version = cluster.run(["sbatch", "--version"]).stdout.strip()
    except BerthError as error:
        problem = error.problems[0]
        yield Finding(SCOPE, "login node", False, problem.sentence, problem.hint, required)
        return
    where = f"{version} on {cluster.destination or 'this machine'}"
    yield Finding(SCOPE, "login node and sbatch", True, where, required=required)
    yield _partition(cluster, site, required)
    yield _accepted(cluster, site, required)
    yield _store(store, required)
    yield from _images(store, device, required)


def _partition(cluster: Cluster, site: Site, required: bool) -> Finding:
    there = refusals.partitions(cluster)
    names = list(dict.fromkeys(each.name for each in there))
    missing = [name for name in site.partition.split(",") if name and name not in names]
    chosen = site.partition or next((each.name for each in there if each.default), "none")
    source = f"{site.where('partition')}SITE_PARTITION={site.partition}: " if missing else ""
    found = f"{source}no such partition" if missing else chosen
    return Finding(SCOPE, "partition", not missing, found, f"partitions here: {', '.join(names)}", required)


def _accepted(cluster: Cluster, site: Site, required: bool) -> Finding:
    """Slurm's own opinion of account, partition, QOS and the rest, without a job."""
    words = [f"--{name}={value}" for name in ("account", "partition", "qos") if (value := getattr(site, name))]
    done = cluster.run(["sbatch", "--test-only", *words, "--wrap", "true"], check=False)
    said = (done.stderr.strip() or done.stdout.strip() or "accepted").splitlines()
    problem = refusals.sentence(done.stderr) if done.code else said[-1].removeprefix("sbatch: ")
    lines = ", ".join(f"{site.where(name)}SITE_{name.upper()}" for name in ("account", "partition", "qos"))
    return Finding(SCOPE, "a job would be accepted", done.code == 0, problem, f"look at {lines}", required)


def _store(store: Store, required: bool) -> Finding:
    try:
        root = store.root
    except BerthError as error:
        return Finding(SCOPE, "store writable", False, error.problems[0].sentence, error.problems[0].hint, required)
    done = store.cluster.run(["sh", "-c", _WRITABLE, "sh", root], check=False)
    cells = done.stdout.split()
    free = f", {int(cells[3]) / 1024**2:.0f} GiB free" if len(cells) > 3 and cells[3].isdigit() else ""
    remedy = "set SITE_SCRATCH to a directory of yours that login and compute nodes share"
    return Finding(SCOPE, "store writable", done.code == 0, root + free, remedy, required)


def _images(store: Store, device: str | None, required: bool) -> Iterator[Finding]:
    cluster, site = store.cluster, store.site
    program = checks.apptainer(cluster, site)
    done = cluster.run([*program, "--version"], check=False)
    version = done.stdout.strip() if done.code == 0 else "none on the login node (compute nodes may have it)"
    yield Finding(SCOPE, "Apptainer", done.code == 0, version, "set SITE_MODULE or SITE_APPTAINER in the site file")
    for name in (device,) if device else devices.names():
        sif = store.sif(name)
        there = cluster.run(["test", "-r", sif], check=False).code == 0
        asked = required and bool(device)
        yield Finding(SCOPE, f"image for {name}", there, sif if there else "none", f"scripts/berth sif {name}", asked)
        if not there or done.code:
            continue
        for problem in checks.image_problems(sif, name, cluster, site):
            yield Finding(SCOPE, f"image for {name}", False, problem.sentence, problem.hint, asked)
        tried = cluster.run([*program, "exec", sif, "true"], check=False, timeout_s=120)
        why = "yes" if tried.code == 0 else tried.last
        remedy = "user namespaces or FUSE are off here: ask for them, or for Apptainer's setuid installation"
        yield Finding(SCOPE, f"image for {name} runs here", tried.code == 0, why, remedy)
