"""What `berth fetch` was asked for, carried out from the hub to the last copy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth.errors import Exit, failed
from berth.models import fetch, s3, store, tarball
from berth.models.fetch import Fetched, Plan, Source
from berth.models.hub import Hub
from berth.models.hubcache import cache_of, checked_name
from berth.models.transfer import Transfer, size
from berth.progress import Progress
from engine.values import TRUE_WORDS


@dataclass(frozen=True)
class Order:
    """The words of the command line."""

    model: str
    revision: str = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    workers: int = 8
    to: str | None = None
    tar: str | None = None

    @property
    def comes_from_a_store(self) -> bool:
        """Whether it is a place that `--to s3://…` made, not a name on the hub."""
        return self.model.startswith("s3://")

    @property
    def bucket(self) -> str | None:
        """Where in an object store it goes, too."""
        return self.to if self.to and "://" in self.to else None

    def cache(self, environ: Mapping[str, str]) -> Path:
        """The hub's cache to fetch into."""
        return cache_of(Path(self.to) if self.to and not self.bucket else None, environ)


@dataclass(frozen=True)
class Preview:
    """What would be fetched."""

    plan: Plan

    def facts(self) -> dict[str, Any]:
        """What `--dry-run --json` prints."""
        missing = {file.path for file in self.plan.repository.missing(self.plan.listing.commit, self.plan.files)}
        files = [{"path": each.path, "bytes": each.size, "here": each.path not in missing} for each in self.plan.files]
        return {**self.plan.fetched().facts(), "files": files}

    def rows(self) -> list[tuple[str, ...]]:
        """What a person reads."""
        rows = [(each["path"], size(each["bytes"]), "here" if each["here"] else "") for each in self.facts()["files"]]
        return [*rows, (f"{self.plan.listing.model} {self.plan.listing.commit}", size(self.plan.fetched().bytes), "")]


@dataclass(frozen=True)
class Done:
    """What is where now."""

    fetched: Fetched
    tar: Path | None = None
    url: str | None = None

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {**self.fetched.facts(), "tar": str(self.tar) if self.tar else None, "url": self.url}

    def rows(self) -> list[tuple[str, ...]]:
        """What a person reads; the last lines belong into an env file."""
        done = self.fetched
        rate = f", {size(done.moved / done.seconds)}/s" if done.moved and done.seconds else ""
        rows = [
            ("model", f"{done.repository.model} at {done.commit} ({done.revision})"),
            ("size", f"{size(done.bytes)} in {len(done.files)} files; fetched now: {size(done.moved)}{rate}"),
            ("folder", str(done.path)),
        ]
        if self.tar:
            rows.append(("tar", str(self.tar)))
        if self.url:
            return [*rows, ("LLM_VLLM_MODEL_NAME", self.url)]
        return [*rows, ("LLM_VLLM_MODEL_NAME", done.repository.model), ("VLLM_REVISION", done.commit)]


def _plan(order: Order, environ: Mapping[str, str], progress: Progress) -> tuple[Source, Plan]:
    if order.bucket:
        s3.Place.of(order.bucket)
    if order.comes_from_a_store:
        return _plan_back(order, environ, progress)
    checked_name(order.model)
    if any((environ.get(name) or "").lower() in TRUE_WORDS for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        raise failed("HF_HUB_OFFLINE forbids to ask the hub", "unset it for this command", Exit.BAD_SETTING)
    hub = Hub(environ, Transfer(progress))
    planned = fetch.plan(hub, order.cache(environ), order.model, order.revision, order.include, order.exclude)
    return hub, planned


def _plan_back(order: Order, environ: Mapping[str, str], progress: Progress) -> tuple[Source, Plan]:
    if order.bucket or order.revision != "main":
        hint = "name a folder: --to DIR, or leave it out for HF_HOME; and no --revision, the place has one commit"
        raise failed(f"{order.model} is fetched to a folder", hint, Exit.BAD_SETTING)
    there = store.at(order.model, Transfer(progress), order.workers)
    return there, fetch.choose(there.listing(), order.cache(environ), order.include, order.exclude)


def preview(order: Order, environ: Mapping[str, str], progress: Progress) -> Preview:
    """Ask what there is, and no more. Raises BerthError."""
    return Preview(_plan(order, environ, progress)[1])


def carry_out(order: Order, environ: Mapping[str, str], progress: Progress) -> Done:
    """Fetch, pack and send. Raises BerthError; the same order again goes on where it stopped."""
    tar = tarball.place(order.tar) if order.tar else None
    source, planned = _plan(order, environ, progress)
    fetched = fetch.run(source, planned, order.workers)
    if tar:
        tarball.pack(fetched, tar, source.transfer)
    url = s3.send(fetched, tar, s3.Place.of(order.bucket), Transfer(progress), order.workers) if order.bucket else None
    return Done(fetched, tar, url)
