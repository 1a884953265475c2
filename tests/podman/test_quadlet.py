"""The units for systemd, with real vLLM: a start that returns when it is of use, a killed engine, a clean end.

The tests run in this order, on one host.
"""

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.podman.conftest import Host, known_answer, rendered
from tests.support.waiting import wait_until

UNITS = "/home/alice/.config/containers/systemd"
NAMES = ("berth-engine", "berth-llm")


@pytest.fixture(scope="module")
def installed(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host.put(rendered("quadlet", tmp_path_factory.mktemp("quadlet")), UNITS)
    host.run("systemctl", "--user", "daemon-reload")
    yield host
    host.run("systemctl", "--user", "stop", *NAMES, check=False)
    host.run("rm", "-rf", UNITS)
    host.run("systemctl", "--user", "daemon-reload")


def test_podmans_generator_takes_every_unit(installed: Host) -> None:
    done = subprocess.run(
        installed.words("/usr/libexec/podman/quadlet", "-dryrun", "-user"), capture_output=True, text=True
    )
    said = done.stderr.splitlines()
    # Images that were built here have no registry in their names.
    assert [line for line in said if "rror" in line or ("arning" in line and "fully qualified" not in line)] == []
    assert done.returncode == 0
    for name in (*NAMES, "berth-network", "berth-models-volume", "berth-compiled-volume"):
        assert f"---{name}.service---" in done.stdout


def test_a_start_returns_when_the_service_answers(installed: Host) -> None:
    installed.run("systemctl", "--user", "start", *NAMES)
    assert installed.state() == "ready"
    assert installed.answer() == known_answer()


def test_no_container_has_rights_or_a_writable_image(installed: Host) -> None:
    for name in NAMES:
        (found,) = json.loads(installed.run("podman", "inspect", name))
        assert not found["EffectiveCaps"]
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        assert "no-new-privileges" in found["HostConfig"]["SecurityOpt"]


def test_systemd_starts_a_killed_engine_again(installed: Host) -> None:
    installed.kill("berth-engine")
    wait_until(lambda: installed.state() != "ready", 60, "the loss of the engine being noticed")
    installed.wait_until_ready()
    assert installed.answer() == known_answer()


def test_what_streams_when_the_units_stop_is_finished_first(installed: Host) -> None:
    with subprocess.Popen(installed.streaming(600, "ignore_eos"), stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout
        assert asking.stdout.readline().startswith("data: ")
        installed.run("systemctl", "--user", "stop", *NAMES)
        rest = asking.stdout.read()
    assert '"finish_reason":"length"' in rest
    assert rest.endswith("data: [DONE]\n\n")
