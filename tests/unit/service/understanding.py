"""What the service makes of a body, and what the engine would get. No network here."""

from typing import Any

import orjson
import pytest

from llm_service.errors import BadRequest
from llm_service.forms import dialects
from llm_service.forms.dialects import Call

USER = {"system": "Be brief.", "user": "Hello"}
LIST = [{"role": "user", "content": "Hello"}]


def understood(body: dict[str, Any], **options: bool) -> Call:
    raw = orjson.dumps(body)
    fields = dialects.read(raw)
    return dialects.parse(dialects.form_of(fields), fields, raw, **options)


def sent(body: dict[str, Any], model: str = "m", window: int | None = 4096) -> dict[str, Any]:
    forwarded: dict[str, Any] = orjson.loads(understood(body).engine_body(model, window))
    return forwarded


def refused(body: dict[str, Any]) -> str:
    with pytest.raises(BadRequest) as caught:
        understood(body)
    return caught.value.message
