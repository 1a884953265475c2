"""`berth chat`: the service's answers in the terminal, as they are written."""

import json
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from berth import trust
from berth.errors import Exit, failed

CONNECT_S = 5.0
SILENCE_S = 600.0  # a long prompt on a small machine is read for minutes before the first word comes


@dataclass(frozen=True)
class Service:
    """Whom to ask, the key to show, and what to trust over HTTPS: True is what this machine trusts anyway."""

    address: str
    key: str = ""
    trusted: ssl.SSLContext | bool = True


def run(
    question: str | None,
    service: Service,
    system: str | None,
    max_tokens: int,
    as_json: bool,
) -> None:
    """Ask one question, or hold a conversation until end of input. Raises BerthError."""
    messages = [{"role": "system", "content": system}] if system else []
    if question is not None:
        _turn(service, [*messages, {"role": "user", "content": question}], max_tokens, as_json)
        return
    while (asked := _ask()) is not None:
        if asked.strip():
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": _turn(service, messages, max_tokens, as_json)})


def service_at(url: str | None, key_file: Path | None, certificates: Path | None) -> Service:
    """The service at a URL, or the one that runs here. Raises BerthError for what runs not and for files."""
    service = Service(url.rstrip("/")) if url else _running()
    if key_file:
        service = replace(service, key=key_of(key_file))
    return replace(service, trusted=trust.authority(certificates)) if certificates else service


def _running() -> Service:
    """What runs here, with the key where it asks for one."""
    from berth import runtimes

    found = runtimes.running()
    endpoint = found.status().endpoint if found else None
    if endpoint is None:
        raise failed(
            "nothing runs here", "start with scripts/up, or name a service with --url", Exit.MISSING_PREREQUISITE
        )
    key = key_of(Path(endpoint.key_file)) if endpoint.key_file else ""
    return Service(endpoint.service.rstrip("/"), key, trust.context(endpoint.certificate))


def key_of(file: Path) -> str:
    """The key that a file holds. Raises BerthError for one that cannot be read or holds something else."""
    try:
        words = file.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise failed(f"{file} cannot be read: {why}", "name the file that holds your key: --key-file") from error
    if len(words) != 1:
        raise failed(f"{file} does not hold one key", "let it hold nothing but your key", Exit.BAD_SETTING)
    return words[0]


def _ask() -> str | None:
    """A line from the user; None at the end of input or at Ctrl-C."""
    if sys.stdin.isatty():
        import readline  # noqa: F401 - gives input() a history and line editing
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def _turn(service: Service, messages: list[dict[str, str]], max_tokens: int, as_json: bool) -> str:
    """Print one answer and return it."""
    answer = ""
    for piece in stream(service, messages, max_tokens):
        answer += piece
        if not as_json:
            print(piece, end="", flush=True)
    print(json.dumps({"question": messages[-1]["content"], "answer": answer}) if as_json else "", flush=True)
    return answer


def stream(service: Service, messages: list[dict[str, str]], max_tokens: int) -> Iterator[str]:
    """Yield the answer's pieces. Raises BerthError: 3 where nothing answers, 4 while not ready, else 1."""
    import httpx

    body = {"messages": messages, "max_tokens": max_tokens, "stream": True}
    headers = {"Authorization": f"Bearer {service.key}"} if service.key else {}
    timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=False, verify=service.trusted) as client,
            client.stream("POST", f"{service.address}/v1/chat/completions", json=body, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise _refused(answer.status_code, answer.read())
            for line in answer.iter_lines():
                if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                    yield _piece(data)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise failed(
                f"{service.address} shows a certificate that is not trusted here",
                "name the file with it, or with the authority behind it: --cacert",
                Exit.BAD_SETTING,
            ) from error
        raise failed(
            f"{service.address} does not answer ({error or type(error).__name__})",
            "is it running? see scripts/berth status",
            Exit.MISSING_PREREQUISITE,
        ) from error


def _piece(data: str) -> str:
    """The text of one event; an error that arrives in the middle of an answer ends it."""
    try:
        event: Any = json.loads(data)
        if "error" in event:
            raise failed(f"the answer broke off: {_message(event)}", "scripts/berth logs engine")
        choices = event["choices"]
        return str(choices[0]["delta"].get("content") or "") if choices else ""
    except (ValueError, KeyError, TypeError, IndexError):
        raise failed("the service sent something else than chat chunks", "is LLM_STREAM_FORMAT=openai?") from None


def _refused(status: int, body: bytes) -> Exception:
    try:
        said = _message(json.loads(body))
    except (ValueError, KeyError, TypeError):
        said = f"HTTP {status}"
    if status == 503:
        return failed(said, "wait a little; scripts/berth status says how far it is", Exit.NOT_READY)
    if status == 401:
        return failed(f"the service refused: {said}", "name the file that holds your key: --key-file", Exit.BAD_SETTING)
    return failed(f"the service refused: {said}", "scripts/berth logs llm")


def _message(event: Any) -> str:
    error = event["error"]
    return str(error["message"] if isinstance(error, dict) else error)
