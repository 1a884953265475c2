"""Health, readiness and the list of models: what they say in each state of the engine."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from llm_service.engines import health
from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until
from tests.unit.service.door import OPENAI_BODY, Door

OpenDoor = Callable[..., Door]


@pytest.fixture(autouse=True)
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.2)


def state(door: Door) -> tuple[int, str]:
    reply = door.client.get("/ready")
    return reply.status_code, reply.json()["state"]


def test_health_never_touches_the_engine(open_door: OpenDoor) -> None:
    door = open_door()
    assert door.client.get("/health").json() == {"status": "alive"}
    assert not door.engine.records


def test_ready_names_the_model(open_door: OpenDoor) -> None:
    door = open_door()
    reply = door.client.get("/ready")
    assert (reply.status_code, reply.json()["state"], reply.json()["models"]) == (200, "ready", ["stub-model"])


def test_health_check_has_opeas_two_keys_and_the_state(open_door: OpenDoor) -> None:
    door = open_door()
    reply = door.client.get("/v1/health_check", headers={"Content-Type": "application/json"})
    assert reply.status_code == 200
    assert reply.json()["Service Title"] == "opea_service@llm/MicroService"
    assert {"Service Description", "Version", "state"} <= reply.json().keys()
    assert reply.json()["Service Description"] == "OPEA Microservice Infrastructure"
    assert reply.json()["state"] == "ready"
    down = open_door(StubEngine()).client.get("/v1/health_check")
    assert (down.status_code, down.json()["state"], down.headers["retry-after"]) == (503, "starting", "5")


def test_each_signal_of_the_engine_is_one_phase(open_door: OpenDoor) -> None:
    assert state(open_door(StubEngine())) == (503, "starting")
    door = open_door()
    door.engine.knobs.silent = True
    assert state(door) == (503, "loading")
    door = open_door()
    door.engine.knobs.models = []
    assert state(door) == (503, "loading")
    door = open_door()
    door.engine.knobs.healthy = False
    assert state(door) == (503, "failed")
    door = open_door()
    door.engine.knobs.api_key = "key"
    assert state(door) == (503, "failed")
    assert state(open_door(LLM_VLLM_ENDPOINT="http://no-such-engine.invalid:1")) == (503, "unreachable")


def test_a_request_while_the_engine_is_silent_is_refused_at_once(open_door: OpenDoor) -> None:
    door = open_door()
    door.engine.knobs.silent = True
    reply = door.chat(OPENAI_BODY)
    assert (reply.status_code, reply.json()["error"]["phase"]) == (503, "loading")
    assert not door.engine.chats


def test_ready_follows_the_engine_down_and_up(open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StubEngine()
    door = open_door(engine)
    assert state(door) == (503, "starting")
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.05)
    engine.listen()
    wait_until(lambda: state(door) == (200, "ready"), 10, "ready")
    engine.kill()
    wait_until(lambda: state(door) == (503, "starting"), 10, "not ready")


def test_many_questions_are_one_question_to_the_engine(open_door: OpenDoor) -> None:
    door = open_door()
    door.engine.knobs.silent = True
    with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=door.service.url, timeout=20) as client:
        replies = list(pool.map(lambda _: client.get("/ready").status_code, range(8)))
    assert replies == [503] * 8
    assert [record.path for record in door.engine.records] == ["/health"]


def test_models_are_the_engines_own_answer(door: Door) -> None:
    reply = door.client.get("/v1/models")
    assert reply.status_code == 200
    assert reply.json()["data"][0] == {"id": "stub-model", "object": "model", "max_model_len": 4096}


def test_models_without_an_engine_is_503_in_the_envelope(open_door: OpenDoor) -> None:
    reply = open_door(StubEngine()).client.get("/v1/models")
    assert (reply.status_code, reply.json()["error"]["phase"]) == (503, "starting")
    assert "retry-after" in reply.headers


def test_models_with_a_key_that_the_engine_refuses_is_502(open_door: OpenDoor) -> None:
    door = open_door()
    door.engine.knobs.api_key = "other"
    assert door.client.get("/v1/models").status_code == 502


def test_vllms_router_is_ready_while_one_of_its_engines_is(open_door: OpenDoor) -> None:
    door = open_door()
    door.engine.knobs.healthy = False
    assert state(door) == (503, "failed")
    routed = open_door()
    routed.engine.knobs.healthy = False
    routed.engine.knobs.others["/readiness"] = b'{"status":"ready","healthy_workers":1,"total_workers":2}'
    assert state(routed) == (200, "ready")
    assert routed.chat(OPENAI_BODY).status_code == 200
