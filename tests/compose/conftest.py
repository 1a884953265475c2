"""Projects for the tests of the Compose files: stand-in images, free ports, env files in a folder of their own."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.compose import ROOT, STAND_IN, Project, needs_compose, needs_engine, stand_in_images
from tests.support.waiting import free_port

MakeProject = Callable[..., Project]
WriteEnv = Callable[..., str]


@pytest.fixture
def project() -> Iterator[MakeProject]:
    """Make projects that run stand-ins on free ports: project("env/cpu.env", …, shell={…})."""
    needs_engine()
    stand_in_images()
    with ExitStack() as stack:

        def make(*files: str, shell: Mapping[str, str] | None = None) -> Project:
            ports = {"LLM_VLLM_PORT": str(free_port()), "LLM_USVC_PORT": str(free_port())}
            return stack.enter_context(Project(files, {**STAND_IN, **ports, **(shell or {})}))

        yield make


@pytest.fixture
def rendered() -> Callable[..., Project]:
    """Make projects that are only rendered."""
    needs_compose()
    return lambda *files, shell=None: Project(files, shell)


@pytest.fixture
def write_env(tmp_path: Path) -> WriteEnv:
    """Write an env file that names itself in the layer's variable: write_env("local", "NAME=value", …) -> its path."""

    def write(layer: str, *lines: str, names_itself: bool = True) -> str:
        path = tmp_path / f"{layer}.env"
        own = f"BERTH_{layer.upper()}_ENV={os.path.relpath(path, ROOT)}"
        path.write_text("\n".join([*([own] if names_itself else []), *lines, ""]), encoding="utf-8")
        return str(path)

    return write
