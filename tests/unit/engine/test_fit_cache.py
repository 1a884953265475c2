"""The KV cache as vLLM keeps it: figures that vLLM 0.32 on CPU reported for 64 MiB (benchmarks/plan asks it anew)."""

from typing import Any

import pytest

from engine.fit import cache, shape
from engine.fit.cache import Cache
from engine.fit.shape import Unreadable
from tests.unit.engine.fitting import LLAMA_70B, SMALL

ROOM = 64 << 20
WINDOWS = {"sliding_window": 512, "head_dim": 64, "model_type": "gemma3_text", "num_hidden_layers": 8}
LATENT = {"model_type": "deepseek_v3", "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128}


def of(config: dict[str, Any], **given: Any) -> Cache:
    return cache.of(shape.read({**SMALL, **config}), **{"device": "cpu", **given})


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({}, 43_648),
        ({"model_type": "mistral", "sliding_window": 1024}, 55_869),
        (
            {**WINDOWS, "layer_types": ["sliding_attention"] * 5 + ["full_attention"] + ["sliding_attention"] * 2},
            23_431,
        ),
    ],
)
def test_tokens_are_those_that_vllm_reports(config: dict[str, Any], tokens: int) -> None:
    assert of(config).capacity(ROOM, 4096) == tokens


def test_key_heads_are_shared_out_and_copied_where_they_are_fewer_than_cards() -> None:
    whole = of(LLAMA_70B, device="cuda").block_bytes
    assert of(LLAMA_70B, device="cuda", tensor=8).block_bytes == whole // 8
    assert of(LLAMA_70B, device="cuda", tensor=16).block_bytes == whole // 8


def test_a_latent_cache_is_one_vector_on_every_card() -> None:
    alone = of(LATENT, device="cuda")
    assert alone.block_bytes == 16 * 3 * (512 + 64) * 2
    assert of(LATENT, device="cuda", tensor=2).block_bytes == alone.block_bytes


def test_stages_keep_their_own_layers_alone() -> None:
    assert of({}, pipeline=3).block_bytes * 3 == of({}).block_bytes


def test_a_scale_for_each_token_and_head_counts() -> None:
    assert of({}, dtype="int8_per_token_head").block_bytes == 128 * 3 * 2 * 2 * (64 + 4)
    assert of({}, dtype="fp8").block_bytes * 2 == of({}).block_bytes


def test_a_cache_that_is_not_known_is_said_not_to_be() -> None:
    with pytest.raises(Unreadable, match="nvfp4"):
        of({}, dtype="nvfp4")
    for kind in ({"model_type": "deepseek_v32"}, {"model_type": "mamba2"}, {"layer_types": ["spiral_attention"]}):
        with pytest.raises(Unreadable):
            of(kind)


def test_the_longest_request_is_the_longest_that_fits() -> None:
    kept = of({})
    longest = kept.longest(ROOM, 1 << 20)
    assert kept.needed(longest, 1) <= ROOM < kept.needed(longest + 1, 1)
    assert kept.longest(10, 1 << 20) == 0


def test_a_pattern_of_windows_counts_where_layers_are_not_listed() -> None:
    listed = [*["sliding_attention"] * 5, "full_attention"]
    assert of({**WINDOWS, "num_hidden_layers": 6}) == of({**WINDOWS, "num_hidden_layers": 6, "layer_types": listed})
    assert of({"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": False}) == of(
        {"model_type": "qwen2"}
    )


def test_a_length_that_is_scaled_already_is_not_scaled_again() -> None:
    def longest(**scaling: Any) -> int | None:
        return shape.read({**SMALL, "rope_scaling": scaling}).longest

    assert longest(rope_type="llama3", factor=8.0) == 4096
    assert longest(rope_type="yarn", factor=4.0, original_max_position_embeddings=1024) == 4096
    assert longest(rope_type="linear", factor=4.0) == 16384
