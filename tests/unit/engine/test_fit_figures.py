"""The figures that operators know from guides for Llama on H100, A100 and A10G cards, and published sizes of models."""

from typing import Any

import pytest

from engine.fit import GB, GIB, estimate, plan, shape
from engine.fit.cards import find
from engine.fit.plan import Plan, Wish
from tests.unit.engine.fitting import DEEPSEEK_R1, LLAMA_2_70B, LLAMA_8B, LLAMA_70B, LLAMA_405B, MIXTRAL, QWEN3_8B

# What the guide reckons with: twice the key heads that the model has.
LLAMA_405B_DOUBLED = {**LLAMA_405B, "num_key_value_heads": 16}
CONTEXT = 128_000  # "128k", which the guide takes for 128 thousand


def planned(config: dict[str, Any], card: str, **wish: Any) -> Plan:
    read = shape.read(config)
    return plan.make(read, estimate.weight_bytes(read), find(card), Wish(**wish))


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (LLAMA_8B, 8_030_261_248),
        (LLAMA_70B, 70_553_706_496),
        (LLAMA_405B, 405_853_388_800),
        (LLAMA_2_70B, 68_976_648_192),
        (MIXTRAL, 46_702_792_704),
        (QWEN3_8B, 8_190_735_360),
    ],
)
def test_parameters_are_counted_as_published(config: dict[str, Any], parameters: int) -> None:
    assert sum(estimate.parameters(shape.read(config))) == parameters


def test_deepseek_r1_has_671_billion_parameters_and_69_kib_of_cache_a_token() -> None:
    made = planned(DEEPSEEK_R1, "h200")
    assert sum(estimate.parameters(made.shape)) == pytest.approx(671.03e9, rel=0.0005)
    assert made.token == 61 * (512 + 64) * 2


def test_llama_70b_at_128k_on_h100() -> None:
    made = planned(LLAMA_70B, "h100-80g", context=CONTEXT)
    assert made.weights / GB == pytest.approx(140, rel=0.01)
    assert made.request / GIB == pytest.approx(39.06, abs=0.005)  # the guide says GB, and counts GiB
    assert (made.least.weights, made.least.with_one_request) == (2, 3)
    assert made.layout is not None
    assert (made.layout.tensor, made.layout.pipeline) == (4, 1)


def test_llama_405b_at_128k_on_h100() -> None:
    made = planned(LLAMA_405B_DOUBLED, "h100-80g", context=CONTEXT)
    assert planned(LLAMA_405B, "h100-80g").weights / GB == pytest.approx(810, rel=0.01)
    assert made.request / GIB == pytest.approx(123.05, abs=0.005)
    assert (made.least.weights, made.least.with_one_request) == (11, 12)
    assert made.layout is not None
    assert (made.layout.tensor, made.layout.pipeline) == (8, 2)


def test_llama_405b_as_it_is_published_needs_half_that_cache() -> None:
    made = planned(LLAMA_405B, "h100-80g", context=CONTEXT)
    assert made.request / GIB == pytest.approx(123.05 / 2, abs=0.005)
    assert (made.least.weights, made.least.with_one_request) == (11, 11)
    assert made.layout is not None
    assert made.layout.cards == 16


def test_llama_2_70b_on_plans_of_four_a10g_and_eight_a100() -> None:
    made = planned(LLAMA_2_70B, "a10g")
    assert made.weights / GB == pytest.approx(140, rel=0.02)
    assert made.least.weights == 6  # 1 and 4 cards, the guide's two smaller plans, cannot hold it
    assert made.layout is not None
    assert made.layout.cards == 8
    eight = planned(LLAMA_2_70B, "a100-40g")
    assert eight.layout is not None
    assert eight.layout.cards == 4  # half of the guide's largest plan


def test_llama_2_70b_in_32_bits_is_260_gib_and_not_gb() -> None:
    read = shape.computing_in(shape.read(LLAMA_2_70B), "float32")
    assert estimate.weight_bytes(read) / GIB == pytest.approx(260, rel=0.02)
    assert estimate.weight_bytes(read) / GB == pytest.approx(276, rel=0.005)


def test_a_model_that_no_number_of_cards_holds_is_said_to_fit_nowhere() -> None:
    made = planned(LLAMA_405B, "gaudi2", context=CONTEXT)  # no pipeline parallelism there
    assert made.layout is None
    assert made.tried.tensor == 8


def test_more_requests_at_once_need_more_cards() -> None:
    one, many = (
        planned(LLAMA_70B, "h100-80g", context=CONTEXT),
        planned(LLAMA_70B, "h100-80g", context=CONTEXT, concurrency=8),
    )
    assert one.layout is not None
    assert many.layout is not None
    assert one.layout.cards < many.layout.cards
    assert many.tokens >= 8 * CONTEXT


def test_an_8_bit_cache_holds_twice_the_tokens() -> None:
    full, half = planned(LLAMA_8B, "l4", context=8192), planned(LLAMA_8B, "l4", context=8192, cache_dtype="fp8")
    assert half.tokens == pytest.approx(2 * full.tokens, rel=0.001)


@pytest.mark.parametrize(("tensor", "yes"), [(1, True), (2, True), (3, False), (6, False), (8, True), (16, True)])
def test_tensor_parallel_divides_the_heads(tensor: int, yes: bool) -> None:
    assert plan.divides(shape.read(LLAMA_70B), tensor) is yes


def test_key_heads_are_divided_or_copied_evenly() -> None:
    forty = shape.read({**LLAMA_70B, "num_attention_heads": 40})  # and 8 of keys: 5 cards share neither way
    assert [width for width in range(1, 9) if plan.divides(forty, width)] == [1, 2, 4, 8]


def test_a_card_that_nobody_knows_is_refused_with_the_nearest_name() -> None:
    from engine.fit.cards import UnknownCard

    with pytest.raises(UnknownCard) as error:
        find("h100-80gb")
    assert "did you mean h100-80g?" in error.value.problem.hint
    assert find("96g").memory == 96 * GB
