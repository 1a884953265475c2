"""Settings against the real vLLM: every flag round-trips, and the tracked list of flags is this vLLM's."""

import json
import subprocess
from pathlib import Path

import pytest

from engine import catalog, names, settings
from engine.catalog import Flag, setting_name
from tests.support.engine_python import ROOT, engine_python

pytestmark = pytest.mark.vllm

# Asks vLLM's own parser, in one process: reads [[key, flag, argv], …], prints {key: [error, value, model]}.
PARSE = """
import argparse, contextlib, io, json, sys
from importlib import import_module
from engine import write_catalog
write_catalog._force_platform("cpu")
parser_class = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
root = parser_class(prog="vllm")
serve = root.add_subparsers(dest="subparser").add_parser("serve")
import_module(write_catalog._parser_module()).make_arg_parser(serve)
destinations = {option: action.dest for action in serve._actions for option in action.option_strings}
answers = {}
for key, flag, argv in json.load(sys.stdin):
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = root.parse_args(argv)
        answers[key] = ["", repr(getattr(parsed, destinations["--" + flag])), parsed.model_tag]
    except (SystemExit, Exception) as error:
        answers[key] = [errors.getvalue() or repr(error), "", ""]
print(json.dumps(answers))
"""

# Flags whose JSON or text has a form of its own.
EXAMPLES = {
    "kv-transfer-config": '{"kv_connector": "ExampleConnector", "kv_role": "kv_both"}',
    "compilation-config": '{"mode": 0}',
    "speculative-config": '{"method": "ngram", "num_speculative_tokens": 2}',
    "allowed-origins": '["*"]',
    "allowed-methods": '["*"]',
    "allowed-headers": '["*"]',
    "device-ids": "0,1",
    "lora-modules": "name=path",
}


def example(flag: Flag) -> str:
    if flag.name in EXAMPLES:
        return EXAMPLES[flag.name]
    if flag.choices:
        return flag.choices[-1]
    kinds = {"switch": "true", "int": "3", "float": "0.5", "json": "{}", "str": "some-text"}
    return " ".join([kinds[flag.type]] * 2) if flag.is_list else kinds[flag.type]


def expected(flag: Flag, value: str) -> set[str]:
    """How vLLM may show the value that it understood."""
    if flag.type == "switch":
        return {"True"}
    word: object = value.split() if flag.is_list else value
    number = {"int": int, "float": float}.get(flag.type)
    if number:
        word = [number(item) for item in value.split()] if flag.is_list else number(value)
    return {repr(word), repr({*word}) if isinstance(word, list) else "", repr(value)}


@pytest.fixture(scope="module")
def known() -> catalog.Catalog:
    return catalog.parse((catalog.TRACKED / "cpu.json").read_text(encoding="utf-8"))


SPECIAL = {"model", "api-key", "port", "dcp-q-replicate", "config", "hf-token"}
MEANINGS = [
    ("VLLM_MAX_MODEL_LEN", "1k", "max-model-len", "1000"),
    ("VLLM_MAX_MODEL_LEN", "1K", "max-model-len", "1024"),
    ("VLLM_MAX_MODEL_LEN", "auto", "max-model-len", "-1"),
    ("LLM_VLLM_PORT", "9999", "port", "9999"),
    ("VLLM_TP_SIZE", "4", "tensor-parallel-size", "4"),
    ("VLLM_MOE_BACKEND", "Triton", "moe-backend", "'triton'"),
    ("VLLM_CHAT_TEMPLATE", "-{{ x }}", "chat-template", "'-{{ x }}'"),
    ("VLLM_SERVED_MODEL_NAME", "a 'b c'", "served-model-name", "['a', 'b c']"),
    ("VLLM_DEVICE_MEMORY_UTILIZATION", "0.5", "gpu-memory-utilization", "0.5"),
    ("VLLM_HF_TOKEN", "true", "hf-token", "True"),
    ("VLLM_CONFIG", "serve.yaml", "max-num-seqs", "7"),
]


def on(known: catalog.Catalog) -> list[Flag]:
    return [flag for flag in known.flags.values() if flag.name not in SPECIAL]


def off(known: catalog.Catalog) -> list[Flag]:
    return [flag for flag in on(known) if flag.negative]


@pytest.fixture(scope="module")
def understood(known: catalog.Catalog, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What vLLM's parser makes of all these settings: `setting=value` to [error, value, model]."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "serve.yaml").write_text("max-num-seqs: 7\n", encoding="utf-8")
    wanted = [(setting_name(flag.name), example(flag), flag.name) for flag in on(known)]
    wanted += [(setting_name(flag.name), "false", flag.name) for flag in off(known)]
    wanted += [(setting, value, flag) for setting, value, flag, _ in MEANINGS]
    commands = []
    for setting, value, flag in wanted:
        reading = settings.read({names.MODEL: "demo", setting: value}, known, "cpu")
        assert not [problem for problem in reading.problems if "only hpu" not in problem.sentence], setting
        argv = settings.build(reading, known).argv
        commands.append((f"{setting}={value}", flag, argv[argv.index("serve") :]))
    done = subprocess.run(
        [engine_python(), "-P", "-c", PARSE],
        input=json.dumps(commands),
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder), "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def test_every_flag_round_trips_through_its_setting(known: catalog.Catalog, understood: dict[str, list[str]]) -> None:
    assert {setting: error for setting, (error, _, _) in understood.items() if error} == {}
    assert {model for _, _, model in understood.values()} == {str(ROOT / "models" / "demo")}
    plain = [flag for flag in on(known) if flag.type != "json" and flag.name not in EXAMPLES]
    assert len(plain) > 250
    wrong = {}
    for flag in plain:
        value = understood[f"{setting_name(flag.name)}={example(flag)}"][1]
        if value not in expected(flag, example(flag)):
            wrong[flag.name] = value
    assert wrong == {}


def test_switches_can_be_turned_off(known: catalog.Catalog, understood: dict[str, list[str]]) -> None:
    values = {flag.name: understood[f"{setting_name(flag.name)}=false"][1] for flag in off(known)}
    assert len(values) > 80
    assert set(values.values()) == {"False"}


@pytest.mark.parametrize(("setting", "value", "flag", "meaning"), MEANINGS)
def test_values_mean_to_vllm_what_they_say(
    understood: dict[str, list[str]], setting: str, value: str, flag: str, meaning: str
) -> None:
    assert understood[f"{setting}={value}"][:2] == ["", meaning]


def test_the_tracked_list_is_that_of_the_installed_vllm(tmp_path: Path) -> None:
    output = tmp_path / "catalog.json"
    program = "import sys; from engine.write_catalog import main; sys.argv[1:] = sys.argv[1:]; main()"
    done = subprocess.run(
        [engine_python(), "-P", "-c", program, "--device", "cpu", "--output", str(output)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    tracked = (catalog.TRACKED / "cpu.json").read_text(encoding="utf-8")
    assert output.read_text(encoding="utf-8") == tracked, "write it again: python -m engine.write_catalog --device cpu"
