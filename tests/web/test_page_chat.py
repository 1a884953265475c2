"""Chatting: what is typed reaches the engine, tokens show as they come, and what goes wrong is said."""

import fcntl
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.support.stub_engine import StubEngine
from tests.support.stub_knobs import TEXT
from tests.support.waiting import wait_until
from tests.unit.service.door import Door
from tests.web.chatting import Chat

ANSWER = "".join(TEXT).strip()


def test_a_question_typed_is_answered_in_a_stream(door: Door, chat: Chat) -> None:
    chat.ask("What is deep learning?")
    expect(chat.answers).to_have_text(ANSWER)
    expect(chat.questions).to_have_text("What is deep learning?")
    sent = door.engine.chats[0].json
    assert sent["messages"] == [{"role": "user", "content": "What is deep learning?"}]
    assert (sent["model"], sent["stream"]) == ("stub-model", True)
    expect(chat.draft).to_be_focused()
    expect(chat.draft).to_have_value("")


def test_tokens_their_rate_and_the_first_ones_time_stand_below_the_answer(door: Door, chat: Chat) -> None:
    door.engine.knobs.piece_seconds = 0.02
    chat.ask("Hello")
    expect(chat.facts).to_have_text(re.compile(r"^5 tokens, [\d.,]+ tokens/s, first after [\d.]+ m?s$"))


def test_the_engines_own_count_of_tokens_is_shown(door: Door, open_chat: Callable[..., Chat]) -> None:
    chat = open_chat(door)
    chat.page.get_by_label("Stream the answer").uncheck()
    expect(chat.state).to_contain_text("ready")
    door.engine.knobs.pieces = ["Two", " pieces."]
    chat.ask("Hello")
    expect(chat.answers).to_have_text("Two pieces.")
    expect(chat.facts).to_have_text(re.compile(r"^5 tokens, "))  # what the stub's usage says
    assert "stream" not in door.engine.chats[0].json


def test_text_shows_before_the_answer_is_complete_and_stop_ends_the_generation(door: Door, chat: Chat) -> None:
    door.engine.knobs.hold = "after first piece"
    chat.ask("Hello")
    expect(chat.answers).to_have_text(TEXT[0])
    expect(chat.send).to_be_hidden()
    chat.stop.click()
    expect(chat.facts).to_contain_text("stopped")
    wait_until(lambda: door.engine.chats[0].client_left, 20, "the engine's connection closes")
    expect(chat.draft).to_be_focused()


def test_escape_stops_and_what_had_come_is_part_of_the_conversation(door: Door, chat: Chat) -> None:
    door.engine.knobs.hold = "after first piece"
    chat.ask("One")
    expect(chat.answers).to_have_text(TEXT[0])
    chat.page.keyboard.press("Escape")
    expect(chat.facts).to_contain_text("stopped")
    door.engine.knobs.hold = None
    chat.ask("Two")
    expect(chat.answers.nth(1)).to_have_text(ANSWER)
    said = [(message["role"], message["content"]) for message in door.engine.chats[1].json["messages"]]
    assert said == [("user", "One"), ("assistant", TEXT[0]), ("user", "Two")]


def test_a_stop_before_the_first_token_ends_the_request(door: Door, chat: Chat) -> None:
    door.engine.knobs.hold = "before headers"
    chat.ask("Hello")
    wait_until(lambda: door.engine.chats, 20, "the engine gets the request")
    chat.page.keyboard.press("Escape")
    expect(chat.facts).to_contain_text("stopped")
    wait_until(lambda: door.engine.chats[0].client_left, 20, "the engine's connection closes")


def test_shift_and_enter_start_a_line(door: Door, chat: Chat) -> None:
    chat.draft.press_sequentially("One")
    chat.draft.press("Shift+Enter")
    chat.draft.press_sequentially("Two")
    chat.draft.press("Enter")
    expect(chat.answers).to_have_text(ANSWER)
    assert door.engine.chats[0].json["messages"][0]["content"] == "One\nTwo"


def test_the_system_prompt_and_the_settings_are_sent_and_what_is_empty_is_not(door: Door, chat: Chat) -> None:
    chat.page.get_by_label("System prompt").fill("Be brief.")
    chat.page.get_by_label("Temperature").fill("0.2")
    chat.page.get_by_label("Max tokens").fill("32")
    chat.page.get_by_label("Top k").fill("20")
    chat.ask("Hello")
    expect(chat.answers).to_have_text(ANSWER)
    sent = door.engine.chats[0].json
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["temperature"], sent["max_tokens"], sent["top_k"]) == (0.2, 32, 20)
    assert not {"top_p", "seed", "repetition_penalty"} & set(sent)


def test_a_setting_that_no_engine_takes_is_not_sent(door: Door, chat: Chat) -> None:
    chat.page.get_by_label("Temperature").fill("9")
    chat.ask("Hello")
    expect(chat.page.get_by_label("Temperature")).to_be_focused()
    assert door.engine.chats == []
    expect(chat.draft).to_have_value("Hello")


def test_a_new_chat_forgets_the_one_before_and_stops_what_runs(door: Door, chat: Chat) -> None:
    door.engine.knobs.hold = "after first piece"
    chat.ask("One")
    expect(chat.answers).to_have_text(TEXT[0])
    chat.page.get_by_role("button", name="New chat").click()
    wait_until(lambda: door.engine.chats[0].client_left, 20, "the engine's connection closes")
    expect(chat.answers).to_have_count(0)
    door.engine.knobs.hold = None
    chat.ask("Two")
    expect(chat.answers).to_have_text(ANSWER)
    assert len(door.engine.chats[1].json["messages"]) == 1


def test_what_a_model_writes_is_never_html(door: Door, chat: Chat) -> None:
    door.engine.knobs.pieces = ["<img src=x onerror=alert(1)> **bold** `a<b>`\n\n```js\n<script>", "x()</script>\n```"]
    chat.ask("Hello")
    expect(chat.answers.locator("pre")).to_have_text("<script>x()</script>")
    expect(chat.answers.locator("strong")).to_have_text("bold")
    expect(chat.answers.locator("code")).to_have_text("a<b>")
    expect(chat.answers).to_contain_text("<img src=x onerror=alert(1)>")
    assert chat.answers.locator("img, script").count() == 0


def test_events_cut_at_every_byte_are_read(chat: Chat) -> None:
    sent = ": a comment\n\ndata: Grüße 🌊\r\n\r\nevent: other\ndata:one\ndata: two\n\ndata: not complete"
    read = """async (text) => {
        const { events } = await import("/page/events.js");
        const bytes = new TextEncoder().encode(text);
        const stream = new ReadableStream({
            start(control) {
                for (const byte of bytes) control.enqueue(new Uint8Array([byte]));
                control.close();
            },
        });
        const found = [];
        for await (const data of events(stream)) found.push(data);
        return found;
    }"""
    assert chat.page.evaluate(read, sent) == ["Grüße 🌊", "one\ntwo"]


def test_what_the_engine_refuses_is_told_in_its_own_words(door: Door, chat: Chat) -> None:
    door.engine.knobs.status = 400
    chat.ask("Hello")
    expect(chat.problem).to_contain_text("max_tokens is too large")


def test_an_engine_lost_in_the_stream_is_told_and_trying_again_asks_the_same(door: Door, chat: Chat) -> None:
    door.engine.knobs.die = "in stream"
    chat.ask("Hello")
    expect(chat.problem).to_contain_text("The engine")  # the sentence in the error event
    expect(chat.answers).to_have_text("".join(TEXT[:2]))
    door.engine.knobs.die = None
    expect(chat.state).to_contain_text("ready")
    chat.page.get_by_role("button", name="Try again").click()
    expect(chat.answers).to_have_text(ANSWER)
    assert door.engine.chats[0].json == door.engine.chats[-1].json


def test_a_question_that_got_no_answer_is_no_part_of_the_next_request(door: Door, chat: Chat) -> None:
    door.engine.knobs.status = 400
    chat.ask("One")
    expect(chat.problem).to_be_visible()
    door.engine.knobs.status = 200
    chat.ask("Two")
    expect(chat.answers.nth(1)).to_have_text(ANSWER)
    assert door.engine.chats[1].json["messages"] == [{"role": "user", "content": "Two"}]


def test_while_the_engine_loads_the_page_says_so_and_goes_on_by_itself(
    open_door: Callable[..., Door], open_chat: Callable[..., Any]
) -> None:
    engine = StubEngine()
    chat = open_chat(open_door(engine))
    expect(chat.state).to_contain_text("starting")
    expect(chat.notice).to_contain_text("nothing listens at its address yet")
    expect(chat.notice).to_contain_text("s so far.")
    chat.ask("Hello")
    expect(chat.draft).to_have_value("Hello")
    expect(chat.send).to_be_disabled()
    engine.knobs.models = []
    engine.listen()
    expect(chat.state).to_contain_text("loading")
    engine.knobs.models = ["stub-model"]
    expect(chat.state).to_contain_text("ready")
    expect(chat.notice).to_be_hidden()
    chat.draft.press("Enter")
    expect(chat.answers).to_have_text(ANSWER)


def test_how_far_an_engine_is_that_loads_shows_as_a_bar(
    open_door: Callable[..., Door], open_chat: Callable[..., Chat], tmp_path: Path
) -> None:
    file = tmp_path / "phase.json"
    file.write_text('{"phase": {"name": "loading weights", "fraction": 0.25, "detail": "1/4 files"}}')
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as the engine's processes do while they live
        chat = open_chat(open_door(StubEngine(), LLM_PHASE_FILE=str(file)))
        expect(chat.state).to_contain_text("loading")
        expect(chat.notice).to_contain_text("loading weights (25 %, 1/4 files)")
        expect(chat.notice.get_by_role("progressbar")).to_have_js_property("value", 0.25)


def test_an_engine_that_went_down_is_told_of_and_shows_in_the_state(door: Door, chat: Chat) -> None:
    door.engine.kill()
    chat.ask("Hello")
    expect(chat.problem).to_contain_text("The engine")
    expect(chat.state).not_to_contain_text("ready")
    expect(chat.notice).to_be_visible()


def test_an_engine_that_has_failed_shows_in_the_state(
    open_door: Callable[..., Door], open_chat: Callable[..., Chat]
) -> None:
    door = open_door()
    door.engine.knobs.healthy = False
    chat = open_chat(door)
    expect(chat.state).to_contain_text("failed")
    expect(chat.notice).to_contain_text("it is not healthy")


def test_a_service_that_is_gone_is_told_of(open_door: Callable[..., Door], open_chat: Callable[..., Chat]) -> None:
    door = open_door()
    chat = open_chat(door)
    expect(chat.state).to_contain_text("ready")
    door.service.stop()
    chat.ask("Hello")
    expect(chat.problem).to_contain_text("The service does not answer.")
    expect(chat.state).to_contain_text("no answer")


def test_of_several_models_the_chosen_one_is_asked(
    open_door: Callable[..., Door], open_chat: Callable[..., Chat]
) -> None:
    door = open_door()
    door.engine.knobs.models = ["base", "tuned"]
    chat = open_chat(door)
    chat.page.get_by_label("Model").select_option("tuned")
    expect(chat.state).to_contain_text("tuned")
    expect(chat.page.locator("#window")).to_have_text("tuned, 4,096 tokens of context")
    chat.ask("Hello")
    expect(chat.answers).to_have_text(ANSWER)
    assert door.engine.chats[0].json["model"] == "tuned"
