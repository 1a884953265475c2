"""What Compose says where the files, not the settings, are wrong."""

from collections.abc import Callable

import pytest

from tests.compose.conftest import WriteEnv
from tests.support.compose import Project

Rendered = Callable[..., Project]


def refusal(berth: Project) -> str:
    done = berth.run("config", "--quiet", check=False)
    assert done.returncode != 0
    return done.stderr


def test_an_env_file_that_is_missing_is_named(rendered: Rendered) -> None:
    assert "env/gpu.env" in refusal(rendered("env/gpu.env"))
    assert "env/models/lama.env" in refusal(rendered("env/cpu.env", "env/models/lama.env"))


def test_without_a_device_file_compose_says_what_to_add(rendered: Rendered, write_env: WriteEnv) -> None:
    unnamed = write_env(
        "device", "COMPOSE_FILE=compose/base.yaml:compose/settings.yaml:compose/cpu.yaml", names_itself=False
    )
    assert "--env-file env/DEVICE.env" in refusal(rendered(unnamed))


def test_a_file_that_names_another_path_is_refused(rendered: Rendered, write_env: WriteEnv) -> None:
    wrong = write_env("own", "BERTH_LOCAL_ENV=env/moved-away.env", names_itself=False)
    assert "env/moved-away.env" in refusal(rendered("env/cpu.env", wrong))


def test_a_line_that_is_none_is_refused_with_its_file(rendered: Rendered, write_env: WriteEnv) -> None:
    broken = write_env("local", "this is not a setting")
    assert "local.env" in refusal(rendered("env/cpu.env", broken))


@pytest.mark.parametrize(
    ("file", "name"),
    [("env/cuda.env", "BERTH_GPUS"), ("env/cuda.env", "BERTH_SHM_SIZE"), ("env/cpu.env", "BERTH_CPUS")],
)
def test_a_size_or_count_that_is_none_is_refused(rendered: Rendered, file: str, name: str) -> None:
    assert "lots" in refusal(rendered(file, shell={name: "lots"}))
