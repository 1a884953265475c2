"""Doors with stub engines behind them, and Debian's Chromium in front."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from llm_service.config.loading import load
from tests.support.stub_engine import StubEngine
from tests.unit.service.door import Door, Running
from tests.web.chatting import Chat

HANG_MS = 20_000  # a bound for hangs; the page asks a loading engine every 2 s
expect.set_options(timeout=HANG_MS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium: install Debian's package chromium; scripts/test --all does so as root on Debian")
    with sync_playwright() as playwright:
        # Its sandbox needs rights that root in a container lacks; it opens nothing but the page under test.
        # To a browser, pages of the name berth.test are those of another machine, which 127.0.0.1 never is.
        options = ["--no-sandbox", "--host-resolver-rules=MAP berth.test 127.0.0.1"]
        chromium = playwright.chromium.launch(executable_path=program, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def open_door(browser: Browser) -> Iterator[Callable[..., Door]]:
    """Make doors with chosen settings; `engine` may be a stub that does not listen yet."""
    doors: list[Door] = []

    def make(engine: StubEngine | None = None, /, **environ: str) -> Door:
        if engine is None:
            engine = StubEngine()
            engine.listen()
        doors.append(Door(engine, Running(load({"LLM_VLLM_ENDPOINT": engine.url, **environ}))))
        return doors[-1]

    yield make
    for door in doors:
        door.client.close()
        door.engine.close()
        door.service.stop()


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    """A door with default settings."""
    return open_door()


@pytest.fixture
def open_chat(browser: Browser) -> Iterator[Callable[..., Chat]]:
    """Open the page of a door, or at an address, in a fresh profile; options are those of a browser's context."""
    chats: list[Chat] = []

    def make(at: Door | str, **options: Any) -> Chat:
        context = browser.new_context(**options)
        context.set_default_timeout(HANG_MS)
        chats.append(Chat(context.new_page(), at if isinstance(at, str) else at.service.url))
        return chats[-1]

    yield make
    for chat in chats:
        chat.page.context.close()
    # Also what the policy of the page forbids is noted there.
    assert [chat.faults for chat in chats if chat.faults] == []


@pytest.fixture
def chat(door: Door, open_chat: Callable[..., Chat]) -> Chat:
    """The page of a door with default settings, ready."""
    opened = open_chat(door)
    expect(opened.state).to_contain_text("ready")
    return opened
