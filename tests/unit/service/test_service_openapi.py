"""/openapi.json: complete, behind the key, and true, as schemathesis finds by asking the running service."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from llm_service.app import create_app
from llm_service.config.loading import load
from llm_service.local.openapi import document
from llm_service.paths import PAGE, Paths
from llm_service.port import front
from tests.unit.service.door import CHAT, Door

OpenDoor = Callable[..., Door]
KEY = {"Authorization": "Bearer key-one"}
EXAMPLES = os.environ.get("BERTH_FUZZ_EXAMPLES", "3")
WHOLE = b'{"object": "any", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}'
# A reply of 502, 503 or 504 is declared; 500 is not, and must never be seen.
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 502, 503, 504]
"""
# Which values are good is for the engine to say, and the stub takes all.
NOT_OURS = "negative_data_rejection,positive_data_acceptance"


@pytest.fixture
def locked(open_door: OpenDoor, tmp_path: Path) -> Door:
    (tmp_path / "keys").write_text("key-one\n")
    door = open_door(LLM_API_KEYS_FILE=str(tmp_path / "keys"))
    door.engine.knobs.others = {route.template: WHOLE for _, route in Paths().relayed() if route.template != CHAT}
    return door


def described(**settings: str) -> dict[str, Any]:
    loaded = load(settings)
    return document(Paths(loaded.open_paths), locked=loaded.keys_file is not None, page=loaded.page)


def test_the_document_is_valid_and_behind_the_key(locked: Door) -> None:
    assert locked.client.get("/openapi.json").status_code == 401
    told = locked.client.get("/openapi.json", headers=KEY).json()
    schemathesis.openapi.from_dict(told).validate()
    assert told["security"] == [{"key": []}]


def test_every_path_of_the_allow_list_is_described_by_name() -> None:
    paths = described()["paths"]
    for method, route in Paths().relayed():
        assert paths[route.template][method.lower()]["summary"]
        assert "LLM_OPEN_PATHS" not in paths[route.template][method.lower()]["summary"]


def test_every_route_of_the_running_application_is_described() -> None:
    paths = described()["paths"]
    routes = [str(getattr(route, "path", "")) for route in create_app(load({})).app.routes]
    assert "/openapi.json" in routes
    assert [path for path in routes if not path.startswith(PAGE) and "get" not in paths.get(path, {})] == []


def test_paths_that_the_settings_open_or_close_are_described_as_such() -> None:
    assert "LLM_OPEN_PATHS" in described(LLM_OPEN_PATHS="/tokenize")["paths"]["/tokenize"]["post"]["summary"]
    assert "/" not in described(LLM_PAGE="false")["paths"]


def test_schemathesis_finds_nothing_that_is_not_declared(
    locked: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "SWEEP_SECONDS", 0.05)
    (tmp_path / "st.toml").write_text(CONFIG)
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", "st.toml", "run", f"{locked.service.url}/openapi.json"]
    command += ["--header", "Authorization: Bearer key-one", "--max-examples", EXAMPLES]
    command += [
        "--phases",
        "examples,coverage,fuzzing",
        "--exclude-checks",
        NOT_OURS,
        "--warnings",
        "off",
        "--no-color",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=6000)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Tested: " in done.stdout
