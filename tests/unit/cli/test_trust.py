"""HTTPS of a service that runs here: its own certificate is trusted, and the printed curl line works as it stands."""

import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from berth import chat, children, trust, up, waiting
from berth.errors import BerthError, Exit
from berth.runtimes import Endpoint, slurm
from tests.unit.cli.conftest import Resolve

NOBODY = "http://127.0.0.1:1"
ASK = [{"role": "user", "content": "?"}]


class Door(http.server.BaseHTTPRequestHandler):
    """Ready at once; answers a chat with one piece."""

    def do_GET(self) -> None:
        self._answer(json.dumps({"state": "ready", "models": ["m"]}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer('data: {"choices": [{"delta": {"content": "Deep"}}]}\n\ndata: [DONE]\n\n')

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None: ...


class Quiet(http.server.ThreadingHTTPServer):
    """Says nothing of handshakes that failed."""

    def handle_error(self, *_: object) -> None: ...


@contextmanager
def serving(folder: Path, *names: str, authority: trustme.CA | None = None) -> Iterator[Endpoint]:
    """A service over HTTPS whose certificate bears these names."""
    made = (authority or trustme.CA()).issue_cert(*names)
    file = folder / "cert.pem"
    file.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.configure_cert(context)
    with Quiet(("127.0.0.1", 0), Door) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Endpoint(f"https://127.0.0.1:{server.server_address[1]}", NOBODY, certificate=str(file))
        server.shutdown()


@pytest.fixture(params=["127.0.0.1", "localhost", "llm.example.org", "*.example.org"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Endpoint]:
    with serving(tmp_path, request.param) as endpoint:
        yield endpoint


def test_whatever_name_the_certificate_bears_the_service_is_asked(where: Endpoint) -> None:
    assert waiting.service_state(where)["state"] == "ready"
    assert children._answers(f"{where.service}/health", where.certificate)
    service = chat.Service(where.service, trusted=trust.context(where.certificate))
    assert list(chat.stream(service, ASK, 8)) == ["Deep"]


def test_the_printed_curl_line_answers_as_it_stands(where: Endpoint) -> None:
    line = up.curl(where)
    assert f"--cacert {where.certificate} " in line
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert "Deep" in done.stdout, (line, done.stderr)


def test_another_certificate_is_not_trusted_even_of_the_same_authority(tmp_path: Path) -> None:
    authority = trustme.CA()
    (tmp_path / "other").mkdir()
    with (
        serving(tmp_path, "127.0.0.1", authority=authority) as one,
        serving(tmp_path / "other", "127.0.0.1", authority=authority) as other,
    ):
        Path(one.certificate).write_bytes(Path(one.certificate).read_bytes() + authority.cert_pem.bytes())
        crossed = Endpoint(other.service, NOBODY, certificate=one.certificate)
        assert waiting.service_state(crossed)["state"] == "starting"
        assert not children._answers(f"{other.service}/health", one.certificate)
        assert trust.names(other.service, one.certificate) == []


@pytest.mark.parametrize("write", [lambda _: None, lambda file: file.write_text("nothing")])
def test_a_file_without_a_certificate_trusts_nothing(tmp_path: Path, write: Callable[[Path], object]) -> None:
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served", "127.0.0.1") as endpoint:
        file = tmp_path / "cert.pem"
        write(file)
        assert waiting.service_state(Endpoint(endpoint.service, NOBODY, certificate=str(file)))["state"] == "starting"
        with pytest.raises(BerthError, match=r"cert\.pem cannot be used") as caught:
            trust.authority(file)
        assert caught.value.exit_code == Exit.BAD_SETTING


def test_chat_trusts_an_authority_that_is_named_and_tells_of_one_that_is_not(tmp_path: Path) -> None:
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.cert_pem.bytes())
    with serving(tmp_path, "127.0.0.1", authority=authority) as endpoint:
        assert list(chat.stream(chat.service_at(endpoint.service, None, file), ASK, 8)) == ["Deep"]
        with pytest.raises(BerthError, match="not trusted here") as caught:
            list(chat.stream(chat.service_at(endpoint.service, None, None), ASK, 8))
        assert "--cacert" in caught.value.problems[0].hint
    with serving(tmp_path, "llm.example.org", authority=authority) as misnamed, pytest.raises(BerthError):
        list(chat.stream(chat.service_at(misnamed.service, None, file), ASK, 8))


def test_a_job_under_slurm_speaks_no_https_and_says_what_does(resolve: Resolve) -> None:
    (problem,) = slurm.Runtime().problems(resolve("env/cpu.env", shell={"LLM_TLS_CERT_FILE": "/etc/cert.pem"}))
    assert "speaks HTTP" in problem.sentence
    assert "leave LLM_TLS_CERT_FILE" in problem.hint
    assert problem.exit_code == Exit.BAD_SETTING
