"""Fields of OPEA's requests, put under the names and into the shapes that vLLM knows."""

from collections.abc import Mapping
from typing import Any

from llm_service.errors import BadRequest

Fields = dict[str, Any]

ALIASES = (("max_tokens", "max_new_tokens"), ("stream", "streaming"))
DEFAULT_MAX_TOKENS = 1024


def turns_of_object(messages: Fields) -> tuple[list[Fields], str]:
    """Return {system, user} as a list of messages, and the user's text; raise BadRequest when it is something else."""
    if set(messages) - {"system", "user"}:
        raise BadRequest("messages may hold only system and user; use OpenAI's list for more turns.", param="messages")
    system, user = messages.get("system"), messages.get("user")
    if not isinstance(user, str):
        raise BadRequest("messages.user must be a string.", param="messages")
    if system is not None and not isinstance(system, str):
        raise BadRequest("messages.system must be a string.", param="messages")
    turns = [{"role": "user", "content": user}]
    # Some chat templates know no system role, so an empty one is not sent.
    if system and system.strip():
        turns.insert(0, {"role": "system", "content": system})
    return turns, user


def turns_of_list(messages: list[Any]) -> tuple[list[Any], str]:
    """Return the messages of a list without empty system messages, and the text of the first of a user."""
    turns = [turn for turn in messages if not _is_blank_system(turn)]
    users = (turn.get("content") for turn in turns if isinstance(turn, dict) and turn.get("role") == "user")
    return turns, _text_of(next(users, ""))


def _is_blank_system(turn: Any) -> bool:
    if not isinstance(turn, dict) or turn.get("role") != "system":
        return False
    content = turn.get("content")
    return content is None or (isinstance(content, str) and not content.strip())


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(_text_of(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def rename_aliases(fields: Fields) -> None:
    """Put OPEA's names under OpenAI's, in place; raise BadRequest when a value is of no use."""
    for name, alias in ALIASES:
        rename(fields, name, alias)


def rename(fields: Fields, name: str, alias: str) -> None:
    """Put one field under another name, in place; raise BadRequest when both are there and differ."""
    value = fields.pop(alias, None)
    if value is None:
        return
    if name == "max_tokens" and (type(value) is not int or value < 1):
        raise BadRequest(f"{alias} must be a whole number above 0.", param=alias)
    if name == "stream" and not isinstance(value, bool):
        raise BadRequest(f"{alias} must be true or false.", param=alias)
    other = fields.get(name)
    if other is not None and (type(other) is not type(value) or other != value):
        raise BadRequest(f"{name} and {alias} disagree; send one of them.", param=alias)
    fields[name] = value


def fill_defaults(edited: Fields, defaults: Mapping[str, float]) -> int | None:
    """Fill in the defaults of a form, in place; return the limit on new tokens when the client gave none."""
    for name, value in defaults.items():
        if edited.get(name) is None:
            edited[name] = value
    if edited.get("max_tokens") is not None or edited.get("max_completion_tokens") is not None:
        return None
    edited.pop("max_tokens", None)
    return DEFAULT_MAX_TOKENS


def not_applied(fields: Fields, ignored: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence about each field that is given and has no effect; `ignored` has the reasons."""
    if ignored.keys().isdisjoint(fields):
        return ()
    return tuple(f"{name} is not applied: {why}" for name, why in ignored.items() if fields.get(name) is not None)
