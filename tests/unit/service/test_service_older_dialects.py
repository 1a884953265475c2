"""A string of GenAIComps, a list of Enterprise-RAG 2.x, and OPEA's output guard. No network here."""

from typing import Any

import pytest

from llm_service.forms import dialects
from llm_service.forms.dialects import Form
from tests.unit.service.understanding import LIST, USER, refused, sent, understood


def test_a_string_is_a_prompt_with_the_defaults_that_reached_the_engine() -> None:
    call = understood({"messages": "Hello"})
    assert (call.path, call.stream) == ("/v1/completions", False)
    assert sent({"messages": "Hello"}) == {
        "prompt": "Hello",
        "stream": False,
        "max_tokens": 1024,
        "temperature": 0.01,
        "model": "m",
    }


def test_a_string_is_sent_with_all_that_came_with_it() -> None:
    settings = {"top_k": 5, "temperature": 0.7, "echo": True, "stream": True, "new_in_vllm": [1], "model": "x"}
    assert sent({"messages": "Hello", "max_completion_tokens": 9, **settings}) == {
        "prompt": "Hello",
        "max_tokens": 9,
        **settings,
    }


@pytest.mark.parametrize(("window", "limit"), [(None, 1024), (4096, 1024), (1024, 512), (512, 256)])
def test_the_default_limit_of_a_string_is_half_of_a_small_window(window: int | None, limit: int) -> None:
    assert sent({"messages": "Hello"}, window=window)["max_tokens"] == limit


def test_what_made_a_prompt_of_a_string_elsewhere_is_named_and_not_sent() -> None:
    body = {"messages": "Hello", "documents": ["a"], "chat_template": "{question}", "typical_p": 0.9}
    assert not {"documents", "chat_template", "typical_p"} & set(sent(body))
    assert [text.split()[0] for text in understood(body).warnings] == ["typical_p", "documents", "chat_template"]


def test_a_string_with_another_prompt_is_refused() -> None:
    assert "prompt" in refused({"messages": "Hello", "prompt": "Bye"})


NEWER = [{"role": "system", "content": "Be brief."}, *LIST, {"role": "assistant", "content": "Hi"}]


@pytest.mark.parametrize(
    "mark",
    [
        {"max_new_tokens": 5},
        {"streaming": True},
        {"output_guardrail_params": None},
        {"input_guardrail_params": None},
        {"data": {"reranked_docs": []}},
    ],
)
def test_a_list_with_a_field_of_enterprise_rag_is_in_its_form(mark: dict[str, Any]) -> None:
    call = understood({"messages": NEWER, **mark})
    assert (call.form, call.newer, call.stream, call.prompt) == (Form.OPEA, True, True, "Hello")
    forwarded = sent({"messages": NEWER, **mark})
    assert forwarded["messages"] == NEWER
    assert {name: forwarded[name] for name in dialects.OPEA_DEFAULTS} == dialects.OPEA_DEFAULTS
    assert forwarded["max_tokens"] == mark.get("max_new_tokens", 1024)
    assert not set(mark) & set(forwarded)


def test_a_list_of_enterprise_rag_may_ask_for_tools_and_several_answers() -> None:
    assert sent({"messages": NEWER, "max_new_tokens": 5, "n": 2, "tools": [], "stream": False})["n"] == 2


@pytest.mark.parametrize(
    ("content", "text"),
    [("a", "a"), ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}, 1], "ab"), (None, "")],
)
def test_the_prompt_that_is_repeated_is_the_text_of_the_first_user(content: Any, text: str) -> None:
    turns = [1, {"role": "system", "content": ""}, {"role": "user", "content": content}, {"role": "user"}]
    call = understood({"messages": turns, "max_new_tokens": 5})
    assert (call.prompt, call.fields["messages"]) == (text, [1, *turns[2:]])


@pytest.mark.parametrize("messages", [USER, NEWER])
@pytest.mark.parametrize("asked", [True, False, None])
def test_behind_an_output_guard_opea_is_answered_whole_with_the_wish_repeated(
    messages: Any, asked: bool | None
) -> None:
    name = "stream" if messages is NEWER else "streaming"
    wish = {} if asked is None else {name: asked}
    call = understood(
        {"messages": messages, "max_new_tokens": 5, "stream_options": {"include_usage": True}, **wish},
        output_guard=True,
    )
    assert (call.stream, call.fields["stream"], call.echo[name]) == (False, False, asked is not False)
    assert ("stream_options" in call.fields) is (asked is False)


def test_an_output_guard_changes_nothing_for_others() -> None:
    assert understood({"messages": LIST, "stream": True}, output_guard=True).stream is True
    assert understood({"messages": "Hello", "stream": True}, output_guard=True).stream is True
