"""What is read of a model, from anywhere: configurations and headers, also broken ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fit import cache, estimate, shape, tensors
from engine.fit.shape import Unreadable
from engine.fit.tensors import BadHeader, Weights
from tests.unit.engine.fitting import SMALL, header, make_model

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(SMALL)), inner, max_size=3),
    max_leaves=5,
)
_NAMES = st.sampled_from(
    [*SMALL, "head_dim", "layer_types", "sliding_window", "kv_lora_rank", "rope_scaling", "quantization_config"]
)


@given(st.dictionaries(_NAMES, _JSON, max_size=4))
def test_any_configuration_is_planned_for_or_said_not_to_be_known(changed: dict[str, Any]) -> None:
    try:
        read = shape.read({**SMALL, **changed})
        assert cache.of(read).request_bytes(1024) > 0
    except Unreadable:
        return
    assert estimate.weight_bytes(read) > 0


@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_header_or_are_said_to_be_none(data: bytes) -> None:
    for read in (tensors.header_length, tensors.count, tensors.listed):
        try:
            read(data)
        except BadHeader:
            continue


def test_headers_of_all_files_of_the_index_count_and_no_others(tmp_path: Path) -> None:
    for name in ("model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"):
        (tmp_path / name).write_bytes(header({"w": ("BF16", [10, 20]), "norm": ("F32", [3])}))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / tensors.INDEX).write_text(json.dumps(index), encoding="utf-8")
    found = tensors.local(tmp_path)
    assert found is not None
    assert found.elements == {"BF16": 400, "F32": 6}


def test_layers_past_the_last_are_drafts_that_are_not_loaded(tmp_path: Path) -> None:
    names = {f"model.layers.{index}.w": ("BF16", [8]) for index in range(4)}
    (tmp_path / "model.safetensors").write_bytes(header(names))
    found = tensors.local(tmp_path, layers=3)
    assert found is not None
    assert found.elements == {"BF16": 24}


def test_a_folder_without_safetensors_has_no_headers(tmp_path: Path) -> None:
    assert tensors.local(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(BadHeader):
        tensors.local(tmp_path)


def test_numbers_of_32_bits_are_loaded_in_16_unless_the_model_is_quantized() -> None:
    plain, scaled = shape.read(SMALL), shape.read({**SMALL, "quantization_config": {"quant_method": "fp8"}})
    assert Weights({"F32": 1000}, "").bytes_for(plain) == 2000
    assert Weights({"F8_E4M3": 1000, "F32": 10, "BF16": 10}, "").bytes_for(scaled) == 1060


def test_a_model_that_is_quantized_while_it_is_loaded_keeps_its_embeddings() -> None:
    read = shape.read(SMALL)
    matrices, rest = estimate.parameters(read)
    assert Weights({"BF16": matrices + rest}, "").bytes_for(read, "fp8") == matrices + 2 * rest
    assert estimate.weight_bytes(read, "fp8") == matrices + 2 * rest


@pytest.mark.parametrize(
    ("said", "bits"),
    [
        ({"quant_method": "fp8"}, 8),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4.15625),
        ({"quant_method": "mxfp4"}, 4.25),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8}}}}, 8),
        ({}, 16),
    ],
)
def test_quantization_is_read_from_the_configuration(said: dict[str, Any], bits: float) -> None:
    assert estimate.bits_of(shape.read({**SMALL, "quantization_config": said})) == bits


def test_a_folder_tells_its_size(tmp_path: Path) -> None:
    found = tensors.local(make_model(tmp_path / "m", SMALL, 5000))
    assert found is not None
    assert found.by_dtype == {"BF16": 10_000}
