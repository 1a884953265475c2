"""Pages of other sites: shut out unless they are named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_service.config.loading import SettingsError, load
from tests.unit.service.door import CHAT, OPENAI_BODY, Door

OpenDoor = Callable[..., Door]
SITE = "https://chat.example.org"
ASKS = {
    "Origin": SITE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def allowed(headers: object) -> list[str]:
    return [name for name in dict(headers) if name.startswith("access-control")]  # type: ignore[call-overload]


def test_other_sites_are_shut_out_unless_named(door: Door) -> None:
    assert not allowed(door.client.options(CHAT, headers=ASKS).headers)
    assert not allowed(door.chat(OPENAI_BODY, headers={"Origin": SITE}).headers)


def test_a_named_site_may_ask_and_read_even_an_answer_that_there_is_no_key(open_door: OpenDoor, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("key-one\n")
    door = open_door(LLM_CORS_ORIGINS=f"https://other.example.org, {SITE}", LLM_API_KEYS_FILE=str(tmp_path / "keys"))
    asked = door.client.options(CHAT, headers=ASKS)  # browsers show no key here
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == SITE
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    for headers, status in (({}, 401), ({"Authorization": "Bearer key-one"}, 200)):
        reply = door.chat(OPENAI_BODY, headers={"Origin": SITE, **headers})
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, SITE)
        assert "access-control-allow-credentials" not in reply.headers
        assert "x-request-id" in reply.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", ["https://evil.example.org", f"{SITE}.evil.org", "http://chat.example.org", "null"])
def test_a_site_that_is_not_named_stays_out(open_door: OpenDoor, origin: str) -> None:
    door = open_door(LLM_CORS_ORIGINS=SITE)
    assert door.client.options(CHAT, headers={**ASKS, "Origin": origin}).status_code == 400
    assert "access-control-allow-origin" not in door.chat(OPENAI_BODY, headers={"Origin": origin}).headers


def test_every_site_may_be_let_in(open_door: OpenDoor) -> None:
    door = open_door(LLM_CORS_ORIGINS="*")
    assert door.chat(OPENAI_BODY, headers={"Origin": SITE}).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("value", ["a.org", "https://a.org/path", "https://a.org,", "*,https://a.org", "null"])
def test_what_is_no_origin_is_refused_at_start(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"LLM_CORS_ORIGINS": value})
    assert len(caught.value.problems) == 1
