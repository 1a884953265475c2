"""A batch on a cluster: an array of jobs that share the requests, in a folder on the cluster's file system."""

import fnmatch
import shlex
import time
from dataclasses import replace

from berth.batch.folder import Batch, Manifest
from berth.batch.local import LOG
from berth.deployment import Deployment
from berth.errors import BerthError, Exit, failed
from berth.host.installing import reason
from berth.progress import Progress
from berth.runtimes.slurm import Runtime
from berth.slurm import queue, refusals, rendering, submit
from berth.slurm.durations import words
from berth.slurm.queue import Job
from berth.slurm.submit import SCRIPT
from engine import journal
from engine.phases import Phase

LOOK_EVERY_S = 5.0
# Counting reads all that has been answered: it may take a twentieth of the time, however much that is.
REST = 20
TRANSFER_S = 3600.0  # a bound for hangs
ANSWERING, WAITING = "answering", "waiting for Slurm"
_COUNT = 'cd "$1" 2>/dev/null && cat answers-*.jsonl 2>/dev/null | wc -l || echo 0'
_JOURNALS = "answers-*.jsonl"


class Array:
    """The jobs of one batch."""

    def __init__(self, batch: Batch, manifest: Manifest, deployment: Deployment, runtime: Runtime) -> None:
        self._batch, self.manifest, self._deployment, self._runtime = batch, manifest, deployment, runtime
        self._store, self._cluster = runtime.store, runtime.store.cluster
        self._plan = runtime.plan(deployment)
        self._counting_s = 0.0
        self.place = manifest.place or f"{self._store.root}/batches/{self._plan.name}-{manifest.sha256[:12]}"

    def command(self) -> list[str]:
        """The sbatch command. Raises BerthError (exit code 2) for a model that one node cannot hold."""
        plan, place = self._plan, self.place
        if plan.nodes > 1:
            raise failed("a batch is answered by single nodes", "leave --nodes and BERTH_NODES out", Exit.BAD_SETTING)
        told = plan.links[0].options([]) if plan.links else []
        told = [word for word in told if not word.startswith("--array=")]
        named = submit.options(self._store.site, f"batch-{plan.name}", place, 1, plan.gpus, 2)
        array, script = f"--array=0-{plan.replicas - 1}", f"{place}/job/batch.sbatch"
        given = ["--folder", place, "--parts", str(plan.replicas), "--site", f"{place}/site.env", "--sif", plan.sif]
        return ["sbatch", "--parsable", *named, *told, array, script, *given, f"{place}/job.env"]

    def living(self) -> list[Job]:
        """Its tasks that have not ended."""
        return [job for job in queue.jobs(self._cluster, self.manifest.jobs) if not job.over]

    def submit(self, progress: Progress) -> None:
        """Put the folder there and submit. Raises BerthError with what Slurm said."""
        argv = self.command()
        self._cluster.write_all(self.place, self._files(), TRANSFER_S)
        done = self._cluster.run(argv, check=False)
        if done.code:
            raise BerthError(refusals.refused(done.stderr, self._plan, self._cluster, self._store.site))
        job = done.stdout.strip().splitlines()[-1].partition(";")[0]
        self.manifest = replace(self.manifest, jobs=[job], place=self.place)
        self._batch.save(self.manifest)
        progress.say(f"submitted: job {job}, {self._plan.replicas} tasks")

    def _files(self) -> dict[str, tuple[bytes, int]]:
        """What the job reads: settings, scripts, the requests, and what is answered already."""
        files = submit.files(self._deployment, self._store.site)
        files["job/batch.sbatch"] = ((SCRIPT / "batch.sbatch").read_bytes(), 0o700)
        if not self.manifest.place or journal.INPUT not in self._cluster.listdir(self.place):  # the first time
            for path in (self._batch.folder / journal.INPUT, *self._batch.folder.glob(_JOURNALS)):
                files[path.name] = (path.read_bytes(), 0o600)
        return files

    def watch(self, progress: Progress) -> None:
        """Show how far it is until no task is left. Ctrl-C leaves the jobs as they are."""
        before, since = self._count(), time.monotonic()
        try:
            while living := self.living():
                done = self._count()
                if not any(job.running for job in living):
                    before, since = done, time.monotonic()
                progress.show(self._phase(living, done, before, since))
                time.sleep(max(LOOK_EVERY_S, REST * self._counting_s))
        except KeyboardInterrupt:
            jobs = " ".join(self.manifest.jobs)
            end = shlex.join(["scancel", "--signal=TERM", "--batch", *self.manifest.jobs])
            progress.say(f"job {jobs} goes on. Back: the same command; end it: {end}")
            raise

    def _phase(self, living: list[Job], done: int, before: int, since: float) -> Phase:
        if not any(job.running for job in living):
            return Phase(WAITING, None, next((job.reason for job in living if job.reason), ""))
        total, took = self.manifest.requests, time.monotonic() - since
        said = f"{done:,} of {total:,}, {sum(job.running for job in living)} tasks"
        if done > before:
            rate = (done - before) / took
            said += f", {rate:.1f} a second, {words(int((total - done) / rate))} left"
        return Phase(ANSWERING, min(1.0, done / total), said)

    def _count(self) -> int:
        began = time.monotonic()
        said = self._cluster.run(["sh", "-c", _COUNT, "sh", self.place], timeout_s=TRANSFER_S).stdout.split()
        self._counting_s = time.monotonic() - began
        return int(said[-1]) if said else 0

    def fetch(self) -> None:
        """Bring what has been answered here."""
        for name in fnmatch.filter(self._cluster.listdir(self.place), _JOURNALS):
            if (data := self._cluster.read(f"{self.place}/{name}", TRANSFER_S)) is not None:
                (self._batch.folder / name).write_bytes(data)

    def why(self) -> tuple[str, str]:
        """What the engine of a task said last before it gave up: a sentence and a hint, as far as there are any."""
        for name, log in self._cluster.read_each(self.place, "engine-*.log").items():
            (self._batch.folder / f"{LOG}.{name}").write_bytes(log)
            sentence, hint = reason(log.decode(errors="replace"))
            if sentence:
                return sentence, hint
        for log in self._cluster.read_each(self.place, "slurm-*.log").values():
            sentence, hint = reason(log.decode(errors="replace"))
            if sentence:
                return sentence, hint
        return "", ""

    def remove(self) -> None:
        """Delete its folder on the cluster."""
        self._cluster.remove(self.place)


def answer(batch: Batch, manifest: Manifest, deployment: Deployment, runtime: Runtime, progress: Progress) -> Array:
    """Have jobs answer what is left, or come back to those that do. Raises BerthError where they left something."""
    array = Array(batch, manifest, deployment, runtime)
    if living := array.living():
        progress.say(f"job {' '.join(manifest.jobs)} is at it: {len(living)} tasks")
    else:
        array.fetch()
        if len(journal.places(batch.folder)) < manifest.requests:
            array.submit(progress)
    array.watch(progress)
    array.fetch()
    if len(journal.places(batch.folder)) < manifest.requests:
        sentence, hint = array.why()
        done = len(journal.places(batch.folder))
        kept = f"{done:,} of {manifest.requests:,} are answered and kept; the same command goes on"
        raise failed(sentence or "the jobs ended before all was answered", f"{hint or f'see {array.place}'}; {kept}")
    return array


def command(batch: Batch, manifest: Manifest, deployment: Deployment, runtime: Runtime) -> str:
    """The sbatch command as a person would type it."""
    array = Array(batch, manifest, deployment, runtime)
    return rendering.shown(array.command(), runtime.store.cluster)
