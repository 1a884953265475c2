"""Settings against the real vLLM: every flag round-trips, and the tracked list of flags is this vLLM's."""

import json
import subprocess
from pathlib import Path

import pytest

from engine import catalog, names, settings
from engine.catalog import Flag, setting_name
from tests.support.engine_python import ROOT, engine_python

pytestmark = pytest.mark.vllm

# Asks vLLM's own parser, in one process for all flags: reads [[flag, argv], …], prints {flag: [error, value]}.
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
for flag, argv in json.load(sys.stdin):
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = root.parse_args(argv)
        answers[flag] = ["", repr(getattr(parsed, destinations["--" + flag])), parsed.model_tag]
    except (SystemExit, Exception) as error:
        answers[flag] = [errors.getvalue() or repr(error), "", ""]
print(json.dumps(answers))
"""

# Flags whose JSON or text has a form of its own.
EXAMPLES = {
    "config": "",  # names a file that must be there; tested below
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
    kinds = {"int": "3", "float": "0.5", "json": "{}", "switch": "true", "str": "some-text"}
    return " ".join([kinds[flag.type]] * 2) if flag.is_list else kinds[flag.type]


def expected(flag: Flag, value: str) -> set[str]:
    """How vLLM may show the value that it understood."""
    word = value.split() if flag.is_list else value
    numbers = {"int": int, "float": float}
    if flag.type in numbers:
        word = [numbers[flag.type](item) for item in word] if flag.is_list else numbers[flag.type](value)
    return {repr(word), repr({*word}) if isinstance(word, list) else "", repr(value)}


@pytest.fixture(scope="module")
def known() -> catalog.Catalog:
    return catalog.parse((catalog.TRACKED / "cpu.json").read_text(encoding="utf-8"))


def parsed_by_vllm(commands: list[tuple[str, list[str]]]) -> dict[str, list[str]]:
    done = subprocess.run(
        [engine_python(), "-P", "-c", PARSE],
        input=json.dumps(commands),
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/tmp", "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def test_every_flag_round_trips_through_its_setting(known: catalog.Catalog) -> None:
    special = {"model", "api-key", "port", "dcp-q-replicate", "config", "hf-token"}
    flags = [flag for flag in known.flags.values() if flag.name not in special]
    commands = []
    for flag in flags:
        environ = {"LLM_VLLM_MODEL_NAME": "demo", setting_name(flag.name): example(flag)}
        reading = settings.read(environ, known, "cpu")
        assert not [problem for problem in reading.problems if "only hpu" not in problem.sentence], flag
        command = settings.build(reading, known)
        commands.append((flag.name, command.argv[command.argv.index("serve") :]))
    answers = parsed_by_vllm(commands)
    refused = {name: error for name, (error, _, _) in answers.items() if error}
    assert not refused
    assert {model for _, _, model in answers.values()} == {str(ROOT / "models" / "demo")}
    switched = {flag.name for flag in flags if flag.type == "switch"}
    assert {answers[name][1] for name in switched} == {"True"}
    plain = [flag for flag in flags if flag.type in ("int", "float", "str") and flag.name not in EXAMPLES]
    wrong = {
        flag.name: answers[flag.name][1] for flag in plain if answers[flag.name][1] not in expected(flag, example(flag))
    }
    assert not wrong


def test_switches_can_be_turned_off(known: catalog.Catalog) -> None:
    flags = [flag for flag in known.flags.values() if flag.negative]
    assert len(flags) > 80
    commands = []
    for flag in flags:
        environ = {"LLM_VLLM_MODEL_NAME": "demo", setting_name(flag.name): "false"}
        if setting_name(flag.name) in known.variables:
            continue
        command = settings.command(environ, known, "cpu")
        commands.append((flag.name, command.argv[command.argv.index("serve") :]))
    assert {name: answer for name, answer in parsed_by_vllm(commands).items() if answer[1] != "False"} == {}


@pytest.mark.parametrize(
    ("setting", "value", "flag", "understood"),
    [
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
    ],
)
def test_values_mean_to_vllm_what_they_say(
    known: catalog.Catalog, setting: str, value: str, flag: str, understood: str
) -> None:
    argv = settings.command({"LLM_VLLM_MODEL_NAME": "demo", setting: value}, known, "cpu").argv
    assert parsed_by_vllm([(flag, argv[argv.index("serve") :])])[flag][:2] == ["", understood]


def test_a_config_file_is_read(known: catalog.Catalog, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("max-num-seqs: 7\n", encoding="utf-8")
    argv = settings.command({names.MODEL: "demo", "VLLM_CONFIG": str(file)}, known, "cpu").argv
    assert parsed_by_vllm([("max-num-seqs", argv[argv.index("serve") :])])["max-num-seqs"][:2] == ["", "7"]


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
