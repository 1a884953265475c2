"""TLS: served from two files, which may change while the service runs."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trustme

from llm_service.config.loading import SettingsError, load
from llm_service.healthcheck import alive
from llm_service.lock import changed
from tests.support.waiting import wait_until
from tests.unit.service.door import CHAT, OPENAI_BODY, Door

OpenDoor = Callable[..., Door]


class Files:
    """A certificate for this machine and its key, in two files that can be replaced."""

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "cert.pem"
        self.key = directory / "key.pem"
        self.authority = trustme.CA()
        self.renew()

    def renew(self) -> None:
        """Write another certificate, with another key, of the same authority."""
        made = self.authority.issue_cert("127.0.0.1", "localhost")
        self.key.write_bytes(made.private_key_pem.bytes())
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))

    @property
    def environ(self) -> dict[str, str]:
        """The settings."""
        return {"LLM_TLS_CERT_FILE": str(self.certificate), "LLM_TLS_KEY_FILE": str(self.key)}

    def trust(self) -> ssl.SSLContext:
        """What a client needs."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def door(open_door: OpenDoor, files: Files, monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr(changed, "LOOK_SECONDS", 0.0)
    return open_door(**files.environ)


def shown(door: Door, files: Files, name: str | None = "localhost") -> bytes:
    """The certificate that a new connection gets."""
    context = files.trust()
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", door.service.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=name) as client,
    ):
        certificate = client.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate


def test_requests_and_streams_go_over_tls(door: Door, files: Files) -> None:
    url = f"https://127.0.0.1:{door.service.port}"
    with httpx.Client(base_url=url, verify=files.trust(), trust_env=False) as client:
        assert client.post(CHAT, json=OPENAI_BODY).status_code == 200
        assert client.post(CHAT, json={**OPENAI_BODY, "stream": True}).content.endswith(b"data: [DONE]\n\n")


def test_the_port_speaks_nothing_else(door: Door) -> None:
    with pytest.raises(httpx.TransportError):
        door.client.get("/health")


def test_old_versions_of_tls_are_refused(door: Door, files: Files) -> None:
    context = files.trust()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", door.service.port), timeout=20) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("name", ["localhost", None])
def test_a_renewed_certificate_counts_for_new_connections_without_a_restart(
    door: Door, files: Files, name: str | None
) -> None:
    before = shown(door, files, name)
    with httpx.Client(verify=files.trust(), trust_env=False) as client:
        url = f"https://127.0.0.1:{door.service.port}/health"
        assert client.get(url).status_code == 200
        files.renew()
        assert client.get(url).status_code == 200  # on the connection that is open
    wait_until(lambda: shown(door, files, name) != before, 20, "the new certificate counts", interval=0.01)


@pytest.mark.parametrize("bad", ["", "no PEM", "key of another", None])
def test_files_that_went_bad_are_told_and_change_nothing(
    door: Door, files: Files, bad: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    before = shown(door, files)
    if bad is None:
        files.certificate.unlink()
    elif bad == "key of another":
        files.key.write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    else:
        files.certificate.write_text(bad)
    assert shown(door, files) == before
    assert shown(door, files) == before
    told = [record.message for record in caplog.records if record.name == "llm_service.tls"]
    assert [text.endswith("The certificate from before still counts.") for text in told] == [True]
    files.renew()
    wait_until(lambda: shown(door, files) != before, 20, "the new certificate counts", interval=0.01)


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("cert.pem", "none", "none cannot be read: No such file or directory."),
        ("none", "key.pem", "none cannot be read: No such file or directory."),
        ("key.pem", "cert.pem", "are no certificate in PEM form with its own key, without a password."),
    ],
)
def test_files_that_cannot_be_used_are_refused_at_start(files: Files, cert: str, key: str, said: str) -> None:
    directory = files.key.parent
    with pytest.raises(SettingsError) as caught:
        load({"LLM_TLS_CERT_FILE": str(directory / cert), "LLM_TLS_KEY_FILE": str(directory / key)})
    [(sentence, hint)] = caught.value.problems
    assert sentence.endswith(said)
    assert "LLM_TLS_CERT_FILE" in hint


@pytest.mark.parametrize("name", ["LLM_TLS_CERT_FILE", "LLM_TLS_KEY_FILE"])
def test_one_file_without_the_other_is_refused_at_start(files: Files, name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: files.environ[name]})
    assert caught.value.problems == [
        ("One of the two files for TLS is missing.", "Set LLM_TLS_CERT_FILE and LLM_TLS_KEY_FILE.")
    ]


def test_the_health_check_of_the_container_works_with_any_certificate(door: Door) -> None:
    assert alive("127.0.0.1", door.service.port, tls=True)
    assert not alive("127.0.0.1", door.service.port)
