"""What the launcher settles by itself, unless a setting says otherwise: each with the reason for the log."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine import names


@dataclass(frozen=True)
class Decision:
    """One thing settled by the launcher: `berth: <what> (<why>)` in the log, and its effect on the command."""

    what: str
    why: str
    environ: Mapping[str, str | None] = field(default_factory=dict)  # None removes a variable
    args: tuple[str, ...] = ()
    module: str | None = None  # start vLLM through this module of ours

    def __str__(self) -> str:
        return f"{self.what} ({self.why})"


@dataclass(frozen=True)
class Situation:
    """What decisions are made from: the environment so far, and what each named flag is set to."""

    environ: Mapping[str, str]
    values: Mapping[str, str]
    model: str | None

    def number(self, flag: str, default: int = 1) -> int:
        """The whole number that a flag is set to, or `default` where it is not set or is no plain number."""
        try:
            return int(self.values.get(flag, ""))
        except ValueError:
            return default


# Constants that enter vLLM's compile-cache key stand here and in the devices' modules alone, so that every way of
# starting finds the same compiled code.
ENGINE_READY_TIMEOUT_S = 1800  # a first start downloads and compiles for up to half an hour (vLLM's own: 600 s)
SHUTDOWN_TIMEOUT_S = 60  # streams may finish; Compose's stop_grace_period is set above it
QUIET_PATHS = "/health,/metrics,/ping,/v1/models"  # what probes ask for, every few seconds

_FLAGS = (
    (
        "shutdown-timeout",
        str(SHUTDOWN_TIMEOUT_S),
        "requests in flight may finish after SIGTERM; vLLM's own default aborts",
    ),
    ("disable-access-log-for-endpoints", QUIET_PATHS, "probes would fill the access log"),
)
_VARIABLES = (
    ("VLLM_NO_USAGE_STATS", "1", "no usage statistics leave this machine"),
    ("HF_HUB_DISABLE_TELEMETRY", "1", "no telemetry goes to the model hub"),
    (
        "VLLM_ENGINE_READY_TIMEOUT_S",
        str(ENGINE_READY_TIMEOUT_S),
        "a first start downloads and compiles; constant, since it enters the compile-cache key",
    ),
)


def common(situation: Situation, demo: bool = False) -> list[Decision]:
    """What is settled alike on every device. `demo` says that the built-in model is served."""
    decisions = _address(situation)
    if demo and "served-model-name" not in situation.values:
        args = ("--served-model-name", names.DEMO)
        decisions.append(Decision(" ".join(args), "the built-in model", args=args))
    decisions += [
        Decision(f"--{flag} {value}", why, args=(f"--{flag}", value))
        for flag, value, why in _FLAGS
        if flag not in situation.values
    ]
    decisions += [
        Decision(f"{name}={value}", why, {name: value})
        for name, value, why in _VARIABLES
        if name not in situation.environ
    ]
    return decisions


def _address(situation: Situation) -> list[Decision]:
    if situation.values.get("headless") == "true":
        why = "vLLM alone outlives its head"
        return [Decision("this node follows the head: no address, and ends with it", why, module="engine.follower")]
    if "uds" in situation.values:
        return []
    return [
        Decision(f"--{flag} {value}", f"{setting} is not set", args=(f"--{flag}", value))
        for flag, setting, value in (("host", names.HOST, names.DEFAULT_HOST), ("port", names.PORT, names.DEFAULT_PORT))
        if flag not in situation.values
    ]
