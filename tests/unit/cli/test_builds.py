"""Image builds: the command from the Compose model, and progress from Buildx's lines of JSON."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.buildlog import BuildLog
from berth.images import Image

SERVICE = {
    "image": "berth/vllm-cpu:0.1.0",
    "build": {
        "context": "/kit",
        "dockerfile": "Dockerfile.cpu",
        "args": {"BASE_IMAGE": None, "PACKAGE_INDEX": ""},
        "additional_contexts": {"wheels": "/opt/my wheels"},
        "secrets": [{"source": "ca"}],
    },
}


def test_the_build_command_says_what_the_compose_model_says() -> None:
    image = Image.of(SERVICE, {"ca": {"file": "/etc/ca.pem"}, "hf_token": {"environment": "HF_TOKEN"}})
    assert image.build_command() == [
        *("docker", "buildx", "build", "--load", "--tag", "berth/vllm-cpu:0.1.0", "--file", "/kit/Dockerfile.cpu"),
        *("--build-arg", "PACKAGE_INDEX=", "--build-context", "wheels=/opt/my wheels"),
        *("--secret", "id=ca,src=/etc/ca.pem", "/kit"),
    ]


@pytest.mark.parametrize(
    ("tag", "published"),
    [
        ("berth/llm:0.1.0", False),
        ("registry.example.org/team/llm:1", True),
        ("localhost/llm:1", True),
        ("host:5000/llm:1", True),
        ("llm:1", False),
    ],
)
def test_only_a_tag_that_names_a_registry_is_pulled(tag: str, published: bool) -> None:
    assert Image(tag, ".", "Dockerfile", {}, {}, {}).is_published is published


def event(**fields: object) -> str:
    return json.dumps(fields)


def test_progress_is_the_part_of_the_steps_that_has_ended() -> None:
    log = BuildLog()
    log.feed(event(vertexes=[{"digest": "a", "name": "FROM x", "completed": "t"}, {"digest": "b", "name": "RUN y"}]))
    assert (log.fraction, log.step) == (0.5, "RUN y")
    log.feed(event(logs=[{"vertex": "b", "data": base64.b64encode(b"hello\n").decode()}]))
    assert log.new_lines() == ["== FROM x", "== RUN y", "hello"]


def test_a_failed_step_is_named_with_its_last_words() -> None:
    log = BuildLog()
    log.feed(event(vertexes=[{"digest": "b", "name": "RUN y"}]))
    log.feed(event(logs=[{"vertex": "b", "data": base64.b64encode(b"one\nno space left\n").decode()}]))
    log.feed(event(vertexes=[{"digest": "b", "name": "RUN y", "error": "exit code: 1", "completed": "t"}]))
    log.feed("ERROR: failed to solve: process did not complete\n")
    assert log.error == "RUN y: no space left"


@given(st.text(max_size=60))
def test_no_line_whatsoever_breaks_the_reader(line: str) -> None:
    BuildLog().feed(line)
