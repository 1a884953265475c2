"""What is refused before anything starts, each with its remedy and exit code."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from berth import keysfile, preflight, up
from berth.errors import BerthError, Problem
from berth.host import hub, ports
from berth.progress import Progress
from engine import devices
from engine.devices import Detection
from tests.support.waiting import free_port
from tests.unit.cli.conftest import Resolve


class FakeRuntime:
    """As much of a runtime as the checks ask."""

    local = True

    name = "fake"
    cached = False
    free: int | None = 10**12

    def problems(self, _: Any) -> list[Problem]:
        return []

    def has_model(self, _: Any) -> bool:
        return self.cached

    def free_bytes(self, _: Any) -> int | None:
        return self.free


class Hub(http.server.BaseHTTPRequestHandler):
    """A model hub that knows one model of 3 GB."""

    model: ClassVar[str] = "some/model"

    def do_GET(self) -> None:
        known = self.path.startswith(f"/api/models/{self.model}")
        files = [
            {"rfilename": "model.safetensors", "size": 3 * 10**9},
            {"rfilename": "pytorch_model.bin", "size": 10**10},
        ]
        body = json.dumps({"siblings": files} if known else {"error": "?"}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub_address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def shell(**more: str) -> dict[str, str]:
    return {"LLM_USVC_PORT": str(free_port()), "LLM_VLLM_PORT": str(free_port()), **more}


def test_a_port_in_use_names_its_holder(resolve: Resolve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (problem,) = preflight.port_problems(resolve("env/cpu.env", shell=shell(LLM_VLLM_PORT=str(port))))
        assert ports.holder(port).pid  # type: ignore[union-attr]
    assert f"port {port} is in use by" in problem.sentence
    assert "LLM_VLLM_PORT" in problem.hint
    assert ports.holder(port) is None


def test_one_port_for_both_is_refused(resolve: Resolve) -> None:
    port = str(free_port())
    (problem,) = preflight.port_problems(resolve("env/cpu.env", shell={"LLM_USVC_PORT": port, "LLM_VLLM_PORT": port}))
    assert "are both" in problem.sentence


def test_an_address_that_is_not_ours_is_refused(resolve: Resolve) -> None:
    (problem,) = preflight.port_problems(resolve("env/cpu.env", shell=shell(BIND_ADDR="203.0.113.7")))
    assert "BIND_ADDR=203.0.113.7" in problem.sentence


def test_other_machines_are_let_in_with_a_key_only(resolve: Resolve, root: Path, tmp_path: Path) -> None:
    (root / "env/open.env").write_text("\nBIND_ADDR=0.0.0.0\n")
    (problem,) = preflight.service_problems(resolve("env/cpu.env", "env/open.env", shell=shell()))
    assert problem.sentence.endswith("open.env:2: BIND_ADDR=0.0.0.0 lets other machines in, and they would need no key")
    assert problem.exit_code == 2
    assert "LLM_API_KEYS_FILE" in problem.hint
    keysfile.add(tmp_path / "keys", "alice")
    for way in ({"LLM_API_KEYS_FILE": str(tmp_path / "keys")}, {"LLM_ALLOW_NO_KEY": "true"}, {"BIND_ADDR": "::1"}):
        assert preflight.service_problems(resolve("env/cpu.env", "env/open.env", shell=shell(**way))) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("LLM_IDLE_TIMEOUT_SECONDS", "soon"), ("LLM_STREM_FORMAT", "openai"), ("LLM_API_KEYS_FILE", "/x")],
)
def test_what_the_service_would_refuse_is_said_before_the_start(resolve: Resolve, name: str, value: str) -> None:
    (problem,) = preflight.service_problems(resolve("env/cpu.env", shell=shell(**{name: value})))
    assert value in problem.sentence or name in problem.sentence
    assert name in problem.hint


def test_a_device_that_is_not_here_names_one_that_is(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.load("hpu"), "detect", lambda: None)
    (problem,) = preflight.device_problems(resolve("env/hpu.env"))
    assert "is for hpu, and this machine has none" in problem.sentence
    assert "--device cpu" in problem.hint
    assert problem.exit_code == 3


def test_a_driver_that_is_too_old_is_the_devices_to_tell(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Problem("the driver is old", "update it")
    module = SimpleNamespace(detect=lambda: Detection(1, "one"), preflight=lambda _: [old])
    monkeypatch.setattr(devices, "load", lambda _: module)
    assert preflight.device_problems(resolve("env/cpu.env")) == [old]


def test_no_hub_and_no_model_named_serves_the_demo_model(resolve: Resolve, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    found = up.check(resolve("env/cpu.env", shell=shell(HF_ENDPOINT=nowhere)), FakeRuntime(), Progress())  # type: ignore[arg-type]
    assert found.model == "demo"
    assert "serving the built-in demo model instead" in capsys.readouterr().err


def test_no_hub_and_a_model_named_is_an_error(resolve: Resolve) -> None:
    asked = shell(HF_HUB_OFFLINE="1", LLM_VLLM_MODEL_NAME="my/model")
    with pytest.raises(BerthError, match="my/model is not in the cache") as caught:
        up.check(resolve("env/cpu.env", shell=asked), FakeRuntime(), Progress())  # type: ignore[arg-type]
    assert caught.value.exit_code == 3


def test_no_hub_but_the_model_in_the_cache_is_fine(resolve: Resolve) -> None:
    runtime = FakeRuntime()
    runtime.cached = True
    asked = resolve("env/cpu.env", shell=shell(HF_ENDPOINT=f"http://127.0.0.1:{free_port()}"))
    found = up.check(asked, runtime, Progress())  # type: ignore[arg-type]
    assert found.model == "some/model"
    assert found.environ["HF_HUB_OFFLINE"] == found.shell["HF_HUB_OFFLINE"] == "1"


def test_a_hub_that_knows_the_model_is_fine(resolve: Resolve, hub_address: str) -> None:
    asked = resolve("env/cpu.env", shell=shell(HF_ENDPOINT=hub_address))
    assert up.check(asked, FakeRuntime(), Progress()).model == "some/model"  # type: ignore[arg-type]
    assert hub.ask("some/model", {"HF_ENDPOINT": hub_address}).size == 3 * 10**9


def test_a_disk_too_small_for_the_model_is_said_before_the_download(resolve: Resolve, hub_address: str) -> None:
    runtime = FakeRuntime()
    runtime.free = 10**9
    with pytest.raises(BerthError, match=r"needs 3\.0 GB of disk; 1\.0 GB are free"):
        up.check(resolve("env/cpu.env", shell=shell(HF_ENDPOINT=hub_address)), runtime, Progress())  # type: ignore[arg-type]


def test_a_model_that_the_hub_does_not_show_is_bad_usage(resolve: Resolve, hub_address: str) -> None:
    asked = shell(HF_ENDPOINT=hub_address, LLM_VLLM_MODEL_NAME="no/such")
    with pytest.raises(BerthError, match=r"the model hub shows no model no/such \(HTTP 401\)") as caught:
        up.check(resolve("env/cpu.env", shell=asked), FakeRuntime(), Progress())  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("address", ["not a url", "http://", "http://127.0.0.1:x", "ftp://x", "\x00"])
def test_no_hub_address_whatsoever_gets_a_traceback(address: str) -> None:
    assert not hub.ask("a/b", {"HF_ENDPOINT": address}).reachable


def test_a_cache_that_cannot_be_written_is_said_before_the_download(resolve: Resolve, root: Path) -> None:
    from berth.runtimes.native import Runtime

    (root / "file").touch()
    asked = resolve("env/cpu.env", shell=shell(BERTH_CACHE=str(root / "file/cache")))
    (problem,) = Runtime().problems(asked)
    assert f"{root}/file/cache/hub is not writable" in problem.sentence
    assert "BERTH_CACHE" in problem.hint
    assert Runtime().problems(resolve("env/cpu.env", shell=shell(BERTH_CACHE=str(root / "new/cache")))) == []


@pytest.mark.parametrize("model", ["s3://bucket/models/llama/abc1234", "/models/model.tar", "demo"])
def test_a_model_that_comes_from_elsewhere_needs_no_hub(resolve: Resolve, model: str) -> None:
    wanted = resolve("env/cpu.env", shell={"LLM_VLLM_MODEL_NAME": model, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert preflight.ask_hub(wanted) is None
