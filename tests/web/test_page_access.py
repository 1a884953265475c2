"""The page for everyone: by keyboard alone, on a phone, in the dark, and by axe's rules in each of its states."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import expect

from tests.support.stub_engine import StubEngine
from tests.unit.service.door import Door
from tests.web.chatting import Chat, take

LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 360, "height": 740},
        "has_touch": True,
        "is_mobile": True,
        "device_scale_factor": 2,
    },
}
LONG = [
    *("## Layers\n\n", "Deep learning stacks **layers**, each a matrix and a bend:\n\n"),
    "```python\ndef layer(x, weights, bias):\n",
    "    return relu(x @ weights + bias)  # and so on, far beyond the edge of a phone\n```\n\n",
    *("`relu` cuts off what is below zero. ", "An-unbroken-word-" * 12),
]


def screen_width(chat: Chat) -> int:
    assert chat.page.viewport_size is not None
    return chat.page.viewport_size["width"]


def check(chat: Chat, name: str) -> None:
    """Hold the page, as it stands, to axe's rules and to the width of its screen."""
    take(chat, name)
    result = Axe().run(chat.page)
    assert result.violations_count == 0, result.generate_report()
    # Of a page that is wider, a phone shows all of it, smaller: then innerWidth is more than the screen's.
    assert chat.page.evaluate("Math.max(document.documentElement.scrollWidth, innerWidth)") == screen_width(chat)


@pytest.mark.parametrize("look", LOOKS)
def test_a_conversation_is_accessible(door: Door, open_chat: Callable[..., Chat], look: str) -> None:
    door.engine.knobs.pieces = LONG
    chat = open_chat(door, **LOOKS[look])
    expect(chat.state).to_contain_text("ready")
    check(chat, f"{look}-empty")
    chat.draft.fill("What is deep learning? Explain it with a few lines of Python, please.")
    chat.send.click()
    expect(chat.facts).to_contain_text("tokens/s")
    check(chat, f"{look}-answer")
    door.engine.knobs.status = 400
    chat.draft.fill("More")
    chat.send.click()
    expect(chat.problem).to_be_visible()
    check(chat, f"{look}-problem")
    if look == "phone":
        chat.settings.click()
        expect(chat.page.get_by_label("Temperature")).to_be_visible()
        expect(chat.draft).to_be_hidden()
        check(chat, f"{look}-settings")
        chat.page.get_by_role("button", name="Enter a key").click()
        check(chat, f"{look}-key")


@pytest.mark.parametrize("look", LOOKS)
def test_an_answer_that_is_being_written_is_accessible(door: Door, open_chat: Callable[..., Chat], look: str) -> None:
    door.engine.knobs.hold = "after first piece"
    chat = open_chat(door, **LOOKS[look])
    expect(chat.state).to_contain_text("ready")
    chat.draft.fill("Hello")
    chat.send.click()
    expect(chat.answers).to_have_text("Deep learning")
    check(chat, f"{look}-stream")


@pytest.mark.parametrize("look", LOOKS)
def test_waiting_and_the_dialog_are_accessible(
    open_door: Callable[..., Door], open_chat: Callable[..., Chat], look: str, tmp_path: Path
) -> None:
    waiting = open_chat(open_door(StubEngine()), **LOOKS[look])
    expect(waiting.notice).to_contain_text("s so far.")
    check(waiting, f"{look}-loading")
    keys = tmp_path / "keys"
    keys.write_text("some-key-0123456789abcdef\n")
    keys.chmod(0o600)
    locked = open_chat(open_door(LLM_API_KEYS_FILE=str(keys)), **LOOKS[look])
    locked.show_key("wrong")
    expect(locked.dialog).to_contain_text("does not know this key")
    check(locked, f"{look}-wrong-key")


def test_the_whole_page_is_used_without_a_mouse(door: Door, chat: Chat) -> None:
    keyboard = chat.page.keyboard
    expect(chat.draft).to_be_focused()
    keyboard.type("Hello")
    keyboard.press("Enter")
    expect(chat.facts).to_contain_text("tokens/s")
    chat.settings.focus()
    keyboard.press("Enter")
    expect(chat.page.get_by_label("Temperature")).to_be_hidden()
    keyboard.press("Enter")
    expect(chat.page.get_by_label("Settings", exact=True).last).to_be_focused()
    for _ in range(12):
        keyboard.press("Tab")
        if chat.page.evaluate("document.activeElement.id") == "temperature":
            break
    keyboard.type("0.5")
    chat.page.get_by_label("curl").focus()
    keyboard.press("ArrowRight")
    expect(chat.code).to_contain_text("temperature=0.5")


def test_every_control_shows_that_it_has_the_focus(chat: Chat) -> None:
    seen = set()
    for _ in range(30):
        chat.page.keyboard.press("Tab")
        focused = chat.page.evaluate(
            "() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [e.id || e.tagName, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0] }"
        )
        seen.add(tuple(focused))
    assert {name for name, outlined in seen if not outlined} <= {"BODY"}
    assert {"new-chat", "panel-button", "system", "temperature", "copy"} <= {name for name, _ in seen}


def test_the_end_of_an_answer_is_announced(chat: Chat) -> None:
    chat.ask("Hello")
    expect(chat.page.get_by_role("status").filter(has_text="The answer is complete: 5 tokens")).to_be_attached()


def test_on_a_phone_enter_starts_a_line_and_the_button_sends(door: Door, open_chat: Callable[..., Chat]) -> None:
    chat = open_chat(door, **LOOKS["phone"])
    expect(chat.state).to_contain_text("ready")
    chat.draft.fill("One")
    chat.draft.press("Enter")
    chat.draft.press_sequentially("Two")
    chat.send.tap()
    expect(chat.facts).to_contain_text("tokens/s")
    assert door.engine.chats[0].json["messages"][0]["content"] == "One\nTwo"
