"""The real service over HTTPS and vLLM's real router, as `berth up` starts them, with stand-ins for the two engines."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import trustme

from tests.support.compose import ROOT, STAND_IN, Project, docker, environment, needs_engine, stand_in_images
from tests.support.waiting import free_port, wait_until

pytestmark = pytest.mark.stack

REGISTRY, VERSION = "berth-routed", "test"
FILES = ("env/cpu.env", "env/models/demo.env")
COMPOSE = ":".join(f"compose/{name}.yaml" for name in ("base", "settings", "cpu", "router"))
Berth = Callable[..., subprocess.CompletedProcess[str]]


def images() -> None:
    """The real service and router, and the stand-in engine, under one registry."""
    stand_in_images()
    registry, version = os.environ.get("BERTH_REGISTRY", "berth-test"), os.environ.get("BERTH_VERSION", "checkout")
    sources = {name: f"{registry}/{name}:{version}" for name in ("llm", "router")}
    sources["vllm-cpu"] = f"{STAND_IN['BERTH_REGISTRY']}/vllm-cpu:{STAND_IN['BERTH_VERSION']}"
    for name, source in sources.items():
        if docker("image", "inspect", source, check=False).strip() in ("", "[]"):
            pytest.skip(f"no image {source} here (scripts/test stack builds it)")
        docker("tag", source, f"{REGISTRY}/{name}:{VERSION}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    needs_engine()
    images()
    folder = tmp_path_factory.mktemp("tls")
    made = trustme.CA().issue_cert("llm.example.org")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    key.chmod(0o644)  # whoever runs the tests need not be of the containers' group
    shell = {"LLM_VLLM_PORT": str(free_port()), "LLM_USVC_PORT": str(free_port()), "COMPOSE_FILE": COMPOSE}
    shell |= {"LLM_TLS_CERT_FILE": str(certificate), "LLM_TLS_KEY_FILE": str(key), "VLLM_API_KEY": "sesame"}
    with Project(FILES, {**shell, "BERTH_REGISTRY": REGISTRY, "BERTH_VERSION": VERSION}) as made_project:
        made_project.shell["COMPOSE_PROJECT_NAME"] = made_project.name
        yield made_project


@pytest.fixture(scope="module")
def berth(project: Project) -> Berth:
    def run(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "berth", verb, *words],
            cwd=ROOT,
            env={**environment(project.shell), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="module")
def curl(berth: Berth, project: Project) -> str:
    """The line that `berth up` printed, once it is ready."""
    words = [word for file in FILES for word in ("--env", str(ROOT / file))]
    done = berth("up", "--detach", "--json", "--runtime", "compose", *words)
    assert done.returncode == 0, (done.stderr, project.logs())
    facts = json.loads(done.stdout)
    assert facts["endpoint"] == f"https://127.0.0.1:{project.shell['LLM_USVC_PORT']}"
    return str(facts["curl"])


def said(line: str) -> str:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def test_the_printed_line_is_answered_by_an_engine_behind_the_router(curl: str) -> None:
    assert json.loads(said(f"{curl} -s"))["choices"][0]["message"]["content"].startswith("I am ")


def test_a_stream_comes_through_service_and_router_to_its_end(curl: str, berth: Berth) -> None:
    streamed = said(curl.replace('"max_tokens"', '"stream": true, "max_tokens"') + " -sN")
    assert "I am " in streamed
    assert streamed.endswith("data: [DONE]\n\n")
    assert berth("chat", "?").stdout.startswith("I am ")


@pytest.mark.usefixtures("curl")
def test_service_and_router_are_healthy_and_status_shows_all(berth: Berth, project: Project) -> None:
    def health() -> set[str]:
        return {project.inspect(name)["State"]["Health"]["Status"] for name in ("router", "llm")}

    wait_until(lambda: health() == {"healthy"}, 120, "healthy containers", 0.5)
    status = berth("status", "--json")
    assert status.returncode == 0
    assert {"engine", "engine-2", "llm", "router"} <= set(status.stdout.replace('"', " ").split())
    for name in ("router", "llm"):
        assert "sesame" not in json.dumps(project.inspect(name))


def test_one_engine_that_is_gone_leaves_a_service_that_answers(curl: str, berth: Berth, project: Project) -> None:
    project.run("stop", "--timeout", "1", "engine-2")

    def counted() -> bool:
        url = "http://127.0.0.1:8008/readiness"
        look = f"import urllib.request; print(urllib.request.urlopen('{url}').read().decode())"
        words = ("exec", "--no-TTY", "router", "/opt/venv/bin/python", "-c", look)
        return '"healthy_workers":1' in project.run(*words, check=False).stdout

    wait_until(counted, 60, "the router notices", 0.5)
    assert json.loads(said(f"{curl} -s"))["choices"][0]["message"]["content"].startswith("I am ")


def test_down_leaves_nothing(berth: Berth, project: Project) -> None:
    assert berth("down").returncode == 0
    assert docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={project.name}") == ""
