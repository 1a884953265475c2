"""`berth chat` against a service that streams, refuses and breaks off."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from berth import chat
from berth.errors import BerthError
from tests.support.waiting import free_port

ASK = [{"role": "user", "content": "?"}]


class Service(http.server.BaseHTTPRequestHandler):
    """Answers every POST with what the test has set."""

    status: ClassVar[int] = 200
    body: ClassVar[bytes] = b""
    shown: ClassVar[str | None] = None

    def do_POST(self) -> None:
        type(self).shown = self.headers.get("Authorization")
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def answer(status: int, body: str) -> None:
    Service.status, Service.body = status, body.encode()


def test_the_pieces_are_those_of_the_stream(url: str) -> None:
    answer(
        200,
        'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n: comment\n\n'
        'data: {"choices":[{"delta":{"content":"Deep "}}]}\n\ndata: {"choices":[{"delta":{"content":"é"}}]}\n\n'
        'data: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n',
    )
    assert "".join(chat.stream(chat.Service(url), ASK, 8)) == "Deep é"


@pytest.mark.parametrize(
    ("status", "body", "said", "code"),
    [
        (503, '{"error":{"message":"The engine is loading."}}', "The engine is loading.", 4),
        (400, '{"error":{"message":"too long"}}', "the service refused: too long", 1),
        (500, "<html>", "the service refused: HTTP 500", 1),
        (401, '{"error":{"message":"a key"}}', "the service refused: a key", 2),
        (200, 'data: {"error":{"message":"engine lost"}}\n\n', "the answer broke off: engine lost", 1),
        (200, "data: b'text'\n\n", "something else than chat chunks", 1),
    ],
)
def test_a_refusal_is_one_sentence(url: str, status: int, body: str, said: str, code: int) -> None:
    answer(status, body)
    with pytest.raises(BerthError, match=said) as caught:
        list(chat.stream(chat.Service(url), ASK, 8))
    assert caught.value.exit_code == code


def test_nobody_there_is_a_missing_prerequisite() -> None:
    with pytest.raises(BerthError, match="does not answer") as caught:
        list(chat.stream(chat.Service(f"http://127.0.0.1:{free_port()}"), ASK, 8))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read"), ("canary two\n", "does not hold one key")])
def test_a_key_is_shown_from_a_file_and_never_told(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    answer(200, "data: [DONE]\n\n")
    file = tmp_path / "key"
    file.write_text("my-key\n")
    chat.run("?", chat.service_at(url, file, None), None, 8, False)
    assert Service.shown == "Bearer my-key"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    with pytest.raises(BerthError, match=said) as caught:
        chat.run("?", chat.service_at(url, file, None), None, 8, False)
    assert "canary" not in str(caught.value) + capsys.readouterr().out
