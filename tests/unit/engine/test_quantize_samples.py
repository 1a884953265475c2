"""The calibration set: what is a sample, and what is said of a file that holds none."""

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.quantize import samples
from engine.quantize.samples import Refused

CHAT = [{"role": "user", "content": "Hi"}]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "samples"


def refusal(file: Path) -> Refused:
    with pytest.raises(Refused) as caught:
        samples.read(file)
    return caught.value


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": CHAT}, CHAT),
        ({"custom_id": "1", "body": {"model": "m", "messages": CHAT}}, CHAT),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, CHAT),
        ({"text": "Once upon a time"}, "Once upon a time"),
        ({"question": "Hi"}, CHAT),
        ({"question": "Hi", "system_prompt": "Be kind"}, [{"role": "system", "content": "Be kind"}, *CHAT]),
        ({"question": "Hi", "response": "Ho"}, [*CHAT, {"role": "assistant", "content": "Ho"}]),
        ({"prompt": "Hi"}, None),
        ({"messages": []}, None),
        ({"messages": [{"role": "user", "content": None}]}, None),
    ],
)
def test_a_row_is_a_chat_or_a_text(row: dict[str, Any], said: object) -> None:
    assert samples.turns(row) == said


def test_as_many_rows_are_read_as_were_asked_for(file: Path) -> None:
    file.write_text("\ufeff" + "\n".join(json.dumps({"text": str(number)}) for number in range(10)) + "\n\n")
    assert [row["text"] for row in samples.read(file, 3)] == ["0", "1", "2"]
    assert len(samples.read(file)) == 10


def test_a_bad_line_is_named(file: Path) -> None:
    file.write_text('{"text": "a"}\n{"text": \n')
    assert f"{file}:2: not a JSON object" in str(refusal(file))
    file.write_text('{"text": "a"}\n{"txt": "b"}\n')
    assert f"{file}:2: no prompt" in str(refusal(file))


def test_a_pickle_is_not_read_and_jsonl_is_named_instead(file: Path) -> None:
    file.write_bytes(pickle.dumps({"question": ["Hi"]}))
    refused = refusal(file)
    assert "a pickle" in str(refused)
    assert "to_json" in refused.problem.hint


def test_files_of_another_kind_are_told_what_is_wanted(file: Path) -> None:
    for data in (b"", b"col1,col2\n", b"\xff\xfe{\x00", b"[1, 2]"):
        file.write_bytes(data)
        assert "neither JSONL nor parquet" in str(refusal(file))
    assert refusal(file.with_name("absent")).problem.exit_code == 3


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"question": "Hi", "system_prompt": "Be kind"}, ("Be kind", "Hi")),
        (
            {"messages": [*CHAT, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "Bye"}]},
            ("", "Bye"),
        ),
        ({"text": "Once"}, ("", "Once")),
    ],
)
def test_gaudis_scripts_get_a_system_prompt_and_a_question(row: dict[str, Any], pair: tuple[str, str]) -> None:
    assert samples.question(row) == pair


@given(row=st.dictionaries(st.sampled_from(["messages", "text", "question", "body", "system_prompt"]), json_values))
def test_fuzz_any_object_is_a_sample_or_none(row: dict[str, Any]) -> None:
    said = samples.turns(row)
    if said is not None:
        assert said
        assert all(isinstance(part, str) for part in samples.question(row))


# Parquet is read by pyarrow, which only the environment of llm-compressor has.
@given(data=st.binary(max_size=200).filter(lambda data: not data.startswith(b"PAR1")))
def test_fuzz_any_file_is_read_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed"
    file.write_bytes(data)
    with contextlib.suppress(Refused):
        assert samples.read(file)
