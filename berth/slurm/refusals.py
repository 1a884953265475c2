"""What sbatch refuses, with the line of the site file that it is about; and what can be known before asking it."""

import re
from dataclasses import dataclass

from berth.errors import Exit, Problem
from berth.slurm import durations
from berth.slurm.cluster import Cluster
from berth.slurm.queue import seconds
from berth.slurm.site import Site
from berth.slurm.submit import Plan
from berth.spread import GPUS_PER_NODE, NODES

# sbatch's words, the field of the site file that they are about, and what helps.
_ABOUT = (
    (r"invalid partition|Invalid partition", "partition", "partitions here: {partitions}"),
    (r"Invalid account", "account", "your accounts: {accounts}; the account must also be allowed in the partition"),
    (r"Invalid qos", "qos", "ask which QOS your account may use: sacctmgr show assoc user=$USER format=account,qos"),
    (r"Invalid feature|constraint", "constraint", "the features of the nodes: sinfo -o '%n %f'"),
    (r"time limit", "time", "give a shorter --time, or another SITE_PARTITION; limits: sinfo -o '%P %l'"),
    (r"Memory specification", "mem", "set SITE_MEM to what a node has: sinfo -o '%n %m'"),
    (r"Invalid generic resource|Invalid Trackable RESource|[Gg]res", "gres", "devices of the nodes: sinfo -o '%n %G'"),
    (r"More processors|CPU count|node count", "cpus_per_task", "what there is: sinfo -o '%P %D %c'"),
    (r"node configuration", "gres", "what there is: sinfo -o '%P %D %c %m %G'; asked for: {options}"),
    (r"unrecognized option|invalid option|Invalid.*specification", "sbatch", "asked for: {options}"),
)


@dataclass(frozen=True)
class Partition:
    """What sinfo says of one kind of node in a partition; None: without limit, or unknown."""

    name: str
    default: bool
    limit_s: int | None
    nodes: int
    gpus: int


def refused(said: str, plan: Plan, cluster: Cluster, site: Site) -> Problem:
    """sbatch's refusal in its own words, with the line of the site file and what helps. Exit code 2."""
    for pattern, name, hint in _ABOUT:
        if re.search(pattern, said):
            if name == "time" and plan.request.time_s:
                subject = "--time: "
            else:
                value = getattr(site, name)
                subject = f"{site.where(name)}SITE_{name.upper()}={value}: " if value else ""
            return Problem(f"{subject}Slurm says: {sentence(said)}", _filled(hint, plan, cluster), Exit.BAD_SETTING)
    return Problem(f"Slurm refuses the job: {sentence(said)}", f"asked for: {' '.join(plan.options)}", Exit.FAILED)


def sentence(said: str) -> str:
    """Slurm's own message without what stands before it."""
    lines = [line.partition("error: ")[2] or line for line in said.strip().splitlines()]
    known = [re.sub("^(Batch job submission|allocation) failed: ?(failure: )?", "", line) for line in lines]
    return next((line for line in known if line), "no message")


def _filled(hint: str, plan: Plan, cluster: Cluster) -> str:
    if "{partitions}" in hint:
        names = dict.fromkeys(each.name for each in partitions(cluster))
        return hint.format(partitions=", ".join(names) or "none")
    if "{accounts}" in hint:
        script = "sacctmgr --noheader --parsable2 show assoc user=$(id -un) format=account"
        said = cluster.run(["sh", "-c", script], check=False)
        return hint.format(accounts=", ".join(sorted(set(said.stdout.split()))) or "ask sacctmgr show assoc")
    return hint.format(options=" ".join(plan.options)) if "{options}" in hint else hint


def partitions(cluster: Cluster) -> list[Partition]:
    """The partitions that take jobs, one for each kind of node. Empty where sinfo does not say."""
    done = cluster.run(["sinfo", "--noheader", "-o", "%P|%l|%D|%G|%a"], check=False)
    found = []
    for line in done.stdout.splitlines():
        name, limit, nodes, gres, up, *_ = [*line.strip().split("|"), "", "", "", ""]
        if name and up == "up":
            count = int(nodes) if nodes.isdigit() else 0
            found.append(Partition(name.rstrip("*"), name.endswith("*"), seconds(limit), count, _gpus(gres)))
    return found


def _gpus(gres: str) -> int:
    """`gpu:a100:4(S:0-1),gpu:h100:2` has 6."""
    plain = re.sub(r"\([^)]*\)", "", gres)
    return sum(int(match[1]) for match in re.finditer(r"(?:^|,)gpu(?::[^:,]+)?:(\d+)", plain))


def foreseen(plan: Plan, cluster: Cluster, site: Site) -> list[Problem]:
    """What no node of the partition can give: Slurm may take such a job and let it wait for ever."""
    wanted = site.partition.split(",") if site.partition else []
    there = [each for each in partitions(cluster) if (each.name in wanted if wanted else each.default)]
    if not there:
        return []  # sbatch says what is wrong with the partition
    name = ",".join(dict.fromkeys(each.name for each in there))
    problems = []
    limits = [each.limit_s for each in there]
    longest = max((link.time_s for link in plan.links), default=0)
    limit = max((each for each in limits if each is not None), default=0)
    if None not in limits and longest > limit:
        source = "--time" if plan.request.time_s else f"{site.where('time')}SITE_TIME"
        problems.append(
            Problem(
                f"{source}: {durations.words(longest)} is more than partition {name} allows ({durations.words(limit)})",
                f"give --time {durations.words(limit).replace(' ', '')}; "
                "--keep-alive goes on past it with one job after another",
            )
        )
    most = max(each.gpus for each in there)
    if plan.gpus > most > 0:
        problems.append(
            Problem(
                f"{plan.gpus} GPUs on each node are asked for, and a node of partition {name} has {most}",
                f"spread the model over nodes with --nodes or {NODES}, lower VLLM_TP_SIZE, or see {GPUS_PER_NODE}",
            )
        )
    nodes = sum(each.nodes for each in there)
    if plan.nodes > nodes:
        problems.append(
            Problem(f"{plan.nodes} nodes are asked for, and partition {name} has {nodes}", "give a smaller --nodes")
        )
    return problems
