"""What the machine or the hub would refuse later is said before vLLM starts."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from engine import host, preflight
from engine.decisions import Situation
from engine.devices import cuda
from engine.messages import Exit, Problem

GATED = {"gated": "manual", "siblings": []}
OPEN = {"gated": False, "siblings": [{"rfilename": "model.safetensors", "size": 1 << 60}]}
TOKEN = "hf_right"


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for an open, a gated and an unknown model."""

    def do_GET(self) -> None:
        entry = {"/api/models/org/open": OPEN, "/api/models/org/gated": GATED}.get(self.path.partition("?")[0])
        self.send_response(200 if entry else 401)
        self.end_headers()
        self.wfile.write(json.dumps(entry or {"error": "Repository not found"}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """The address of a stand-in for the hub on loopback."""
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def found(environ: dict[str, str], model: str, tmp_path: Path, **values: str) -> list[Problem]:
    given = {name.replace("_", "-"): value for name, value in values.items()}
    return preflight.check(Situation({"HF_HOME": str(tmp_path), **environ}, given, model), "cpu")


def test_a_gated_model_without_a_token_is_refused(hub: str, tmp_path: Path) -> None:
    (problem,) = found({"HF_ENDPOINT": hub}, "org/gated", tmp_path)
    assert "gated" in problem.sentence
    assert "HF_TOKEN" in problem.hint
    assert problem.exit_code == Exit.BAD_SETTING
    assert not found({"HF_ENDPOINT": hub, "HF_TOKEN": TOKEN}, "org/gated", tmp_path)


def test_a_name_that_the_hub_does_not_know_is_refused(hub: str, tmp_path: Path) -> None:
    (problem,) = found({"HF_ENDPOINT": hub}, "org/mistyped", tmp_path)
    assert "org/mistyped" in problem.sentence
    assert "spelling" in problem.hint


def test_a_variant_or_a_file_of_a_repository_is_asked_for_by_the_repository(hub: str, tmp_path: Path) -> None:
    for name in ("org/gated:Q4_K_M", "org/gated/model.gguf"):
        (problem,) = found({"HF_ENDPOINT": hub}, name, tmp_path)
        assert "org/gated is gated" in problem.sentence


def test_a_download_that_cannot_fit_is_refused(hub: str, tmp_path: Path) -> None:
    (problem,) = found({"HF_ENDPOINT": hub}, "org/open", tmp_path)
    assert "GiB free" in problem.sentence
    assert "HF_HOME" in problem.hint


def test_an_unreachable_hub_names_the_ways_around_it(tmp_path: Path) -> None:
    (problem,) = found({"HF_ENDPOINT": "http://127.0.0.1:1"}, "org/open", tmp_path)
    assert "does not answer" in problem.sentence
    assert "LLM_VLLM_MODEL_NAME=demo" in problem.hint
    (problem,) = found({"HF_ENDPOINT": "http://127.0.0.1:1"}, "meta-llama/Llama-3.1-8B", tmp_path)
    assert "gated" in problem.sentence
    (problem,) = found({"HF_HUB_OFFLINE": "1"}, "org/open", tmp_path)
    assert "HF_HUB_OFFLINE" in problem.sentence


def test_a_folder_must_exist_and_hold_a_model(tmp_path: Path) -> None:
    assert "does not exist" in found({}, str(tmp_path / "no"), tmp_path)[0].sentence
    assert "holds no model" in found({}, str(tmp_path), tmp_path)[0].sentence
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert not found({}, str(tmp_path), tmp_path)


def test_too_little_shared_memory_for_tensor_parallelism_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(host, "shared_memory_free", lambda: 64 << 20)
    (problem,) = found({}, str(tmp_path), tmp_path, tensor_parallel_size="2")
    assert "--shm-size 3g" in problem.hint
    monkeypatch.setattr(host, "shared_memory_free", lambda: 512 << 20)
    assert not found({}, str(tmp_path), tmp_path)


def test_more_ranks_than_devices_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(cuda, "visible_devices", lambda environ: 2)
    monkeypatch.setattr(cuda, "preflight", lambda situation: [])
    monkeypatch.setattr(host, "shared_memory_free", lambda: None)

    def problems(**values: str) -> list[Problem]:
        given = {name.replace("_", "-"): value for name, value in values.items()}
        return preflight.check(Situation({}, given, str(tmp_path)), "cuda")

    (problem,) = problems(tensor_parallel_size="4")
    assert "asks for 4 devices; visible here: 2" in problem.sentence
    assert problem.exit_code == Exit.BAD_SETTING
    assert not problems(tensor_parallel_size="2")
    several = {"nnodes": "2", "master_addr": "10.0.0.1"}
    assert not problems(tensor_parallel_size="4", **several)
    (problem,) = problems(tensor_parallel_size="8", **several)
    assert "asks for 4 devices" in problem.sentence
    assert "each of the 2 nodes" in problem.hint
