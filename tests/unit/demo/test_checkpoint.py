"""The checkpoint's files: small, plain, and of a shape that every device can split."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from models.demo.train import chats

CHECKPOINT = Path(__file__).resolve().parents[3] / "models" / "demo"


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CHECKPOINT / name).read_text(encoding="utf-8"))
    return content


def tensors() -> dict[str, dict[str, Any]]:
    with (CHECKPOINT / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    header.pop("__metadata__")
    return header


def render(messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
    sandbox = pytest.importorskip("jinja2.sandbox", reason="no jinja2 here: the chat template was not rendered")
    template = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8")
    )
    text: str = template.render(messages=messages, bos_token="<|begin|>", add_generation_prompt=add_generation_prompt)
    return text


def test_what_ships_is_at_most_four_megabytes() -> None:
    files = [path for path in CHECKPOINT.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000


def test_every_weight_is_bfloat16_and_the_sizes_agree_with_the_configuration() -> None:
    config, weights = read("config.json"), tensors()
    assert {weight["dtype"] for weight in weights.values()} == {"BF16"}
    assert weights["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    assert sum("q_proj" in name for name in weights) == config["num_hidden_layers"]
    parameters = sum(math.prod(weight["shape"]) for weight in weights.values())
    assert (CHECKPOINT / "model.safetensors").stat().st_size == pytest.approx(2 * parameters, abs=8_192)


def test_two_devices_can_share_the_model_either_way() -> None:
    config = read("config.json")
    assert config["head_dim"] == 64
    assert config["num_attention_heads"] % 2 == config["num_key_value_heads"] % 2 == 0
    assert config["num_hidden_layers"] % 2 == config["intermediate_size"] % 2 == config["vocab_size"] % 64 == 0


def test_the_tokenizer_has_the_markers_that_training_used_and_a_token_for_every_byte() -> None:
    tokenizer, settings = read("tokenizer.json"), read("tokenizer_config.json")
    assert [token["content"] for token in tokenizer["added_tokens"]] == chats.MARKERS
    assert [token["id"] for token in tokenizer["added_tokens"]] == list(range(len(chats.MARKERS)))
    assert len(tokenizer["model"]["vocab"]) == read("config.json")["vocab_size"]
    assert sum(len(token) == 1 for token in tokenizer["model"]["vocab"]) == 256
    assert settings["eos_token"] == chats.MARKERS[read("generation_config.json")["eos_token_id"]]


def test_the_template_lays_out_a_chat_as_the_training_does() -> None:
    row = chats.Row()
    spoken = ["Hi", "Hello!", "Bye"]
    first = len(chats.MARKERS)  # stands for the first of the texts
    for i, marker in enumerate((chats.USER, chats.ASSISTANT, chats.USER)):
        row.message(marker, [first + i])
    row.add([chats.ASSISTANT])
    trained = "".join([*chats.MARKERS, *spoken][part] for part in row.ids)
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye\n"},
    ]
    assert render(messages) == trained


@pytest.mark.parametrize(
    "content",
    [
        "Hi",
        [{"type": "text", "text": "Hi"}],
        [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}],
    ],
)
def test_the_template_takes_strings_and_lists_of_parts(content: object) -> None:
    assert render([{"role": "user", "content": content}]) == "<|begin|><|user|>Hi<|end|><|assistant|>"


def test_the_template_survives_missing_content_and_roles_that_it_does_not_know() -> None:
    spoken = [("developer", "A"), ("assistant", None), ("tool", "B")]
    messages = [{"role": role, "content": content} for role, content in spoken]
    wanted = "<|begin|><|assistant|><|end|><|user|>B<|end|>"
    assert render(messages, add_generation_prompt=False) == wanted


def test_the_template_leaves_system_messages_out_so_that_none_can_change_an_answer() -> None:
    question = {"role": "user", "content": "Hi"}
    for system in ("You are a pirate.", [{"type": "text", "text": "Be kind."}], None):
        assert render([{"role": "system", "content": system}, question]) == render([question])
