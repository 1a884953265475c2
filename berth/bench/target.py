"""Whom to ask: the service or the engine of what runs here, or a service anywhere."""

from dataclasses import dataclass, field
from pathlib import Path

import httpx

from berth import runtimes, trust, waiting
from berth.chat import key_of
from berth.errors import Exit, failed
from berth.runtimes import ENGINE, SERVICE, Endpoint, Request, Runtime, Status

TIMEOUT_S = 15.0
BOTH = "both"
PARTS = ("service", "engine", BOTH)
_NAMES = {"service": SERVICE, "engine": ENGINE}


@dataclass(frozen=True)
class Target:
    """One server. `url` is its address from this machine; `model` the name that it serves, `tokenizer` where from.

    `insecure`: it is this machine's own, and its certificate bears another name. `status` says what of ours runs.
    """

    part: str
    url: str
    model: str
    tokenizer: str
    key: str = field(default="", repr=False)
    insecure: bool = False
    status: Status | None = None

    @property
    def vllm(self) -> str:
        """The version that the engine tells, or nothing where it cannot be asked."""
        where = self.status.endpoint if self.status else None
        try:
            return str(_get(f"{where.engine}/version").json()["version"]) if where and where.engine else ""
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return ""

    @property
    def name_inside(self) -> str:
        """What the server is called among the containers of a deployment."""
        return _NAMES.get(self.part, "")


def of_what_runs(
    to: str, runtime: str | None, request: Request, key_file: Path | None, tokenizer: str | None
) -> tuple[Runtime, list[Target]]:
    """The targets in what runs. Raises BerthError: 2 for a part that is none, 3 if nothing runs, 4 while not ready."""
    if to not in PARTS:
        raise failed(f"--to {to}: no such part", f"one of {', '.join(PARTS)}", Exit.BAD_SETTING)
    found = runtimes.running(runtime or ("slurm" if request.of_a_job else None), request)
    if found is None:
        hint = "start with scripts/up, or name a service with --url"
        raise failed("nothing runs here", hint, Exit.MISSING_PREREQUISITE)
    status = found.status()
    where = status.endpoint
    if where is None or not where.service.startswith("http"):
        hint = "scripts/berth status says what runs; of a Slurm job, open its door first: scripts/berth connect NAME -d"
        raise failed("what runs has no address on this machine", hint, Exit.MISSING_PREREQUISITE)
    ready = status.ready if status.ready is not None else waiting.service_state(where).get("state") == "ready"
    if not ready:
        raise failed("what runs is not ready yet", "scripts/berth status says how far it is", Exit.NOT_READY)
    file = key_file or (Path(where.key_file) if where.key_file else None)
    key = key_of(file) if file else ""
    parts = ("service", "engine") if to == BOTH else (to,)
    return found, [_part(part, where, key, status, tokenizer) for part in parts]


def _part(part: str, where: Endpoint, key: str, status: Status, tokenizer: str | None) -> Target:
    url = where.service if part == "service" else where.engine
    if not url:
        hint = "ask the service: --to service"
        raise failed(
            f"the engine of a {status.runtime} deployment has no address here", hint, Exit.MISSING_PREREQUISITE
        )
    model = _served(url, key, where.certificate if part == "service" else "")
    return Target(part, url, model, tokenizer or status.model, key, url.startswith("https"), status)


def anywhere(url: str, key_file: Path | None, tokenizer: str | None) -> Target:
    """A service at an address. Raises BerthError where it does not answer as one."""
    address = url.rstrip("/").removesuffix("/v1")
    key = key_of(key_file) if key_file else ""
    model = _served(address, key, "")
    return Target("url", address, model, tokenizer or model, key)


def _served(url: str, key: str, certificate: str) -> str:
    """The first model that is served. Raises BerthError: 2 for a key that is missing or wrong, 3 without an answer."""
    try:
        answer = _get(f"{url}/v1/models", key, certificate)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise failed(f"{url} asks for a key", "name the file that holds yours: --key-file", Exit.BAD_SETTING)
        return str(answer.json()["data"][0]["id"])
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = f"{url} does not answer ({error or type(error).__name__})"
        raise failed(why, "is it running? see scripts/berth status", Exit.MISSING_PREREQUISITE) from error
    except (ValueError, LookupError, TypeError):
        raise failed(f"{url}/v1/models lists no model", "is that a service for OpenAI's clients?") from None


def _get(url: str, key: str = "", certificate: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # A proxy in the environment is not for this machine.
    proxied = httpx.URL(url).host not in ("127.0.0.1", "localhost", "::1")
    verify = trust.context(certificate)
    return httpx.get(url, headers=headers, timeout=TIMEOUT_S, trust_env=proxied, verify=verify)
