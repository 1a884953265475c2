"""What /metrics tells Prometheus: counted once at the end of each request, and put into words only when it is asked.

Plain dictionaries, since a request may cost a few microseconds here: prometheus_client takes as much for one counter.
Labels are bounded: routes come from the allow-list, keys are the names in the file of keys, and a model's name is one
that an engine has answered for.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter

from llm_service import __version__
from llm_service.engines.pool import Pool
from llm_service.lock.admission import Admission
from llm_service.port.refusals import KINDS
from llm_service.records import process
from llm_service.records.exchange import CLIENT_LEFT, Exchange
from llm_service.records.exposition import Metric, page

MOST_MODELS = 64  # an engine that answers to any name at all must not fill the memory of Prometheus
OTHER_MODEL = "other"

# In seconds: the buckets of OpenTelemetry's gen_ai conventions for a server, with more room above, since a reply of
# many tokens may take minutes.
DURATION = tuple(0.01 * 2**power for power in range(17))
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300)
PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
QUEUE = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60)


class Histogram:
    """How often a value was in each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulated(self) -> list[tuple[str, int]]:
        """Return each bucket's upper bound and how many values lie below it, as Prometheus wants them."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


@dataclass(slots=True)
class Times:
    """The times of all requests with one dialect and one model."""

    duration: Histogram = field(default_factory=lambda: Histogram(DURATION))
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN))
    per_token: Histogram = field(default_factory=lambda: Histogram(PER_TOKEN))


_TIMES: tuple[tuple[str, str, Callable[[Times], Histogram]], ...] = (
    (
        "berth_request_seconds",
        "Time of a request that was answered, from its head to the last byte.",
        attrgetter("duration"),
    ),
    (
        "berth_time_to_first_token_seconds",
        "Time of a stream from the request's head to the first bytes of its answer.",
        attrgetter("first_token"),
    ),
    (
        "berth_inter_token_seconds",
        "Time between two tokens of a stream: its mean, once for each stream.",
        attrgetter("per_token"),
    ),
)


class Metrics:
    """Counts requests that have ended; `render` tells of them, and of what is running now."""

    def __init__(self, admission: Admission, pool: Pool, refused: Counter[int]) -> None:
        """`refused` is what the port counts of itself, by status: no request ever came of it."""
        self._admission = admission
        self._pool = pool
        self._refused = refused
        self._models: set[str] = set()
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._aborts: Counter[tuple[str, ...]] = Counter()
        self._tokens: Counter[tuple[str, ...]] = Counter()
        self._times: dict[tuple[str, str], Times] = {}
        self._queue = Histogram(QUEUE)
        self._retries = 0

    def finished(self, exchange: Exchange) -> None:
        """Count a request that has ended."""
        dialect, key, model = exchange.dialect or "", exchange.key or "", self._model(exchange)
        self._requests[exchange.route, dialect, model, key, str(exchange.status)] += 1
        self._retries += exchange.retries
        if exchange.queued_at is not None and exchange.admitted_at is not None:
            self._queue.add(exchange.admitted_at - exchange.queued_at)
        if exchange.outcome != "ok" and _aborted(exchange):
            self._aborts[exchange.outcome, dialect, model, key] += 1
        if exchange.prompt_tokens:
            self._tokens["prompt", dialect, model, key] += exchange.prompt_tokens
        if exchange.completion_tokens:
            self._tokens["completion", dialect, model, key] += exchange.completion_tokens
        if exchange.status == 200 and dialect:
            self._time(exchange, dialect, model)

    def _time(self, exchange: Exchange, dialect: str, model: str) -> None:
        times = self._times.get((dialect, model))
        if times is None:
            times = self._times[dialect, model] = Times()
        first, last = exchange.first_byte_at, exchange.last_byte_at
        if last is not None:
            times.duration.add(last - exchange.started_at)
        if not exchange.stream or first is None:
            return
        times.first_token.add(first - exchange.started_at)
        # Pieces where the engine told no tokens: nearly always one a token, and never more.
        count = exchange.completion_tokens or exchange.chunks
        if last is not None and count > 1 and exchange.outcome == "ok":
            times.per_token.add((last - first) / (count - 1))

    def _model(self, exchange: Exchange) -> str:
        """A model's name as a label. A client may write anything there; what an engine answered for exists."""
        model = exchange.model
        if model is None:
            return ""
        if model in self._models:
            return model
        if exchange.status == 200 and len(self._models) < MOST_MODELS:
            self._models.add(model)
            return model
        return OTHER_MODEL

    def render(self) -> bytes:
        """Return the page in Prometheus' text format."""
        return page((*self._now(), *self._counters(), *self._histograms(), *process.metrics()))

    def _now(self) -> Iterator[Metric]:
        running, waiting = self._admission.in_flight, self._admission.queued
        engines: dict[tuple[str, ...], float] = {(str(phase),): count for phase, count in self._pool.phases().items()}
        yield Metric.gauge("berth_build_info", "The version of this service.", ("version",), {(__version__,): 1})
        yield Metric.gauge("berth_requests_in_flight", "Requests that have a place.", (), {(): running})
        yield Metric.gauge("berth_requests_queued", "Requests that wait for a place.", (), {(): waiting})
        yield Metric.gauge("berth_engines", "Engines, by what was last seen of them.", ("state",), engines)

    def _counters(self) -> Iterator[Metric]:
        by = ("dialect", "model", "key")
        yield Metric.counter("berth_requests", "Requests that have ended.", ("route", *by, "status"), self._requests)
        cut = "Replies that had begun and did not end as they should, and clients that left."
        yield Metric.counter("berth_aborts", cut, ("reason", *by), self._aborts)
        yield Metric.counter("berth_tokens", "Tokens, as the engine counted them.", ("kind", *by), self._tokens)
        refused: dict[tuple[str, ...], float] = {(str(status),): self._refused[status] for status in KINDS}
        at_port = "What the port refused before it was a request."
        yield Metric.counter("berth_port_refusals", at_port, ("status",), refused)
        yield Metric.counter("berth_retries", "Requests that were sent again.", (), {(): self._retries})

    def _histograms(self) -> Iterator[Metric]:
        yield Metric.histogram("berth_queue_seconds", "Time that requests waited for a place.", (), {(): self._queue})
        for name, meaning, of in _TIMES:
            yield Metric.histogram(name, meaning, ("dialect", "model"), {k: of(one) for k, one in self._times.items()})


def _aborted(exchange: Exchange) -> bool:
    """Whether a reply was cut short, or nobody was there to read it; a refusal is complete in itself."""
    return exchange.status < 400 or exchange.outcome == CLIENT_LEFT
