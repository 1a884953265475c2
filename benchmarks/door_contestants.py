"""The relays that `door` compares: how each is started in front of one engine, with one worker on one core."""

import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from containers import HERE, fail
from door_machine import ROOT, Watched, environment, start

KEY = "benchmark-key-0123456789abcdef"
PATIENCE_S = 120.0  # LiteLLM's proxy takes half a minute of processor time to start


@dataclass
class Contestant:
    """One that answers chats at a port; `watched` is None for the engine itself."""

    name: str
    port: int
    watched: Watched | None = None
    key: str = ""


def free_port() -> int:
    """A port of the loopback interface that was free when asked."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def nginx(engine: int, port: int, place: Path) -> tuple[list[str | Path], dict[str, str]]:
    """Debian's nginx as a plain proxy: unbuffered, connections to the engine kept."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        fail("there is no nginx on PATH", "install it: apt-get install --no-install-recommends nginx-light", 3)
    (place / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/nginx.log;
events {{ worker_connections 8192; }}
http {{
    access_log /dev/null; keepalive_requests 1000000000;
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f;
    uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
    upstream engine {{ server 127.0.0.1:{engine}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096; client_max_body_size 64m;
        location / {{
            proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_read_timeout 600s;
        }}
    }}
}}
""")
    return [found, "-c", place / "nginx.conf", "-p", place], {}


def litellm(engine: int, port: int, place: Path) -> tuple[list[str | Path], dict[str, str]]:
    """LiteLLM's proxy, one worker, one model, without database, cache or keys."""
    bin = environment("door-peers", "requirements/door.txt")
    (place / "litellm.yaml").write_text(
        "model_list:\n- model_name: demo\n  litellm_params:\n    model: openai/demo\n"
        f"    api_base: http://127.0.0.1:{engine}/v1\n    api_key: unused\n"
        "general_settings:\n  dangerously_permit_weak_or_unset_master_key: true\n"
    )
    words: list[str | Path] = [bin / "litellm", "--config", place / "litellm.yaml", "--num_workers", "1"]
    return [*words, "--host", "127.0.0.1", "--port", str(port)], {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
    }


def opea(engine: int, port: int, place: Path) -> tuple[list[str | Path], dict[str, str]]:
    """A service as OPEA's: FastAPI, and OpenAI's SDK whose objects are dumped again."""
    bin = environment("door-peers", "requirements/door.txt")
    words: list[str | Path] = [bin / "uvicorn", "--app-dir", HERE, "door_opea:app", "--port", str(port)]
    return [*words, "--log-level", "warning"], {"ENGINE": f"http://127.0.0.1:{engine}/v1"}


def ours(engine: int, port: int, place: Path) -> tuple[list[str | Path], dict[str, str]]:
    """This checkout's service with all that it can do: keys, limits, metrics, ids, log."""
    bin = environment("venv", "requirements/cli.txt", "microservice/requirements.txt")
    keys = place / "keys"
    keys.touch(0o600)
    keys.write_text(KEY + "\n")
    settings = {
        "LLM_VLLM_ENDPOINT": f"http://127.0.0.1:{engine}",
        "LLM_USVC_PORT": str(port),
        "LLM_API_KEYS_FILE": str(keys),
        "LLM_MAX_IN_FLIGHT": "1024",
        "LLM_KEY_MAX_IN_FLIGHT": "1024",
        "LLM_KEY_REQUESTS_PER_MINUTE": "100000000",
        "PYTHONPATH": str(ROOT / "microservice"),
    }
    return [bin / "python", "-P", "-m", "llm_service"], settings


Recipe = Callable[[int, int, Path], tuple[list[str | Path], dict[str, str]]]
RECIPES: dict[str, Recipe] = {"nginx": nginx, "ours": ours, "opea-style": opea, "litellm": litellm}


def run(name: str, engine: int, core: int, place: Path) -> Contestant:
    """Start one and wait until it answers a chat. Its log is `place`/NAME.log."""
    port = free_port()
    words, extra = RECIPES[name](engine, port, place)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LLM_", "VLLM_"))}
    with (place / f"{name}.log").open("wb") as log:
        watched = start(words, core, log, env={**clean, **extra}, cwd=place)
    contestant = Contestant(name, port, watched, KEY if name == "ours" else "")
    deadline = time.monotonic() + PATIENCE_S
    while not _answers(contestant):
        if watched.process.poll() is not None or time.monotonic() > deadline:
            watched.end()
            said = (place / f"{name}.log").read_text(errors="replace").strip().splitlines() or ["no message"]
            fail(f"{name} does not answer: {said[-1]}", "start it by hand, as benchmarks/door_contestants.py does")
        time.sleep(0.2)
    return contestant


def _answers(contestant: Contestant) -> bool:
    body = b'{"model": "demo", "messages": [{"role": "user", "content": "hello"}]}'
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {contestant.key or 'none'}"}
    asked = urllib.request.Request(f"http://127.0.0.1:{contestant.port}/v1/chat/completions", body, headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=30) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
