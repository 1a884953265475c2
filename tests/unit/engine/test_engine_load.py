"""What /metrics tells of an engine's load: the KV cache, and the time to first token of the last minute."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import first_token, prometheus


def metrics(*counts: float, kv: float = 0.25, tokens: float = 0) -> str:
    """As vLLM 0.32 writes it, for buckets that end at 0.1 s, 0.5 s, 1 s and nowhere."""
    name = "vllm:time_to_first_token_seconds"
    lines = [f"# TYPE {name} histogram", f'{name}_sum{{engine="0",model_name="a, le=\\"9\\""}} 5.0']
    for bound, count in zip(("0.1", "0.5", "1.0", "+Inf"), counts, strict=True):
        lines.append(f'{name}_bucket{{engine="0",le="{bound}",model_name="a"}} {count}')
    lines += [f'vllm:kv_cache_usage_perc{{engine="0"}} {kv}', 'vllm:kv_cache_usage_perc{engine="1"} 0.125']
    return "\n".join([*lines, f'vllm:generation_tokens_total{{engine="0"}} {tokens}', ""])


def test_the_kv_cache_is_that_of_the_fullest_engine() -> None:
    assert prometheus.kv_cache_use(metrics(0, 0, 0, 0)) == 0.25
    assert prometheus.kv_cache_use(metrics(0, 0, 0, 0, kv=0.0)) == 0.125
    assert prometheus.kv_cache_use("vllm:other 1\n") is None


def test_the_median_lies_inside_its_bucket_and_is_that_of_new_requests_alone() -> None:
    load = prometheus.Load()
    assert load.update(metrics(100, 100, 100, 100), 0.0)["time_to_first_token_s"] is None
    seen = load.update(metrics(100, 104, 104, 104, tokens=50), 5.0)
    assert seen["time_to_first_token_s"] == 0.3  # half-way through the bucket from 0.1 to 0.5
    assert (seen["generation_tokens_per_s"], seen["kv_cache_use"]) == (10.0, 0.25)


def test_requests_of_more_than_a_minute_ago_are_forgotten() -> None:
    recent = first_token.Recent()
    for second, slow in ((0.0, 0.0), (10.0, 8.0), (75.0, 8.0), (80.0, 8.0)):
        last = recent.update({0.1: 4.0, 1.0: 4.0 + slow, math.inf: 4.0 + slow}, second)
    assert last is None
    assert recent.update({0.1: 6.0, 1.0: 14.0, math.inf: 14.0}, 90.0) == pytest.approx(0.05)


def test_an_engine_started_anew_counts_from_zero_and_one_that_is_silent_is_no_new_engine() -> None:
    recent = first_token.Recent()
    recent.update({0.1: 50.0, math.inf: 50.0}, 0.0)
    assert recent.update({}, 1.0) is None
    assert recent.update({0.1: 50.0, math.inf: 50.0}, 2.0) is None
    assert recent.update({0.1: 2.0, math.inf: 2.0}, 3.0) == pytest.approx(0.05)


def test_what_is_slower_than_the_last_bound_is_told_as_that_bound() -> None:
    assert first_token.median({0.1: 0.0, 1.0: 1.0, math.inf: 10.0}) == 1.0


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_without_a_failure(text: str) -> None:
    line = f'vllm:time_to_first_token_seconds_bucket{{le="{text}"}} {text}'
    first_token.median(first_token.buckets(f"{text}\n{line}\n"))
    prometheus.Load().update(line, 0.0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=4, max_size=4))
def test_the_median_of_any_buckets_lies_among_their_bounds(counts: list[float]) -> None:
    found = first_token.median(first_token.buckets(metrics(*sorted(counts))))
    assert found is None or 0 <= found <= 1.0
