"""The tracked catalogs, and settings read against them."""

from collections.abc import Callable

import pytest

from engine import catalog, settings

Read = Callable[..., settings.Reading]


@pytest.fixture(params=["cpu", "cuda", "hpu"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that has a catalog in the repository."""
    return str(request.param)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read settings for a device ("cpu" unless `on` says another), with a model set unless the test sets one."""
    monkeypatch.delenv("BERTH_CATALOG", raising=False)

    def reading(*args: str, on: str = "cpu", **environ: str) -> settings.Reading:
        known = catalog.parse((catalog.TRACKED / f"{on}.json").read_text(encoding="utf-8"))
        return settings.read({"LLM_VLLM_MODEL_NAME": "demo", **environ}, known, on, args)

    return reading
