"""The code to copy does what the page does: it is run here, as it was copied."""

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.support.stub_knobs import TEXT
from tests.unit.service.door import Door
from tests.web.chatting import Chat

NASTY = 'It\'s "quoted", $HOME `id` \\ {"a": 1}\nand ünïcode 🌊'


@pytest.fixture
def typed(door: Door, open_chat: Callable[..., Chat]) -> Chat:
    """A page on which a conversation is under way, with settings, and a message typed."""
    chat = open_chat(door, permissions=["clipboard-read", "clipboard-write"])
    expect(chat.state).to_contain_text("ready")
    chat.page.get_by_label("System prompt").fill("Don't be verbose.")
    chat.page.get_by_label("Temperature").fill("0.5")
    chat.page.get_by_label("Top k").fill("20")
    chat.ask("Hello")
    expect(chat.facts).to_contain_text("tokens/s")
    chat.draft.fill(NASTY)
    return chat


def copied(chat: Chat) -> str:
    chat.page.get_by_role("button", name="Copy", exact=True).click()
    expect(chat.page.get_by_role("button", name="Copied")).to_be_visible()
    return str(chat.page.evaluate("navigator.clipboard.readText()"))


def sent_by_the_page(door: Door, chat: Chat) -> object:
    """What the page sends for the same message."""
    before = len(door.engine.chats)
    chat.draft.press("Enter")
    expect(chat.facts.nth(1)).to_contain_text("tokens/s")
    return door.engine.chats[before].json


def test_curl_as_copied_sends_what_the_page_sends(door: Door, typed: Chat) -> None:
    ran = subprocess.run(["bash", "-c", copied(typed)], capture_output=True, text=True, timeout=30)
    assert TEXT[0] in ran.stdout
    assert ran.stdout.rstrip().endswith("data: [DONE]")
    by_curl = door.engine.chats[-1].json
    assert by_curl["messages"][-1]["content"] == NASTY
    assert by_curl == sent_by_the_page(door, typed)


@pytest.mark.parametrize("streams", [True, False])
def test_python_as_copied_sends_what_the_page_sends(door: Door, typed: Chat, streams: bool) -> None:
    typed.page.get_by_label("Stream the answer").set_checked(streams)
    typed.page.get_by_label("Python").check()
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    program = [sys.executable, "-c", copied(typed)]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=60, env=environ)
    assert ran.stdout.strip() == "".join(TEXT).strip(), ran.stderr
    assert door.engine.chats[-1].json == sent_by_the_page(door, typed)


def test_it_can_be_copied_over_plain_http_from_another_machine(door: Door, open_chat: Callable[..., Chat]) -> None:
    chat = open_chat(f"http://berth.test:{door.service.port}")
    expect(chat.state).to_contain_text("ready")
    assert chat.page.evaluate("navigator.clipboard === undefined")
    chat.page.get_by_role("button", name="Copy", exact=True).click()
    expect(chat.page.get_by_role("button", name="Copied")).to_be_visible()
    chat.draft.press("Control+v")
    expect(chat.draft).to_have_value(
        re.compile(rf"^curl -N http://berth\.test:{door.service.port}/v1/chat/completions")
    )
