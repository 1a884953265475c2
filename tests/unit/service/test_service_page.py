"""The page at / as files: open to all, kept by browsers, and held to what comes from here."""

import re
from collections.abc import Callable
from pathlib import Path

import llm_service
from tests.unit.service.door import Door

FILES = Path(llm_service.__file__).with_name("local") / "page"


def test_the_page_and_every_file_that_it_names_are_served(door: Door) -> None:
    page = door.client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    wanted = set(re.findall(r'(?:src|href)="(page/[^"]+)"', page.text))
    for name in FILES.glob("*.js"):
        wanted |= {f"page/{other}" for other in re.findall(r'from "\./([^"]+)"', name.read_text())}
    served = {f"page/{file.name}" for file in FILES.iterdir() if file.name != "index.html"}
    assert wanted == served
    assert {door.client.get(f"/{path}").status_code for path in wanted} == {200}


def test_a_browser_is_told_to_take_nothing_from_elsewhere(door: Door) -> None:
    for path in ("/", "/page/app.js"):
        policy = door.client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
    for file in FILES.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|\burl\(|<script>|<style>| style=| on[a-z]+=", text), file.name


def test_a_file_that_the_browser_has_is_not_sent_again(door: Door) -> None:
    first = door.client.get("/page/style.css")
    assert first.headers["cache-control"] == "no-cache"
    again = door.client.get("/page/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = door.client.get("/page/style.css", headers={"If-None-Match": '"another"'})
    assert other.status_code == 200


def test_the_page_needs_no_key_but_what_it_asks_for_does(open_door: Callable[..., Door], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-a-client-0123456789\n")
    keys.chmod(0o600)
    client = open_door(LLM_API_KEYS_FILE=str(keys)).client
    assert {client.get(path).status_code for path in ("/", "/page/app.js")} == {200}
    assert client.head("/").status_code == 200
    assert {client.get(path).status_code for path in ("/ready", "/v1/models", "/page")} == {401}
    assert client.post("/").status_code == 401


def test_the_page_can_be_switched_off(open_door: Callable[..., Door]) -> None:
    client = open_door(LLM_PAGE="false").client
    assert {client.get(path).status_code for path in ("/", "/page/app.js")} == {404}


def test_where_it_is_switched_off_its_paths_ask_for_a_key_like_all_others(
    open_door: Callable[..., Door], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-a-client-0123456789\n")
    keys.chmod(0o600)
    client = open_door(LLM_PAGE="false", LLM_API_KEYS_FILE=str(keys)).client
    assert {client.get(path).status_code for path in ("/", "/page/app.js")} == {401}


def test_names_that_lead_out_of_the_folder_are_no_files(door: Door) -> None:
    for path in ("/page/", "/page/../page.py", "/page/%2e%2e/page.py", "/page/index.html", "/page/nothing.js"):
        assert door.client.get(path).status_code == 404, path
