"""Settings become a command: the one translator from names to flags, for every way of running the engine."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine import arguments, devices, names, nodes, storage, unknown, values
from engine.catalog import Catalog, Flag, setting_name
from engine.decisions import Decision, Situation, common
from engine.messages import Problem

_DEMO = Path(__file__).resolve().parents[1] / "models" / "demo"


@dataclass(frozen=True)
class Command:
    """The program that serves, its environment, and what the launcher settled on the way."""

    argv: list[str]
    environ: dict[str, str]
    decisions: list[Decision]


@dataclass
class Reading:
    """Settings, read: flags as words, what passes on as environment, and what is wrong."""

    environ: dict[str, str]
    model: str | None = None
    words: dict[str, list[str]] = field(default_factory=dict)
    said_by: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def args(self) -> list[str]:
        """The flags that settings ask for, in a fixed order, then the words of LLM_VLLM_EXTRA_ARGS."""
        return [word for flag in sorted(self.words) for word in self.words[flag]] + self.extra


def check(environ: Mapping[str, str], catalog: Catalog, device: str) -> list[Problem]:
    """Return what is wrong with the settings, as far as names and values tell; looks at no file and no device."""
    return read(environ, catalog, device).problems


def read(environ: Mapping[str, str], catalog: Catalog, device: str, args: Sequence[str] = ()) -> Reading:
    """Read every setting in `environ`, and `args` as flags that follow. Problems are collected, never raised."""
    module = devices.load(device)
    reading = Reading(environ={})
    for name in sorted(environ):
        try:
            _read_one(name, environ[name], reading, catalog, device)
        except values.BadValue as error:
            reading.problems.append(error.problem)
    _read_own(environ, reading, catalog, device)
    _follow_the_head(reading)
    reading.problems += arguments.problems(reading.extra, catalog, names.EXTRA_ARGS)
    reading.problems += arguments.problems(args, catalog, "arguments")
    given = arguments.values([*reading.args(), *args], catalog)
    if reading.model is None and _is_a_trial(environ, given):
        reading.model = names.DEMO
        reading.notes.append(f"serving the built-in model, {names.DEMO} ({names.MODEL} names another)")
    elif reading.model is None and not {"config", "model"} & given.keys():
        reading.problems.append(
            Problem(
                f"{names.MODEL} is not set: there is no model to serve",
                f"set {names.MODEL} to a Hugging Face name or a folder, or to {names.DEMO} for the built-in model",
            )
        )
    reading.problems += _refused_by_devices(given, device)
    reading.problems += module.problems(Situation(reading.environ, given, reading.model))
    return reading


def _is_a_trial(environ: Mapping[str, str], given: Mapping[str, str]) -> bool:
    """Whether this is `apptainer run vllm.sif` and no more, or only with another address: a way to see that it works.

    In the other runtimes a model that is missing is a mistake, and a job's settings always say more than this.
    """
    return any(environ.get(name) for name in names.APPTAINER) and given.keys() <= {"host", "port"}


def _read_one(name: str, value: str, reading: Reading, catalog: Catalog, device: str) -> None:
    module = devices.load(device)
    known_variable = name in catalog.variables or name in module.VARIABLES
    if value == "" and (known_variable or names.is_setting_like(name) or name.startswith(_EMPTY_IS_UNSET)):
        return
    if names.is_injected(name, value):
        reading.notes.append(f"{name} ignored (Kubernetes announces a service by it; it is no setting)")
    elif name in module.STALE:
        reading.notes.append(f"{name} ignored ({module.STALE[name]})")
    elif name in names.OWN or name in names.OF_THE_SERVICE:
        return
    elif known_variable:
        _check_variable(name, value, catalog)
        reading.environ[name] = value
    elif name in names.ALIASES:
        _say(reading, name, catalog.flags[names.ALIASES[name]], value)
    elif name == "VLLM_MODEL":
        _say_model(reading, name, value)
    elif name == "VLLM_HF_TOKEN":
        _read_hf_token(value, reading)
    elif name in catalog.by_setting:
        flag, negated = catalog.by_setting[name]
        _say(reading, name, flag, value, negated)
    elif names.is_setting_like(name):
        reading.problems.append(unknown.problem(name, catalog, device))
    else:
        reading.environ[name] = value


# What belongs to the server of requests; vLLM refuses some of it on nodes that have none.
_OF_THE_HEAD = ("host", "port", "uds", "api-server-count")


def _follow_the_head(reading: Reading) -> None:
    """One env file serves all nodes: by its rank a node is headless, and what it says of the door is the head's."""
    if reading.words.get("node-rank", ["--node-rank", "0"])[-1] != "0":
        reading.words.setdefault("headless", ["--headless"])
    if reading.words.get("headless") != ["--headless"]:
        return
    for flag in _OF_THE_HEAD:
        if reading.words.pop(flag, None):
            reading.notes.append(f"{reading.said_by[flag]} ignored (this node is headless; the head serves requests)")


# Names that env files carry empty to mean "unset", read by libraries that would take an empty value for one.
_EMPTY_IS_UNSET = (
    *("HF_", "HUGGING_FACE_", "QUANT_CONFIG", "OMP_", "KMP_", "LD_PRELOAD", "TMPDIR"),
    *("TORCH", "TRITON_", "PT_HPU_", "HABANA_", "XDG_", "GLOO_", "NCCL_"),
)


def _say(reading: Reading, name: str, flag: Flag, value: str, negated: bool = False) -> None:
    words = values.words(name, flag, value, negated)
    if flag.name in reading.words and reading.words[flag.name] != words:
        raise values.BadValue(
            f"{reading.said_by[flag.name]} and {name} both set --{flag.name}, differently", "keep one of the two"
        )
    reading.words[flag.name] = words
    reading.said_by[flag.name] = name


def _say_model(reading: Reading, name: str, value: str) -> None:
    if reading.model is not None and reading.model != value:
        raise values.BadValue(f"{names.MODEL} and VLLM_MODEL name two models", f"keep {names.MODEL}")
    reading.model = value


def _read_hf_token(value: str, reading: Reading) -> None:
    """`--hf-token` alone means the token that is stored on this machine; a token itself never becomes an argument."""
    if value.strip().lower() in values.TRUE_WORDS:
        reading.words["hf-token"] = ["--hf-token"]
    elif value.strip().lower() not in values.FALSE_WORDS:
        reading.environ.setdefault(names.HF_TOKEN, value)


def _read_own(environ: Mapping[str, str], reading: Reading, catalog: Catalog, device: str) -> None:
    module = devices.load(device)
    try:
        if model := environ.get(names.MODEL):
            _say_model(reading, names.MODEL, model)
        if extra := environ.get(names.EXTRA_ARGS):
            reading.extra = values.split(names.EXTRA_ARGS, extra)
        if (fp8 := environ.get(names.FP8)) and values.as_switch(names.FP8, fp8):
            if names.FP8 in module.VARIABLES:
                reading.environ[names.FP8] = "true"
            else:
                reading.problems.append(unknown.problem(names.FP8, catalog, device))
    except values.BadValue as error:
        reading.problems.append(error.problem)
    if (wanted := environ.get(names.DEVICE)) and wanted != device:
        reading.problems.append(
            Problem(
                f"{names.DEVICE}={wanted}, but this vLLM is for {device}",
                f"use the image or installation for {wanted}, or set {names.DEVICE}={device}"
                if wanted in devices.names()
                else f"{names.DEVICE} is one of {', '.join(devices.names())}",
            )
        )


def _check_variable(name: str, value: str, catalog: Catalog) -> None:
    if kind := catalog.variable_types.get(name):
        values.check_number(name, kind, value)
    choices = catalog.variable_choices.get(name, ())
    allowed = {choice.lower() for choice in choices}
    if allowed and not {part.strip().lower() for part in value.split(",")} <= allowed:
        raise values.BadValue(f"{name}={value!r}: not one of its values", f"it takes {', '.join(choices)}")


def _refused_by_devices(given: Mapping[str, str], device: str) -> Iterable[Problem]:
    for owner in devices.names():
        if owner == device:
            continue
        module = devices.load(owner)
        for (flag, value), hint in module.ONLY_VALUES.items():
            if given.get(flag) == value:
                yield Problem(f"{setting_name(flag)}={value}: only {owner} takes it", hint)


def command(
    environ: Mapping[str, str], catalog: Catalog, device: str, args: Sequence[str] = (), prefix: str = sys.prefix
) -> Command:
    """Return what to run for these settings. Call it only when `check` finds no problem.

    `args` are flags that follow those of the settings; `prefix` is the Python environment that holds vLLM.
    """
    return build(read(environ, catalog, device, args), catalog, args, prefix)


def build(reading: Reading, catalog: Catalog, args: Sequence[str] = (), prefix: str = sys.prefix) -> Command:
    """Return what to run for settings that were read without a problem: settle the rest, and put it together."""
    typed = [*reading.args(), *args]
    given = arguments.with_config_file(arguments.values(typed, catalog))
    situation = Situation(reading.environ, given, model_path(reading.model))
    tuned = devices.load(catalog.device).tune(situation)
    ours = common(situation, demo=reading.model == names.DEMO)
    decisions = [*ours, *nodes.decide(situation), *tuned, *storage.decide(situation)]
    final = applied(reading.environ, decisions)
    final.pop(names.FP8, None)
    settled = [word for decision in decisions for word in decision.args]
    model = [situation.model] if situation.model is not None else []
    # The device's own way to start vLLM comes last, and sees to followers, too.
    through = next((decision.module for decision in reversed(decisions) if decision.module), None)
    return Command([*program(prefix, through), "serve", *model, *settled, *typed], final, decisions)


def applied(environ: Mapping[str, str], decisions: Iterable[Decision]) -> dict[str, str]:
    """The environment with what decisions set and remove."""
    changes = {name: value for decision in decisions for name, value in decision.environ.items()}
    return {name: value for name, value in {**environ, **changes}.items() if value is not None}


def program(prefix: str, through: str | None = None) -> list[str]:
    """The words that start vLLM: its script where there is one, else its module; or a module of ours around it."""
    if through is not None:
        return [str(Path(prefix) / "bin" / "python"), "-P", "-m", through, "vllm"]
    script = Path(prefix) / "bin" / "vllm"
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "vllm.entrypoints.cli.main"]


def model_path(model: str | None) -> str | None:
    """The model as vLLM is given it: `demo` stands for the folder that comes with the launcher."""
    return str(_DEMO) if model == names.DEMO else model
