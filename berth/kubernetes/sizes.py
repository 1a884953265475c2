"""How long, how much: what a pod is given, from the size of its model and from what its settings say of draining."""

from dataclasses import dataclass

from berth import fitting
from berth.deployment import Deployment
from berth.errors import BerthError
from engine import names
from engine.decisions import SHUTDOWN_TIMEOUT_S

GIB = 1 << 30
# What a start may take beside reading the weights, as a part of the overlay's own allowance: it imports, compiles and
# warms up, on Gaudi for hours. The overlay's whole allowance is for somebody who has not computed anything.
REST = 0.25
# The slowest storage that a model may be read from: 100 MB/s, a network disk without bursts.
READ_BYTES_S = 100e6
# Beside the weights in the memory of an engine without cards: KV cache, activations, compiling.
BESIDE_WEIGHTS = 8 * GIB
# Beside the weights in the volume: the files that are not weights, and a second revision of a small model.
VOLUME_SHARE, VOLUME_LEAST = 1.3, 100 * GIB
# Between the end of draining and SIGKILL: the teardown of vLLM's workers, and of the service's connections.
TEARDOWN_S = 15
ENGINE_STEP_OUT_S, SERVICE_STEP_OUT_S = 10, 5  # the preStop of each
SERVICE_DRAIN_S = 60  # the service's own default, held by a test


@dataclass(frozen=True)
class Sizes:
    """What the model's size and the settings come to; 0 where nothing is known and the overlay's figure stands."""

    weights: int

    def start_s(self, allowed_s: int) -> int:
        """Seconds that a start may take, `allowed_s` being the overlay's own allowance."""
        return int(allowed_s * REST + self.weights / READ_BYTES_S) if self.weights else allowed_s

    @property
    def memory_gib(self) -> int:
        """Memory of an engine that holds the weights there."""
        return -(-(self.weights + BESIDE_WEIGHTS) // GIB) if self.weights else 0

    @property
    def volume_gib(self) -> int:
        """The volume for the model."""
        return -(-int(max(VOLUME_LEAST, self.weights * VOLUME_SHARE)) // GIB)


def of(deployment: Deployment) -> Sizes:
    """Look the model up, here or on the hub. Where that cannot be told, nothing is known of it."""
    if not deployment.model:
        return Sizes(0)
    try:
        return Sizes(fitting.look(deployment.model, deployment.environ, fitting.values_of(deployment)).weights)
    except BerthError:
        return Sizes(0)


def engine_grace_s(deployment: Deployment) -> int:
    """From the word to stop until SIGKILL: out of the Service, the engine's drain, its teardown."""
    return ENGINE_STEP_OUT_S + _seconds(deployment, "VLLM_SHUTDOWN_TIMEOUT", SHUTDOWN_TIMEOUT_S) + TEARDOWN_S


def service_grace_s(deployment: Deployment) -> int:
    """The same for the service."""
    drain = _seconds(deployment, "LLM_DRAIN_TIMEOUT_SECONDS", SERVICE_DRAIN_S)
    return SERVICE_STEP_OUT_S + drain + TEARDOWN_S


def is_on_the_hub(model: str) -> bool:
    """Whether `berth fetch` can bring a model of this name."""
    return bool(model) and model != names.DEMO and "://" not in model and not model.startswith(("/", ".", "~"))


def _seconds(deployment: Deployment, name: str, default: int) -> int:
    text = deployment.value(name)
    return int(float(text)) if text.replace(".", "", 1).isdigit() else default
