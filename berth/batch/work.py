"""`berth batch`: look at the requests and at what is done already, have the rest answered, write the files."""

from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from berth import preflight, runtimes
from berth.batch import compose, local, native, slurm
from berth.batch.folder import Batch, Manifest, Outcome
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, failed
from berth.paths import shown
from berth.progress import Progress
from berth.runtimes import Runtime
from berth.runtimes.slurm import Runtime as Slurm
from engine import journal

_PLACES: dict[str, ModuleType] = {"compose": compose, "native": native}


@dataclass(frozen=True)
class Result:
    """A batch that is done."""

    batch: Batch
    outcome: Outcome

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        errors = str(self.batch.errors) if self.outcome.failed else None
        return {**asdict(self.outcome), "output": str(self.batch.output), "errors": errors}

    def words(self) -> str:
        """What a person reads."""
        lines = [f"{self.outcome.answered:,} answered: {shown(self.batch.output)}"]
        if self.outcome.failed:
            lines.append(f"{self.outcome.failed:,} failed: {shown(self.batch.errors)}")
            lines += [f"  {count:,} times: {why}" for why, count in self.outcome.reasons]
        return "\n".join(lines)


def place_of(runtime: Runtime) -> local.Place:
    """How a runtime of this machine runs the engine's programs."""
    return cast(local.Place, _PLACES[runtime.name])


def check(deployment: Deployment, runtime: Runtime, progress: Progress) -> Deployment:
    """Look at the machine and the model; from the cache where no hub answers. Raises BerthError.

    Unlike `up`, never with another model than the one that was named.
    """
    problems = preflight.device_problems(deployment) if runtime.local else []
    problems += runtime.problems(deployment)
    answer = preflight.ask_hub(deployment)
    if answer and not answer.reachable and runtime.has_model(deployment):
        progress.say(f"no model hub can be reached ({answer.why}): {deployment.model} comes from the cache")
        deployment = deployment.offline()
    elif answer:
        problems += preflight.hub_problems(deployment, runtime, answer)
    if problems:
        raise BerthError(problems)
    return deployment


def run(batch: Batch, deployment: Deployment, runtime: Runtime, progress: Progress) -> Result:
    """Answer what is left, and write the files. Raises BerthError; what is answered is kept for the next time."""
    with batch.held():
        manifest = batch.open(deployment.model, deployment.device)
        if manifest.complete:
            batch.tidy()
            progress.say("every request is done already")
            return Result(batch, Outcome(manifest.answered, manifest.failed))
        done = len(_places(batch))
        if manifest.refused:
            progress.say(f"{manifest.refused:,} of {manifest.requests:,} lines cannot be asked: {shown(batch.errors)}")
        if done > manifest.refused:
            progress.say(f"{done:,} of {manifest.requests:,} are done; going on")
        jobs = _answer(batch, manifest, deployment, runtime, progress) if done < manifest.requests else None
        if (missing := manifest.requests - len(_places(batch))) > 0:
            raise failed(f"{missing:,} requests have no answer", "run the same command again", Exit.FAILED)
        result = Result(batch, batch.finish(manifest))
        if jobs:
            jobs.remove()
        return result


def commands(batch: Batch, deployment: Deployment, runtime: Runtime) -> list[str]:
    """The exact command that answers, secrets masked."""
    if isinstance(runtime, Slurm):
        return [slurm.command(batch, batch.preview(deployment.model, deployment.device), deployment, runtime)]
    program = local.answering(deployment, place_of(runtime), batch.folder)
    return [program.line(local.secrets_of(deployment))]


def _places(batch: Batch) -> dict[int, tuple[Path, int]]:
    return journal.places(batch.folder)


def _answer(
    batch: Batch, manifest: Manifest, deployment: Deployment, runtime: Runtime, progress: Progress
) -> slurm.Array | None:
    """Have the rest answered; the jobs that did it are returned, for what they leave on the cluster."""
    deployment = check(deployment, runtime, progress)
    if isinstance(runtime, Slurm):
        return slurm.answer(batch, manifest, deployment, runtime, progress)
    if manifest.jobs:
        raise failed(
            f"this batch was given to Slurm (job {' '.join(manifest.jobs)})",
            f"add --runtime slurm; or, once that job has ended, delete {shown(batch.folder)} to begin anew here",
            Exit.BAD_SETTING,
        )
    if serving := runtimes.running_here():
        progress.say(f"Berth serves here as well ({serving.name}): both share the device")
    local.answer(deployment, place_of(runtime), batch.folder, manifest.requests, progress)
    return None
