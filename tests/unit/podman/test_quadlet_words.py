"""What Compose says of a container, in Quadlet's words; what has no word is refused."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth import deployment as deployments
from berth.podman import container, quadlet

SERVICE: dict[str, Any] = {
    "image": "berth/vllm-cuda:1",
    "cap_drop": ["ALL"],
    "init": True,
    "read_only": True,
    "security_opt": ["no-new-privileges:true"],
    "stop_grace_period": "1m15s",
    "healthcheck": {
        "start_period": "1h0m0s",
        "start_interval": "5s",
        "interval": "30s",
        "timeout": "10s",
        "retries": 3,
    },
}


def deployment() -> deployments.Deployment:
    return deployments.resolve([deployments.ROOT / "env/cpu.env"], shell={})


def test_what_is_locked_down_in_compose_is_locked_down_in_the_unit() -> None:
    words = container.words(SERVICE)
    assert (words["DropCapability"], words["NoNewPrivileges"], words["ReadOnly"]) == (["all"], "true", "true")


@pytest.mark.parametrize(
    ("wanted", "cards"),
    [
        ({"count": -1}, ["nvidia.com/gpu=all"]),
        ({"count": 2}, ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
        ({"device_ids": ["1", "3"]}, ["nvidia.com/gpu=1", "nvidia.com/gpu=3"]),
    ],
)
def test_cards_are_named_as_podman_knows_them(wanted: dict[str, Any], cards: list[str]) -> None:
    reserved = {"reservations": {"devices": [{"driver": "nvidia", "capabilities": ["gpu"], **wanted}]}}
    assert container.words({**SERVICE, "deploy": {"resources": reserved}})["AddDevice"] == cards


@pytest.mark.parametrize(
    "more", [{"privileged": True}, {"command": ["sh"]}, {"runtime": "habana"}, {"security_opt": ["seccomp:unconfined"]}]
)
def test_what_a_unit_has_no_word_for_is_refused_by_name(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the service engine (has|asks)"):
        container.check("engine", {**SERVICE, **more})


def test_a_secret_is_in_no_unit_and_no_file() -> None:
    found = container.settings(deployment(), {"environment": {"HF_TOKEN": "hf_x", "VLLM_API_KEY": "k", "A": "$$1"}})
    assert found == {"A": "$1", "HF_TOKEN": "", "VLLM_API_KEY": ""}


def test_times_are_those_of_compose() -> None:
    assert (container.start_seconds(SERVICE), container.stop_seconds(SERVICE)) == (3660, 75)


def test_volumes_of_secrets_and_empty_files_are_left_to_podman() -> None:
    volumes = [
        {"type": "volume", "source": "models", "target": "/cache/huggingface"},
        {"type": "volume", "source": "secrets", "target": "/run/secrets", "read_only": True},
        {"type": "volume", "source": "secrets", "target": "/run/berth"},
        {"type": "bind", "source": "/dev/null", "target": "/run/llm_api_keys", "read_only": True},
        {"type": "bind", "source": "/srv/keys", "target": "/run/llm_tls_key", "read_only": True},
    ]
    assert [str(mount) for mount in container.mounts({"volumes": volumes})] == [
        "berth-models.volume:/cache/huggingface",
        "berth-phase.volume:/run/berth:U",
        "/srv/keys:/run/llm_tls_key:ro",
    ]


def test_a_percent_sign_is_none_of_systemds_words() -> None:
    assert "Volume=/srv/100%%h:/x:ro\n" in quadlet._unit("a volume", {"Container": {"Volume": ["/srv/100%h:/x:ro"]}})


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_every_duration_of_compose_is_read(hours: int, minutes: int, seconds: int) -> None:
    said = f"{hours}h{minutes}m{seconds}s"
    assert container.stop_seconds({"stop_grace_period": said}) == hours * 3600 + minutes * 60 + seconds


@given(st.text(alphabet=string.printable, max_size=40))
def test_a_value_arrives_as_it_is_or_is_refused(value: str) -> None:
    escaped = value.replace("$", "$$")
    try:
        found = container.settings(deployment(), {"environment": {"VLLM_CHAT_TEMPLATE": escaped}})
    except ValueError:
        assert {"\n", "\r"} & set(value)
        return
    assert found["VLLM_CHAT_TEMPLATE"] == value
    assert "\n" not in value
