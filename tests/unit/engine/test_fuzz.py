"""No environment brings the launcher down, loses a word, or makes it tell a secret."""

import json
import shlex
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import catalog, hub, serve, values
from engine.catalog import Catalog
from engine.settings import command, read

KNOWN = catalog.parse((catalog.TRACKED / "cpu.json").read_text(encoding="utf-8"))
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
WORDS = st.sampled_from(
    ["", "true", "0", "1", "4k", "None", "{}", "[1]", "-1", "--x", "'", "a b", "tcp://x", "auto", "9" * 5000]
)
SETTINGS = st.sampled_from(sorted({*KNOWN.by_setting, *KNOWN.variables}))
OURS = st.sampled_from(
    [
        *("LLM_VLLM_MODEL_NAME", "LLM_VLLM_PORT", "LLM_VLLM_HOST", "VLLM_TP_SIZE", "VLLM_PP_SIZE", "VLLM_MODEL"),
        *("IF_FP8_QUANTIZATION", "LLM_VLLM_EXTRA_ARGS", "VLLM_API_KEY_FILE", "HF_TOKEN_PATH", "QUANT_CONFIG"),
        *("HF_HOME", "VLLM_CACHE_ROOT", "HOME", "TMPDIR", "LD_PRELOAD"),
    ]
)
INVENTED = st.from_regex(r"(VLLM|LLM_VLLM|LLM|BERTH|XYZ)_[A-Z0-9_]{0,12}", fullmatch=True)
ENVIRONMENTS = st.dictionaries(SETTINGS | OURS | INVENTED, TEXT | WORDS, max_size=6)
SECRET = "sesame-open-7319"

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _no_network_and_one_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(device: str | None, environ: object = None) -> Catalog:
        return KNOWN

    monkeypatch.setattr(catalog, "load", load)
    monkeypatch.setattr(hub, "ask", lambda model, environ: hub.Answer(False))


@given(environ=ENVIRONMENTS, args=st.lists((TEXT | WORDS).map(lambda text: f"--{text}"), max_size=3))
@relaxed
def test_any_environment_ends_in_a_command_or_a_refusal(
    tmp_path: Path, environ: dict[str, str], args: list[str]
) -> None:
    usual = {"LLM_VLLM_MODEL_NAME": "demo", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    secret = {"HF_TOKEN": SECRET, "VLLM_API_KEY": SECRET}
    # Folders that the launcher makes stay below the test's own.
    movable = ["HF_HOME", "VLLM_CACHE_ROOT", "HOME", "TMPDIR"]
    places: dict[str, str] = {name: str(tmp_path) for name in movable if name in environ}
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = serve.launch(["--dry-run", *args], {**usual, **environ, **places, **secret})
    assert code in (0, 2, 3)
    assert (code == 0) == bool(out.getvalue())
    assert SECRET not in out.getvalue() + err.getvalue()
    assert all(line.startswith("berth: ") for line in err.getvalue().split("\n") if line)


@given(words=st.lists(TEXT.filter(lambda word: not word.startswith("-"))))
@relaxed
def test_words_of_extra_arguments_are_never_lost(words: list[str]) -> None:
    environ = {"LLM_VLLM_MODEL_NAME": "demo", "LLM_VLLM_EXTRA_ARGS": shlex.join(words)}
    assert read(environ, KNOWN, "cpu").extra == words
    assert command(environ, KNOWN, "cpu", ["--port", "1"]).argv[-len(words) - 2 :] == [*words, "--port", "1"]


@given(value=TEXT)
@relaxed
def test_text_reaches_its_flag_unchanged(value: str) -> None:
    reading = read({"LLM_VLLM_MODEL_NAME": "demo", "VLLM_CHAT_TEMPLATE": value}, KNOWN, "cpu")
    words = reading.args()
    assert words in ([], ["--chat-template", value], [f"--chat-template={value}"])
    assert bool(words) == bool(value)


@given(value=st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.dictionaries(TEXT, inner, max_size=3)))
@relaxed
def test_json_is_never_changed(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert values.words("X", KNOWN.flags["default-chat-template-kwargs"], text)[-1].endswith(text)
