"""Why a job waits: squeue's reason, in words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """What it means, what helps, and whether waiting helps."""

    words: str
    remedy: str = ""
    hopeless: bool = False


_LIMIT = "another job of yours must end first, or ask for a higher limit"
_KNOWN = {
    "None": Reason("the scheduler has not looked at it yet"),
    "Priority": Reason("jobs of higher priority are before it"),
    "Resources": Reason("it is next, and waits for nodes to become free"),
    "Dependency": Reason("it starts some time after the job before it"),
    "BeginTime": Reason("it was put back, and starts again after Slurm's pause of two minutes"),
    "JobHeldUser": Reason("it is held", "scontrol release JOB"),
    "JobHeldAdmin": Reason("an administrator holds it", "ask the cluster's support"),
    "Licenses": Reason("it waits for a license"),
    "ReqNodeNotAvail": Reason("the nodes that it needs are down, reserved or in maintenance", "sinfo -R says why"),
    "Reservation": Reason("it waits for its reservation"),
    "NodeDown": Reason("a node that it needs is down"),
    "PartitionDown": Reason("the partition is closed", "choose another SITE_PARTITION"),
    "PartitionInactive": Reason("the partition is closed", "choose another SITE_PARTITION"),
    "PartitionTimeLimit": Reason(
        "its walltime is more than the partition allows", "give a shorter --time; limits: sinfo -o '%P %l'", True
    ),
    "PartitionNodeLimit": Reason("it asks for more nodes than the partition gives", "give a smaller --nodes", True),
    "BadConstraints": Reason("no node has what it asks for", "sinfo -o '%P %D %c %m %G %f' says what there is", True),
    "DependencyNeverSatisfied": Reason("the job before it never started", "berth stop, then up again", True),
    "AccountNotAllowed": Reason("the account may not use this partition", "set SITE_ACCOUNT or SITE_PARTITION", True),
    "InvalidAccount": Reason("there is no such account", "set SITE_ACCOUNT in the site file", True),
    "InvalidQOS": Reason("there is no such QOS", "set SITE_QOS in the site file", True),
    "launch failed requeued held": Reason("a node failed to start it, and Slurm holds it", "scontrol release JOB"),
}
_PREFIXES = (
    ("QOSMax", Reason("the QOS allows no more at a time", _LIMIT)),
    ("QOSGrp", Reason("the QOS is used up by its users", _LIMIT)),
    ("QOS", Reason("a limit of the QOS holds it", _LIMIT)),
    ("AssocMax", Reason("your account allows no more at a time", _LIMIT)),
    ("AssocGrp", Reason("your account's share is used up", _LIMIT)),
    ("Assoc", Reason("a limit of your account holds it", _LIMIT)),
    ("MaxJobs", Reason("you have as many jobs as are allowed", _LIMIT)),
    ("ReqNodeNotAvail", _KNOWN["ReqNodeNotAvail"]),
)


def explain(reason: str) -> Reason:
    """The meaning of squeue's word; one that is not known here stands for itself."""
    if known := _KNOWN.get(reason or "None"):
        return known
    prefix = next((meaning for start, meaning in _PREFIXES if reason.startswith(start)), None)
    return prefix or Reason(f"Slurm's reason is {reason}")
