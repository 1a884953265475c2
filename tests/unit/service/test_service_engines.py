"""One engine as its failures add up."""

from llm_service.config.loading import load
from llm_service.engines.address import Address
from llm_service.engines.engine import Engine


def test_an_engine_that_failed_thousands_of_times_still_only_rests() -> None:
    engine = Engine(Address("http://127.0.0.1:1"), load({}))
    for _ in range(3000):
        engine.watch.good = True
        engine.failed()
    assert engine.resting
