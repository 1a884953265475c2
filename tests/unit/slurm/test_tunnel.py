"""Which ssh command leads to a door, what its complaints mean, and what a person is given to type."""

import json
import shlex
import socket
from pathlib import Path, PurePosixPath

import pytest

from berth.errors import BerthError
from berth.slurm import door, snippets
from berth.slurm.cluster import Cluster
from berth.slurm.publish import target
from berth.slurm.site import Site
from berth.slurm.store import EndpointFile
from berth.slurm.tunnel import Route, forward, meaning, reverse, route

ENDPOINT = EndpointFile(run="7", host="10.0.0.2", port=20488, node="n1", login_port=31000)


@pytest.mark.parametrize(
    ("login", "transport", "expected"),
    [
        ("", "", Route("10.0.0.2", 20488)),
        ("", "direct", Route("10.0.0.2", 20488)),
        ("", "jump", Route("10.0.0.2", 20488, "n1")),
        ("", "job", Route("127.0.0.1", 31000)),
        ("me@login", "direct", Route("10.0.0.2", 20488, "me@login")),
        ("me@login", "jump", Route("10.0.0.2", 20488, "me@n1", "me@login")),
        ("della", "jump", Route("10.0.0.2", 20488, "n1", "della")),
        ("me@login", "job", Route("127.0.0.1", 31000, "me@login")),
    ],
)
def test_each_transport_has_its_way_from_the_login_node_and_from_a_laptop(
    login: str, transport: str, expected: Route
) -> None:
    assert route(ENDPOINT, Cluster(login), Site(login=login, transport=transport)) == expected


def test_a_reverse_tunnel_to_another_login_node_is_reached_through_the_one_that_is_known() -> None:
    site = Site(login="me@login", transport="job", tunnel_host="login2")
    assert route(ENDPOINT, Cluster("me@login"), site) == Route("127.0.0.1", 31000, "me@login2", "me@login")
    assert route(ENDPOINT, Cluster(), site) == Route("127.0.0.1", 31000, "login2")


def test_a_reverse_tunnel_to_this_very_login_node_needs_no_ssh() -> None:
    site = Site(transport="job", tunnel_host=f"me@{socket.gethostname()}.cluster.example")
    assert route(ENDPOINT, Cluster(), site) == Route("127.0.0.1", 31000)


def test_a_tunnel_has_a_connection_of_its_own_and_fails_when_it_cannot_forward() -> None:
    command = forward(Route("10.0.0.2", 20488, "me@login"), 5000, Cluster("me@login"))
    assert command[-3:] == ["-L", "127.0.0.1:5000:10.0.0.2:20488", "me@login"]
    settings = [word for word in command if "=" in word]
    firsts = {word.partition("=")[0]: word for word in reversed(settings)}  # ssh takes the first
    assert firsts["ControlPath"] == "ControlPath=none"
    assert firsts["ControlMaster"] == "ControlMaster=no"
    assert firsts["ExitOnForwardFailure"] == "ExitOnForwardFailure=yes"
    assert firsts["BatchMode"] == "BatchMode=yes"


def test_the_hop_of_a_jump_uses_the_login_nodes_shared_connection() -> None:
    command = forward(Route("10.0.0.2", 20488, "me@n1", "me@login"), 5000, Cluster("me@login"))
    hop = next(word for word in command if word.startswith("ProxyCommand="))
    words = shlex.split(hop.removeprefix("ProxyCommand="))
    assert words[-3:] == ["-W", "[%h]:%p", "me@login"]
    assert any(word.startswith("ControlPath=") and word.endswith("/%%C") for word in words), "ssh expands % in it"


def test_a_reverse_tunnel_names_the_loopback_address() -> None:
    assert "127.0.0.1:6789:127.0.0.1:5000" in reverse("me@vm", 6789, 5000)


@pytest.mark.parametrize(
    ("line", "sentence", "hint"),
    [
        ("channel 2: open failed: connect failed: Connection refused", "does not reach the door", "SITE_TRANSPORT"),
        ("channel 2: open failed: administratively prohibited: open failed", "forbids port forwarding", "jump"),
        ("Access denied by pam_slurm_adopt: you have no active jobs on this node", "lets nobody in", "direct"),
        ("me@login: Permission denied (publickey).", "without a question", "BatchMode"),
        ("ssh: Could not resolve hostname loginn: Name or service not known", "no machine is called login", "config"),
        ("ssh: connect to host login port 22: Connection timed out", "cannot be reached", "VPN"),
        ("Error: remote port forwarding failed for listen port 6789", "does not give out that port", "another port"),
        ("Host key verification failed.", "host key", "fingerprint"),
        ("something new", "something new", "by hand"),
    ],
)
def test_what_ssh_says_becomes_a_sentence_and_a_remedy(line: str, sentence: str, hint: str) -> None:
    said = meaning(["debris", line], "login")
    assert sentence in said[0]
    assert hint in said[1]


@pytest.mark.parametrize(
    ("text", "expected"), [("me@vm", ("me@vm", 0)), ("me@vm:6789", ("me@vm", 6789)), ("vm:1024", ("vm", 1024))]
)
def test_where_to_publish_is_a_machine_and_perhaps_a_port(text: str, expected: tuple[str, int]) -> None:
    assert target(text) == expected


@pytest.mark.parametrize("text", ["", "me@vm:", "me@vm:80", "me@vm:70000", "-oProxyCommand=x", "a b", "vm:1:2"])
def test_what_is_no_machine_is_bad_usage(text: str) -> None:
    with pytest.raises(BerthError) as caught:
        target(text)
    assert caught.value.exit_code == 2


def test_a_door_keeps_its_port_until_somebody_else_has_it(tmp_path: Path) -> None:
    first = door.port(tmp_path, None)
    assert door.port(tmp_path, None) == first
    with socket.create_server(("127.0.0.1", first)):
        assert door.port(tmp_path, None) != first
        with pytest.raises(BerthError, match=f"port {first} is taken by"):
            door.port(tmp_path, first)


def test_a_doors_port_survives_a_torn_file(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("99999999")
    assert 0 < door.port(tmp_path, None) < 65536


def test_the_key_is_written_for_its_owner_alone_even_over_an_open_file(tmp_path: Path) -> None:
    (tmp_path / "api_key").write_text("old")
    (tmp_path / "api_key").chmod(0o644)
    door.keep_key(tmp_path, "secret")
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {
        "api_key": 0o600,
        "authorization": 0o600,
    }
    assert (tmp_path / "authorization").read_text() == "Authorization: Bearer secret\n"


def test_the_door_inherits_no_setting_of_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_DEVICE", "cpu")
    monkeypatch.setenv("VLLM_API_KEY", "another")
    environ = door.environ(tmp_path, 5000)
    assert not {"LLM_DEVICE", "VLLM_API_KEY"} & environ.keys()
    assert environ["LLM_API_KEYS_FILE"] == environ["VLLM_API_KEY_FILE"] == str(tmp_path / "api_key")


HOSTILE = 'it\'s "ümlaut" $HOME `id` \\ model'


def test_the_curl_line_survives_a_shell_whatever_the_model_is_called() -> None:
    words = shlex.split(snippets.curl("http://127.0.0.1:1", HOSTILE, PurePosixPath("/a b/authorization")))
    assert words[words.index("-H") + 1] == "@/a b/authorization"
    assert json.loads(words[words.index("-d") + 1])["model"] == HOSTILE


@pytest.mark.parametrize("lines", [snippets.openai, snippets.litellm])
def test_the_python_lines_are_python_whatever_the_model_is_called(lines: object) -> None:
    assert callable(lines)
    text = lines("http://127.0.0.1:1", HOSTILE, PurePosixPath("/a b/api_key"))
    compile(text, "snippet", "exec")
    assert "secret" not in text
