"""A walk over the running service without a key: nothing but the page answers, however its path is written."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_service.app import create_app
from llm_service.config.loading import load
from llm_service.paths import Paths
from tests.unit.service.door import Door
from tests.unit.service.raw import Raw

OpenDoor = Callable[..., Door]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "MKACTIVITY")
OTHERS = ("/nothing", "/docs", "/redoc", "/invocations", "/tokenize", "/version", "/load", "/ping", "/v2/x")


@pytest.fixture
def locked(open_door: OpenDoor, tmp_path: Path) -> Door:
    (tmp_path / "keys").write_text("key-one\n")
    return open_door(LLM_API_KEYS_FILE=str(tmp_path / "keys"))


def paths() -> list[str]:
    app = create_app(load({})).app
    known = [str(getattr(route, "path", "")) for route in app.routes]
    known += [route.template.replace("{response_id}", "resp_1") for _, route in Paths().relayed()]
    return sorted({path for path in known if path != "/" and not path.startswith("/page/")})


def written_otherwise(path: str) -> Iterator[str]:
    """The same path in ways that some server or proxy takes for it."""
    yield from (path, f"/{path}", f"{path}/", f"{path}//", f"/.{path}", f"{path}/.")
    yield from (f"{path}?a=b", f"{path};a", f"{path}%00", f"{path}%2f", f"{path}#a")
    for page in ("/page", "/page/..", "/page/%2e%2e", "/page/app.js/..", "/page/..%2f", "/page/%2e%2e%2f"):
        yield page + (path[1:] if page.endswith("%2f") else path)
    yield f"/%{ord(path[1]):02x}{path[2:]}"
    yield path.upper()
    yield f"http://example.org{path}"


def test_nothing_answers_without_a_key(locked: Door) -> None:
    walked = 0
    with Raw(locked) as client:
        for path in (*paths(), *OTHERS):
            for target in written_otherwise(path):
                for method in METHODS:
                    if target != path and method not in ("GET", "POST"):
                        continue
                    of_page = target.startswith("/page") and method == "GET"
                    expected = (401, 404) if of_page else (401,)  # a file of the page that is not there
                    client.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    reply = client.reply(method)
                    assert reply.status in expected, f"{method} {target}: {reply.status}"
                    walked += 1
    assert walked > 500
    assert not locked.engine.records


def test_the_page_is_all_that_answers(locked: Door) -> None:
    assert locked.client.get("/").status_code == 200
    assert locked.client.post("/").status_code == 401
    for path in ("/page/app.js", "/page/style.css"):
        assert locked.client.get(path).status_code == 200
