"""LLM_API_KEYS_FILE: nothing answers without a key, and the file may change while the service runs."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_service.app import create_app
from llm_service.config.loading import SettingsError, load
from llm_service.lock import changed, keys
from llm_service.paths import Paths, public
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPENAI_BODY, Door

OpenDoor = Callable[..., Door]
KEY = {"Authorization": "Bearer key-one"}
HASH = hashlib.sha256(b"canary-key").hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# clients\n\nkey-one\nkey-two\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def locked(open_door: OpenDoor, file: Path) -> Door:
    return open_door(LLM_API_KEYS_FILE=str(file))


def routes() -> list[str]:
    """Every path that the application knows, and some that it does not."""
    known = [str(getattr(route, "path", "")) for route in create_app(load({})).app.routes]
    known += [route.template for _, route in Paths().relayed()]
    assert CHAT in known
    return [*known, "/", "/nothing", "/docs", "/metrics", "//health", "/health/"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
def test_no_path_answers_without_a_key(locked: Door, method: str) -> None:
    for path in routes():
        if public(method, path):
            continue
        reply = locked.client.request(method, f"{locked.service.url}{path}")
        assert (path, reply.status_code) == (path, 401)
        assert reply.headers["www-authenticate"] == "Bearer"
        assert "x-request-id" in reply.headers
    assert not locked.engine.records


def test_401_has_openais_envelope_and_does_not_repeat_the_key(locked: Door) -> None:
    reply = locked.chat(OPENAI_BODY, headers={"Authorization": "Bearer wrong-canary"})
    error = reply.json()["error"]
    assert (error["type"], error["code"], "canary" in reply.text) == ("AuthenticationError", 401, False)


@pytest.mark.parametrize("shown", ["Bearer key-one", "bearer  key-two", "BEARER key-one"])
def test_each_key_opens_every_path(locked: Door, shown: str) -> None:
    headers = {"Authorization": shown}
    assert locked.chat(OPENAI_BODY, headers=headers).status_code == 200
    assert locked.client.get("/ready", headers=headers).status_code == 200
    assert locked.client.get("/nothing", headers=headers).status_code == 404


@pytest.mark.parametrize(
    "shown", ["key-one", "Basic key-one", "Bearer", "Bearer key-on", "Bearer # clients", "Bearer key-one x"]
)
def test_what_is_no_key_opens_nothing(locked: Door, shown: str) -> None:
    assert locked.client.get("/health", headers={"Authorization": shown}).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("X-Api-Key", "key-one")], 200),
        ([("X-Api-Key", "key-one"), ("Authorization", "Bearer key-one")], 200),
        ([("X-Api-Key", "key-one"), ("Authorization", "Bearer key-two")], 401),
        ([("X-Api-Key", "key-one"), ("Authorization", "Bearer")], 401),
        ([("X-Api-Key", "wrong")], 401),
        ([("X-Api-Key", "key-one"), ("X-Api-Key", "key-one")], 401),
        ([("Authorization", "Bearer key-one"), ("Authorization", "Bearer wrong")], 401),
    ],
)
def test_anthropics_header_counts_and_two_that_differ_open_nothing(
    locked: Door, headers: list[tuple[str, str]], status: int
) -> None:
    assert locked.client.get("/health", headers=headers).status_code == status


def test_a_hash_opens_for_the_key_and_not_for_itself(open_door: OpenDoor, file: Path) -> None:
    file.write_text(f"# clients\nalice sha256:{HASH} requests_per_minute=600 max_in_flight=8\n")
    locked = open_door(LLM_API_KEYS_FILE=str(file))
    assert status_with(locked, "canary-key") == 200
    for wrong in (HASH, f"sha256:{HASH}", "alice", "canary-key2"):
        assert status_with(locked, wrong) == 401


def test_a_key_has_a_name_its_limits_and_no_text(file: Path) -> None:
    file.write_text(f"# clients\nalice sha256:{HASH} requests_per_minute=600 max_in_flight=8\n\nkey-two\n")
    digest = bytes.fromhex(HASH)
    assert keys.Keys(file).find(b"canary-key") == keys.Key("alice", digest, 8, 600)
    plain = keys.Keys(file).find(b"key-two")
    assert plain is not None
    assert (plain.name, plain.max_in_flight, plain.requests_per_minute) == ("line-4", None, None)
    assert "key-two" not in repr(plain)


def test_no_key_is_not_the_hash_of_nothing(file: Path) -> None:
    file.write_text(f"nobody sha256:{hashlib.sha256(b'').hexdigest()}\n")
    assert keys.Keys(file).find(b"") is None


def test_every_hash_is_compared_whichever_matches(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("key-one\nkey-two\nkey-three\n")
    known = keys.Keys(file)
    compared: list[bytes] = []

    def compare(offered: bytes, digest: bytes) -> bool:
        compared.append(digest)
        return offered == digest

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    for shown in (b"key-one", b"key-three", b"wrong"):
        compared.clear()
        known.find(shown)
        assert len(compared) == 3


def test_the_clients_key_stays_here_and_the_engine_gets_its_own(open_door: OpenDoor, file: Path) -> None:
    door = open_door(LLM_API_KEYS_FILE=str(file), VLLM_API_KEY="engine-key")
    door.engine.knobs.api_key = "engine-key"
    assert door.chat(OPENAI_BODY, headers=KEY).status_code == 200
    assert door.client.get("/v1/models", headers=KEY).status_code == 200
    sent = [record.headers.get("authorization") for record in door.engine.records]
    assert set(sent) == {"Bearer engine-key"}


def test_without_a_key_for_the_engine_it_gets_none(locked: Door) -> None:
    assert locked.chat(OPENAI_BODY, headers=KEY).status_code == 200
    assert "authorization" not in locked.engine.chats[-1].headers


def status_with(door: Door, key: str) -> int:
    return door.client.get("/health", headers={"Authorization": f"Bearer {key}"}).status_code


@pytest.mark.parametrize("by_replacing", [False, True])
def test_a_changed_file_counts_without_a_restart(
    locked: Door, file: Path, by_replacing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed, "LOOK_SECONDS", 0.0)
    target = file.with_name("new") if by_replacing else file
    target.write_text("key-three\n")
    if by_replacing:
        target.replace(file)
    wait_until(lambda: status_with(locked, "key-three") == 200, 10, "the new key counts")
    assert status_with(locked, "key-one") == 401


@pytest.mark.parametrize("bad", ["", "# nothing\n", "two words\n", None])
def test_a_file_that_went_bad_is_told_and_changes_nothing(
    locked: Door, file: Path, bad: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(changed, "LOOK_SECONDS", 0.0)
    if bad is None:
        file.unlink()
    else:
        file.write_text(bad)
    assert status_with(locked, "key-one") == 200
    assert status_with(locked, "key-one") == 200
    assert [record.message.endswith("still count.") for record in caplog.records] == [True]
    file.write_text("key-three\n")
    wait_until(lambda: status_with(locked, "key-three") == 200, 10, "the new key counts")


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_that_others_may_read_is_warned_of(file: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    file.chmod(mode)
    keys.Keys(file)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "chmod 600" in caplog.text
    assert "key-one" not in caplog.text


def test_hashes_may_be_read_by_anybody(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(f"alice sha256:{HASH}\n")
    file.chmod(0o644)
    keys.Keys(file)
    assert not caplog.records


def test_a_file_of_ones_own_is_not_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys.Keys(file)
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file or directory."),
        ("\n# none\n", "holds no key."),
        ("good\ncanary with blanks\n", "[requests_per_minute=N]."),
        ("good\ncanary sha256:canary\n", "[requests_per_minute=N]."),
        (f"-canary sha256:{HASH}\n", "[requests_per_minute=N]."),
        (f"good sha256:{HASH} max_in_flight=0\n", "[requests_per_minute=N]."),
        (f"good sha256:{HASH} max_in_flight=1 max_in_flight=2\n", "[requests_per_minute=N]."),
        (f"good sha256:{HASH} canary=1\n", "[requests_per_minute=N]."),
        (f"sha256:{HASH}\n", "is no key: one has printable characters and no blank."),
        (f"good sha256:{HASH}\nkey-two\ngood sha256:{HASH}\n", "has the same name as a line before it."),
        (f"good sha256:{HASH}\ncanary sha256:{HASH}\n", "has the same key as a line before it."),
        (f"good sha256:{HASH}\ncanary-key\n", "has the same key as a line before it."),
        ("k\u00e9y\n", "is no key: one has printable characters and no blank."),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_start(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load({"LLM_API_KEYS_FILE": str(path)})
    [(sentence, hint)] = caught.value.problems
    assert str(path) in sentence
    assert sentence.endswith(said)
    assert "canary" not in sentence
    assert "LLM_API_KEYS_FILE" in hint


def test_a_directory_or_a_relative_path_is_refused_at_start(tmp_path: Path) -> None:
    for value in (str(tmp_path), os.path.relpath(tmp_path)):
        with pytest.raises(SettingsError) as caught:
            load({"LLM_API_KEYS_FILE": value})
        assert len(caught.value.problems) == 1


def test_without_a_file_nothing_asks_for_a_key(door: Door) -> None:
    assert door.client.get("/health").status_code == 200


def test_one_locked_door_in_front_of_another(open_door: OpenDoor, locked: Door) -> None:
    outer = open_door(LLM_VLLM_ENDPOINT=locked.service.url, VLLM_API_KEY="key-one")
    assert outer.client.get("/ready").status_code == 200
    assert outer.chat(OPENAI_BODY).status_code == 200
    assert outer.chat({**OPENAI_BODY, "stream": True}).content.endswith(b"data: [DONE]\n\n")
    assert locked.client.get("/ready").status_code == 401
    assert len(locked.engine.chats) == 2


@pytest.mark.parametrize("name", ["BIND_ADDR", "LLM_USVC_HOST"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.1.2.3", "gpu-box", "[::]", "127.0.0.1.example.org"])
def test_where_other_machines_can_reach_it_a_key_is_asked_for(file: Path, name: str, address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: address})
    [(sentence, hint)] = caught.value.problems
    assert sentence == f"{name}={address} lets other machines in, and they would need no key."
    assert "LLM_API_KEYS_FILE" in hint
    assert "LLM_ALLOW_NO_KEY=true" in hint
    assert load({name: address, "LLM_API_KEYS_FILE": str(file)}).keys_file == file
    assert load({name: address, "LLM_ALLOW_NO_KEY": "true"}).allow_no_key


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_on_this_machine_alone_no_key_is_needed(address: str) -> None:
    load({"LLM_USVC_HOST": address})
    # In a container the service listens everywhere, and who can reach it is said where its port is published.
    load({"LLM_USVC_HOST": "0.0.0.0", "BIND_ADDR": address})


def test_listening_here_and_published_everywhere_a_key_is_needed() -> None:
    with pytest.raises(SettingsError, match=r"BIND_ADDR=0\.0\.0\.0"):
        load({"LLM_USVC_HOST": "127.0.0.1", "BIND_ADDR": "0.0.0.0"})
