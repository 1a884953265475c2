"""The key: asked for when the service wants one, kept in the tab alone, and shown to nobody."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.unit.service.door import Door
from tests.web.chatting import Chat

KEY = "the-readers-own-key-0123456789abcdef"


@pytest.fixture
def locked(tmp_path: Path, open_door: Callable[..., Door]) -> Door:
    """A door that asks for a key."""
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    return open_door(LLM_API_KEYS_FILE=str(file))


def test_the_page_asks_for_a_key_and_chats_with_it(locked: Door, open_chat: Callable[..., Chat]) -> None:
    chat = open_chat(locked)
    expect(chat.dialog).to_be_visible()
    chat.show_key(KEY)
    expect(chat.state).to_contain_text("ready")
    chat.ask("Hello")
    expect(chat.answers).to_contain_text("Deep learning")


def test_a_wrong_key_is_said_to_be_one_and_the_right_one_may_follow(
    locked: Door, open_chat: Callable[..., Chat]
) -> None:
    chat = open_chat(locked)
    chat.show_key("wrong-key")
    expect(chat.dialog).to_contain_text("does not know this key")
    chat.show_key("with blanks")
    expect(chat.dialog).to_contain_text("without blanks")
    chat.show_key(KEY)
    expect(chat.dialog).to_be_hidden()
    expect(chat.state).to_contain_text("ready")


def test_a_key_that_is_taken_away_is_asked_for_again(
    locked: Door, open_chat: Callable[..., Chat], tmp_path: Path
) -> None:
    chat = open_chat(locked)
    chat.show_key(KEY)
    expect(chat.state).to_contain_text("ready")
    (tmp_path / "keys").write_text("another-key-0123456789abcdef\n")
    # The file counts within a second: ask until it does.
    for _ in range(20):
        chat.ask("Hello")
        expect(chat.stop).to_be_hidden()
        if chat.problem.count():
            break
        chat.page.wait_for_timeout(200)
    expect(chat.dialog).to_contain_text("does not know this key")
    expect(chat.state).to_contain_text("key needed")


def test_the_key_stays_in_the_tab(locked: Door, open_chat: Callable[..., Chat]) -> None:
    chat = open_chat(locked)
    chat.show_key(KEY)
    expect(chat.state).to_contain_text("ready")
    chat.page.reload()
    expect(chat.state).to_contain_text("ready")
    assert chat.page.context.cookies() == []
    assert chat.page.evaluate("localStorage.length") == 0
    assert KEY not in chat.page.content()
    assert KEY not in chat.page.url
    other = chat.page.context.new_page()
    other.goto(locked.service.url)
    expect(other.get_by_role("dialog")).to_be_visible()


def test_forgetting_the_key_locks_the_page(locked: Door, open_chat: Callable[..., Chat]) -> None:
    chat = open_chat(locked)
    chat.show_key(KEY)
    expect(chat.state).to_contain_text("ready")
    chat.page.get_by_role("button", name="Change the key").click()
    chat.page.get_by_role("button", name="Forget it").click()
    expect(chat.state).to_contain_text("key needed")
    assert chat.page.evaluate("sessionStorage.length") == 0


def test_the_key_is_in_no_code_to_copy(locked: Door, open_chat: Callable[..., Chat]) -> None:
    chat = open_chat(locked)
    chat.show_key(KEY)
    expect(chat.code).to_contain_text("Authorization: Bearer $LLM_API_KEY")
    chat.page.get_by_label("Python").check()
    expect(chat.code).to_contain_text('os.environ["LLM_API_KEY"]')
    assert KEY not in chat.code.inner_text()
