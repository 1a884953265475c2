"""Every program that reads env files reads the tracked ones, and any value of the portable subset, as we do."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from berth import envfiles
from tests.support import job_script
from tests.support.compose import ROOT, device_files, docker, environment, model_files, needs_compose, needs_engine

Parser = Callable[[Path], dict[str, str]]
TRACKED = [*device_files(), *model_files(), "env/local.env.example"]
EMPTY_IMAGE = "berth-stand-in/empty:test"


def by_us(path: Path) -> dict[str, str]:
    return {name: setting.value for name, setting in envfiles.read(path).items()}


def by_python_dotenv(path: Path) -> dict[str, str]:
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value is not None}


def by_compose(path: Path) -> dict[str, str]:
    """`docker compose --env-file FILE`: what it would interpolate and pass on by name."""
    needs_compose()
    names = [line.split("=", 1)[0] for line in path.read_text().splitlines() if line and not line.startswith("#")]
    text = yaml.safe_dump({"services": {"x": {"image": "x", "environment": dict.fromkeys(names)}}})
    return _rendered(text, "--env-file", str(path))


def by_compose_env_file(path: Path) -> dict[str, str]:
    """A service's `env_file` with `format: raw`."""
    needs_compose()
    return _rendered(
        yaml.safe_dump({"services": {"x": {"image": "x", "env_file": [{"path": str(path), "format": "raw"}]}}})
    )


def _rendered(text: str, *options: str) -> dict[str, str]:
    # The file's own COMPOSE_FILE must not win over the text, so this one is named on the command line.
    command = ["docker", "compose", *options, "-p", "x", "-f", "-", "config", "--format", "json"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment({}))
    assert done.returncode == 0, done.stderr
    shown: dict[str, str] = json.loads(done.stdout)["services"]["x"].get("environment", {})
    # `config` doubles dollar signs so that its output can be read again.
    return {name: value.replace("$$", "$") for name, value in shown.items()}


def by_docker_run(path: Path) -> dict[str, str]:
    """`docker run --env-file FILE`, without the run."""
    needs_engine()
    if not docker("image", "ls", "--quiet", EMPTY_IMAGE):
        empty_archive = "\0" * 1024
        docker("import", "-", EMPTY_IMAGE, stdin=empty_archive)
    container = docker("create", f"--env-file={path}", EMPTY_IMAGE, "/nothing").strip()
    try:
        lines = json.loads(docker("inspect", "--format", "{{json .Config.Env}}", container))
    finally:
        docker("rm", container)
    pairs = dict(line.split("=", 1) for line in lines or [])
    return {name: value for name, value in pairs.items() if name != "PATH"}


def by_kustomize(path: Path) -> dict[str, str]:
    """A ConfigMap generator's `envs`."""
    (path.parent / "kustomization.yaml").write_text(
        yaml.safe_dump({"configMapGenerator": [{"name": "x", "envs": [path.name]}]})
    )
    program = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    return _configmap([*program, str(path.parent)])


def by_kubectl(path: Path) -> dict[str, str]:
    """`kubectl create configmap --from-env-file FILE`."""
    return _configmap(
        ["kubectl", "create", "configmap", "x", "--dry-run=client", "--output=yaml", f"--from-env-file={path}"]
    )


def _configmap(command: list[str]) -> dict[str, str]:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not here (Debian unstable has it)")
    done = subprocess.run(command, capture_output=True, text=True, env=environment({}))
    assert done.returncode == 0, done.stderr
    # A loader without types: PyYAML's others stumble over a value that is a lone equals sign.
    data: dict[str, str] = yaml.load(done.stdout, Loader=yaml.BaseLoader).get("data", {})
    return data


def by_job_script(path: Path) -> dict[str, str]:
    """The Slurm job script."""
    [found] = job_script.read_env_files([path])
    assert isinstance(found, dict), found
    return found


PARSERS = [
    by_us,
    by_job_script,
    by_python_dotenv,
    by_compose,
    by_compose_env_file,
    by_docker_run,
    by_kustomize,
    by_kubectl,
]


def literally(text: str) -> dict[str, str]:
    """The portable subset's own definition: everything behind the first equals sign."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def is_portable(value: str) -> bool:
    """Whether all readers agree on the value: what the header of every tracked file says, in code."""
    if value != value.strip() or "$" in value or value[:1] in ("'", '"'):
        return False
    return not any(value[index] == "#" and value[index - 1].isspace() for index in range(1, len(value)))


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("file", TRACKED)
def test_every_reader_reads_a_tracked_file_alike(parser: Parser, file: str, tmp_path: Path) -> None:
    copy = tmp_path / "x.env"
    copy.write_bytes((ROOT / file).read_bytes())
    assert parser(copy) == literally(copy.read_text(encoding="utf-8"))


CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
SPECIAL = st.sampled_from([*list("\"'`\\#={}[]:;,&*|!~%^()<>? \t"), '{"a b": 1}', "--flag x", "\\n", "it's", "export "])
VALUES = st.lists(st.one_of(CHARACTERS, SPECIAL), max_size=12).map("".join).filter(is_portable)


@pytest.mark.parametrize("parser", PARSERS)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(values=st.lists(VALUES, min_size=40, max_size=120))
def test_every_reader_reads_a_value_of_the_subset_literally(parser: Parser, values: list[str], tmp_path: Path) -> None:
    expected: Mapping[str, str] = {f"VLLM_VALUE_{index}": value for index, value in enumerate(values)}
    path = tmp_path / "x.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in expected.items()), encoding="utf-8", newline="")
    assert parser(path) == expected


@pytest.mark.parametrize(
    "line",
    ['A="a b"', "A='a b'", "A=abc # note", "A=x$HOME", "A=trailing  ", "export A=x"],
    ids=["double quotes", "single quotes", "comment behind a value", "dollar", "trailing blanks", "export"],
)
def test_outside_the_subset_readers_disagree_and_we_read_as_compose_does(line: str, tmp_path: Path) -> None:
    """Why the subset is as small as it is. A dollar is the exception: we take it literally, and Compose does not."""
    path = tmp_path / "x.env"
    path.write_text(f"{line}\n")
    assert not is_portable(line.partition("=")[2]) or line.startswith("export ")
    needs_compose()
    text = yaml.safe_dump({"services": {"x": {"image": "x", "environment": {"A": None}}}})
    compose = _rendered(text, "--env-file", str(path))
    raw = by_compose_env_file(path) if not line.startswith("export ") else None
    assert compose != raw
    if "$" not in line:
        assert by_us(path) == compose


UNTIDY = st.lists(st.one_of(SPECIAL, st.sampled_from(["$", "$x", "${x}", " #", "'", '"', "  ", "\u00a0"])), max_size=8)


@settings(
    max_examples=8,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=st.lists(UNTIDY.map("".join), min_size=40, max_size=80))
def test_what_the_job_script_does_not_refuse_it_reads_as_compose_does(tmp_path: Path, texts: list[str]) -> None:
    paths = []
    for index, text in enumerate([*texts, *[f"'{text}'" for text in texts], *[f'"{text}" # x' for text in texts]]):
        paths.append(tmp_path / f"{index}.env")
        paths[-1].write_text(f"VLLM_VALUE_{index}={text}\n", encoding="utf-8", newline="")
    accepted = {
        path: found
        for path, found in zip(paths, job_script.read_env_files(paths), strict=True)
        if isinstance(found, dict)
    }
    whole = tmp_path / "whole.env"
    whole.write_bytes(b"".join(path.read_bytes() for path in accepted))
    assert by_compose(whole) == {name: value for found in accepted.values() for name, value in found.items()}
