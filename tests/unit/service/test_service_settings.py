"""The settings: what is accepted, what is refused and how, and that the page about them is true."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from llm_service.config.loading import SettingsError, load
from llm_service.config.setting_kinds import StreamFormat
from llm_service.config.settings import Settings
from llm_service.engines.address import Address

ROOT = Path(__file__).resolve().parents[3]
NO_FILE = Path("/nonexistent/key")


def loaded(**environ: str) -> Settings:
    return load(environ, NO_FILE)


def problems(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    with pytest.raises(SettingsError) as caught:
        load(environ, NO_FILE)
    return caught.value.problems


def test_an_empty_environment_is_enough() -> None:
    settings = loaded()
    assert (settings.host, settings.port, settings.endpoint) == ("127.0.0.1", 9000, "http://127.0.0.1:8008")


@pytest.mark.parametrize("empty", ["", "  ", '""', "''"])
def test_empty_means_unset(empty: str) -> None:
    assert loaded(LLM_USVC_PORT=empty, LLM_MODEL_NAME=empty, VLLM_API_KEY=empty) == loaded()


@pytest.mark.parametrize("value", ["9001", '"9001"', "'9001'", " 9001 "])
def test_quotes_that_docker_run_keeps_are_taken_off(value: str) -> None:
    assert loaded(LLM_USVC_PORT=value).port == 9001


@pytest.mark.parametrize("value", ['"a', "'a\"", "a'"])
def test_a_quote_without_its_pair_is_part_of_the_value(value: str) -> None:
    assert loaded(LLM_MODEL_NAME=value).model == value


@pytest.mark.parametrize("name", ["LLM_VLLM_ENDPOINT", "LLM_MODEL_SERVER_ENDPOINT", "LLM_ENDPOINT"])
@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_the_endpoint_goes_by_its_old_names_and_with_or_without_v1(name: str, tail: str) -> None:
    assert loaded(**{name: f"http://engine:8008{tail}"}).endpoint == "http://engine:8008"


def test_endpoints_that_differ_are_refused() -> None:
    given = {"LLM_VLLM_ENDPOINT": "http://a", "LLM_ENDPOINT": "http://b"}
    assert problems(given) == [
        ("LLM_VLLM_ENDPOINT and LLM_ENDPOINT name different engines.", "Keep LLM_VLLM_ENDPOINT only.")
    ]


def test_the_engines_port_is_followed_when_no_endpoint_is_given() -> None:
    assert loaded(LLM_VLLM_PORT="8018").endpoint == "http://127.0.0.1:8018"
    assert loaded(LLM_VLLM_PORT="8018", LLM_VLLM_ENDPOINT="http://engine:8008").endpoint == "http://engine:8008"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLM_USVC_PORT", "http"),
        ("LLM_USVC_PORT", "65536"),
        ("LLM_VLLM_PORT", "0"),
        ("LLM_VLLM_ENDPOINT", "engine:8008"),
        ("LLM_VLLM_ENDPOINT", "http://engine:port"),
        ("LLM_VLLM_ENDPOINT", "http://user:pass@engine"),
        ("LLM_VLLM_ENDPOINT", "unix://relative.sock"),
        ("LLM_VLLM_ENDPOINT", "http://a:1,/a/directory"),
        ("LLM_VLLM_ENDPOINT", "http://a:1,,http://b:1"),
        ("LLM_POOL_WAIT_SECONDS", "-1"),
        ("LLM_VLLM_ENDPOINT", "unix:///" + "a" * 107),
        ("LLM_STREAM_FORMAT", "xml"),
        ("LLM_CONNECTOR", "openai"),
        ("LLM_DISABLE_STREAMING", "perhaps"),
        ("LLM_FIRST_BYTE_TIMEOUT_SECONDS", "0"),
        ("LLM_IDLE_TIMEOUT_SECONDS", "-1"),
        ("LLM_CONNECT_TIMEOUT_SECONDS", "5s"),
        ("LLM_DRAIN_TIMEOUT_SECONDS", "1.5"),
        ("LLM_MODEL_SERVER", "tgi"),
    ],
)
def test_a_bad_value_names_the_setting_the_value_and_what_is_accepted(name: str, value: str) -> None:
    [(sentence, hint)] = problems({name: value})
    assert sentence == f"{name}={value} is not accepted."
    assert hint


def test_several_engines_are_named_with_commas_between() -> None:
    settings = loaded(LLM_VLLM_ENDPOINT="http://a:1/v1/, unix:///b.sock,http://a:1", VLLM_API_KEY="key")
    assert settings.engines == (Address("http://a:1", "key"), Address("unix:///b.sock", "key"))
    assert settings.directory is None


def test_a_directory_may_name_the_engines_and_need_not_be_there_yet(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "later"):
        settings = loaded(LLM_VLLM_ENDPOINT=f"{path}/")
        assert (settings.directory, settings.engines) == (path, ())


def test_a_file_where_a_directory_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "endpoint.json").touch()
    [(sentence, hint)] = problems({"LLM_VLLM_ENDPOINT": f"{tmp_path}/endpoint.json"})
    assert sentence == f"LLM_VLLM_ENDPOINT={tmp_path}/endpoint.json is not accepted: it is no directory."
    assert "unix://" in hint


def test_a_bad_key_is_refused_and_not_shown() -> None:
    [(sentence, hint)] = problems({"VLLM_API_KEY": "my secret"})
    assert "secret" not in sentence + hint
    assert sentence == "VLLM_API_KEY=*** is not accepted."


def test_every_problem_is_told_at_once() -> None:
    assert len(problems({"LLM_USVC_PORT": "x", "LLM_CONNECTOR": "y", "LLM_MODLE_NAME": "z"})) == 3


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("LLM_USVC_PRT", "LLM_USVC_PORT"),
        ("LLM_MODLE_NAME", "LLM_MODEL_NAME"),
        ("LLM_VLLM_ENDPOIN", "LLM_VLLM_ENDPOINT"),
        ("LLM_STREAMFORMAT", "LLM_STREAM_FORMAT"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_right_one(wrong: str, right: str) -> None:
    [(sentence, hint)] = problems({wrong: "1"})
    assert sentence == f"{wrong}: no such setting."
    assert hint.startswith(f"Did you mean {right}?")


@pytest.mark.parametrize(
    "name", ["LLM_DEVICE", "LLM_VLLM_HOST", "LLM_VLLM_EXTRA_ARGS", "LLM_VLLM_MODEL_NAME", "VLLM_MAX_MODEL_LEN", "PATH"]
)
def test_names_of_the_engine_and_of_others_are_left_alone(name: str) -> None:
    loaded(**{name: "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLM_PORT", "tcp://10.0.0.1:9000"),
        ("LLM_SERVICE_HOST", "10.0.0.1"),
        ("LLM_SERVICE_PORT_HTTP", "9000"),
        ("LLM_PORT_9000_TCP_ADDR", "10.0.0.1"),
        ("LLM_USVC_PORT", "tcp://10.0.0.1:9000"),
    ],
)
def test_what_kubernetes_injects_is_no_setting(name: str, value: str) -> None:
    assert loaded(**{name: value}) == loaded()


def test_choices_are_read_in_any_case() -> None:
    settings = loaded(LLM_STREAM_FORMAT="Bytes-Repr", LLM_CONNECTOR="Generic", LLM_DISABLE_STREAMING="True")
    assert (settings.stream_format, settings.disable_streaming) == (StreamFormat.BYTES_REPR, True)


def test_the_key_comes_from_the_variable_the_named_file_or_the_secret(tmp_path: Path) -> None:
    named, secret = tmp_path / "named", tmp_path / "secret"
    named.write_text("from-file\n")
    secret.write_text("from-secret\n")

    def key(**environ: str) -> str | None:
        found = load(environ, secret).api_key
        return found.get_secret_value() if found else None

    assert key(VLLM_API_KEY="given", VLLM_API_KEY_FILE=str(named)) == "given"
    assert key(VLLM_API_KEY_FILE=str(named)) == "from-file"
    assert key() == "from-secret"
    secret.write_text("\n")
    assert key() is None


def test_a_key_file_that_is_not_there_is_refused() -> None:
    [(sentence, _)] = problems({"VLLM_API_KEY_FILE": "/nonexistent/key"})
    assert sentence == "The engine's key cannot be read from /nonexistent/key: No such file or directory."


def test_the_printed_settings_hide_the_key() -> None:
    printed = loaded(VLLM_API_KEY="secret-1").masked()
    assert printed["VLLM_API_KEY"] == "***"
    assert "secret-1" not in repr(loaded(VLLM_API_KEY="secret-1"))


def test_the_page_lists_every_setting_with_its_default() -> None:
    rows = []
    for field in Settings.model_fields.values():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        default = "unset" if field.default in (None, ()) else f"`{_written(field.default)}`"
        rows.append(f"| `{field.alias}` | {default} | {extra['form']} | {field.description} |")
    page = (ROOT / "docs" / "service.md").read_text()
    table = [line for line in page.split("## Settings", 1)[1].splitlines() if line.startswith("| `")]
    assert table == rows, "docs/service.md must hold:\n" + "\n".join(rows)


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
