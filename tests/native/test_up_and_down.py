"""`berth up` and `berth down` as plain processes, with a stub where vLLM would be."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.native.conftest import START_S, Kit, get
from tests.support.waiting import free_port, wait_until

pytestmark = pytest.mark.native

DEMO = ("--env", "env/models/demo.env")


def ready(kit: Kit) -> bool:
    return get(f"{kit.service}/ready")[0] == 200


def test_up_detached_returns_once_a_chat_request_is_answered(kit: Kit) -> None:
    done = kit.berth("up", "-d", "--json", *DEMO)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["model"] == "demo"
    assert facts["endpoint"] == kit.service
    answer = subprocess.run(["bash", "-c", facts["curl"] + " -s"], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"].startswith("Deep learning")
    assert kit.berth("status").returncode == 0
    down = kit.berth("down")
    assert (down.returncode, down.stdout) == (0, "stopped\n")
    assert kit.gone(), kit.processes()
    assert kit.berth("status").returncode == 1
    assert kit.berth("down").stdout == "nothing was running\n"


def test_the_last_lines_say_how_to_ask_and_how_to_stop(kit: Kit) -> None:
    said = kit.berth("up", "-d", *DEMO).stdout
    assert f"curl {kit.service}/v1/chat/completions" in said
    assert "scripts/berth down" in said
    kit.berth("down")


def test_a_deployment_whose_clients_show_a_key_gets_ready_and_says_how_to_ask(kit: Kit, tmp_path: Path) -> None:
    key = kit.berth("key", "add", "alice", "--file", str(tmp_path / "keys")).stdout.strip()
    kit.environ |= {"LLM_API_KEYS_FILE": str(tmp_path / "keys"), "BIND_ADDR": "0.0.0.0"}
    done = kit.berth("up", "-d", "--json", *DEMO)
    assert done.returncode == 0, done.stderr
    assert get(f"{kit.service}/ready")[0] == 401
    words = ["bash", "-c", json.loads(done.stdout)["curl"] + " -s"]
    asked = {**kit.environ, "KEY": key}
    answer = subprocess.run(words, capture_output=True, text=True, check=True, env=asked)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"].startswith("Deep learning")
    assert kit.berth("status").returncode == 0
    (tmp_path / "mine").write_text(key)
    assert kit.berth("chat", "?", "--key-file", str(tmp_path / "mine")).stdout.startswith("Deep learning")
    assert kit.berth("chat", "?").returncode == 2
    assert kit.berth("down").stdout == "stopped\n"
    assert kit.gone(), kit.processes()


def test_a_service_over_https_gets_ready_and_every_verb_and_the_printed_line_reach_it(kit: Kit, tmp_path: Path) -> None:
    made = trustme.CA().issue_cert("llm.example.org")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.cert_chain_pems[0].bytes())
    key.write_bytes(made.private_key_pem.bytes())
    kit.environ |= {"LLM_TLS_CERT_FILE": str(certificate), "LLM_TLS_KEY_FILE": str(key)}
    done = kit.berth("up", "-d", "--json", *DEMO)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["endpoint"] == kit.service.replace("http:", "https:")
    answer = subprocess.run(["bash", "-c", facts["curl"] + " -s"], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"].startswith("Deep learning")
    assert kit.berth("status").returncode == 0
    assert kit.berth("chat", "?").stdout.startswith("Deep learning")
    assert kit.berth("down").stdout == "stopped\n"
    assert kit.gone(), kit.processes()


def test_other_machines_are_not_let_in_without_a_key(kit: Kit) -> None:
    refused = kit.berth("up", "-d", *DEMO, BIND_ADDR="0.0.0.0")
    assert refused.returncode == 2
    assert "BIND_ADDR=0.0.0.0 lets other machines in" in refused.stderr
    assert kit.gone(), kit.processes()


def test_a_second_up_says_that_it_is_running(kit: Kit) -> None:
    kit.berth("up", "-d", *DEMO)
    pids = {child["pid"] for child in kit.state["children"].values()}
    again = kit.berth("up", "-d", *DEMO)
    assert again.returncode == 0
    assert "already running" in again.stderr
    other = kit.berth("up", "-d", *DEMO, LLM_VLLM_MODEL_NAME=str(kit.root))
    assert other.returncode == 1
    assert "already running here (native, cpu, demo)" in other.stderr
    assert {child["pid"] for child in kit.state["children"].values()} == pids
    kit.berth("down")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_stops_a_deployment_in_the_foreground(kit: Kit, number: signal.Signals) -> None:
    process = kit.begin("up", *DEMO)
    wait_until(lambda: "stop it with" in kit.output, START_S, "the last lines of up")
    process.send_signal(number)
    assert process.wait(START_S) == 0, kit.output
    assert kit.gone(), kit.processes()


def test_ctrl_c_while_starting_leaves_nothing(kit: Kit) -> None:
    kit.fake(silent=True)
    process = kit.begin("up", *DEMO)
    wait_until(lambda: kit.state.get("children"), START_S, "the children")
    process.send_signal(signal.SIGINT)
    assert process.wait(START_S) == 130
    assert kit.gone(), kit.processes()


def test_a_killed_command_line_takes_a_foreground_deployment_with_it(kit: Kit) -> None:
    process = kit.begin("up", *DEMO)
    wait_until(lambda: "stop it with" in kit.output, START_S, "the last lines of up")
    process.kill()
    process.wait()
    wait_until(kit.gone, START_S, "the end of all processes")


def test_down_from_elsewhere_ends_a_foreground_up(kit: Kit) -> None:
    process = kit.begin("up", *DEMO)
    wait_until(lambda: "stop it with" in kit.output, START_S, "the last lines of up")
    assert kit.berth("down").returncode == 0
    assert process.wait(START_S) == 0


def test_an_engine_that_refuses_its_settings_ends_up_with_its_own_words(kit: Kit) -> None:
    kit.fake(exit=2, say="berth: error: the model folder /x is empty\nberth: hint: put a model there")
    done = kit.berth("up", "-d", *DEMO)
    assert done.returncode == 2
    assert done.stderr.endswith("berth: error: the model folder /x is empty\nberth: hint: put a model there\n")
    assert kit.gone(), kit.processes()


def test_an_engine_that_dies_while_starting_ends_up_with_the_cause(kit: Kit) -> None:
    kit.fake(
        exit=1,
        say="(Worker pid=1) ERROR 11-21 07:00:04 [a.py:1] ValueError: not enough memory\n"
        "(APIServer pid=2) ERROR 11-21 07:00:05 [b.py:2] RuntimeError: failed. See root cause above.",
    )
    done = kit.berth("up", "-d", *DEMO)
    assert done.returncode == 1
    assert "engine ended with exit code 1 before it was ready: ValueError: not enough memory" in done.stderr
    assert kit.gone(), kit.processes()


def test_an_engine_that_is_not_ready_in_time_is_stopped(kit: Kit) -> None:
    kit.fake(silent=True)
    done = kit.berth("up", "-d", "--timeout", "2", *DEMO)
    assert done.returncode == 4
    assert "not ready within 2 s" in done.stderr
    assert kit.gone(), kit.processes()


def test_settings_arrive_literally_and_the_shell_wins(kit: Kit) -> None:
    values = {"VLLM_OVERRIDE_GENERATION_CONFIG": '{"a": "$HOME `id`;#1*"}', "VLLM_MAX_NUM_SEQS": "8"}
    local = "".join(f"{name}={value}\n" for name, value in values.items())
    (kit.root / "env/local.env").write_text(local + "VLLM_SEED=1\n")
    assert kit.berth("up", "-d", *DEMO, VLLM_SEED="2").returncode == 0
    seen = json.loads((kit.root / "environ.json").read_text())
    assert {name: seen[name] for name in values} == values
    assert seen["VLLM_SEED"] == "2"
    assert seen["LLM_VLLM_HOST"] == "127.0.0.1"
    kit.berth("down")


def test_secrets_are_in_no_file_and_on_no_command_line(kit: Kit) -> None:
    secret = "hf_" + "x" * 20
    assert kit.berth("up", "-d", *DEMO, HF_TOKEN=secret).returncode == 0
    assert not any(secret in words for words in kit.processes().values())
    files = [file for file in (kit.root / ".berth/run").iterdir() if secret in file.read_text()]
    assert files == []
    assert secret not in kit.berth("up", "--dry-run", *DEMO, HF_TOKEN=secret).stdout
    kit.berth("down")


def test_without_a_hub_the_demo_model_is_served_and_up_says_so(kit: Kit) -> None:
    done = kit.berth("up", "-d", "--json", HF_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 0, done.stderr
    assert "serving the built-in demo model instead" in done.stderr
    assert json.loads(done.stdout)["model"] == "demo"
    kit.berth("down")


def test_without_a_hub_a_model_that_the_user_named_is_an_error(kit: Kit) -> None:
    hub = f"http://127.0.0.1:{free_port()}"
    done = kit.berth("up", "-d", HF_ENDPOINT=hub, LLM_VLLM_MODEL_NAME="some/model")
    assert done.returncode == 3
    assert "some/model is not in the cache, and no model hub can be reached" in done.stderr
    assert not (kit.root / ".berth/run").exists()


def test_a_port_in_use_names_who_holds_it(kit: Kit) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = kit.berth("up", "-d", *DEMO, LLM_USVC_PORT=str(port))
    assert done.returncode == 1
    assert f"port {port} is in use by" in done.stderr
    assert "pytest" in done.stderr
    assert not (kit.root / ".berth/run").exists()


@pytest.mark.parametrize(
    ("line", "said", "code"),
    [
        ("VLLM_MAX_NUM_SEQ=8", "env/local.env:2: VLLM_MAX_NUM_SEQ: no such setting", 2),
        ("VLLM_MAX_NUM_SEQS=many", "env/local.env:2: VLLM_MAX_NUM_SEQS='many': not a whole number", 2),
        ("no equals sign", "env/local.env:2: not a line of the form NAME=value", 2),
        ("LLM_USVC_PORT=70000", "env/local.env:2: LLM_USVC_PORT=70000: not a port", 2),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line_before_anything_starts(
    kit: Kit, line: str, said: str, code: int
) -> None:
    (kit.root / "env/local.env").write_text(f"# mine\n{line}\n")
    kit.environ.pop("LLM_USVC_PORT")
    done = kit.berth("up", "-d", *DEMO)
    assert done.returncode == code
    assert said in done.stderr
    assert "berth: hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (kit.root / ".berth/run").exists()


def test_env_cuda_without_a_gpu_names_what_is_here(kit: Kit) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    done = kit.berth("up", "-d", "--env", "env/cuda.env", *DEMO)
    assert done.returncode == 3
    assert "env/cuda.env is for cuda, and this machine has none" in done.stderr
    assert "--device cpu" in done.stderr


def test_ctrl_c_while_vllm_is_installed_ends_the_installation(kit: Kit) -> None:
    script = kit.root / "engine/install/cpu.sh"
    worker = f'import time; "{kit.root}"; time.sleep(600)'
    script.write_text(f"#!/usr/bin/env bash\necho 'berth: fetching much' >&2\n{sys.executable} -c '{worker}' & wait\n")
    process = kit.begin("up", *DEMO)
    wait_until(lambda: "fetching much" in kit.output, START_S, "the installer's line")
    process.send_signal(signal.SIGTERM)
    assert process.wait(START_S) == 130
    wait_until(kit.gone, START_S, "the end of the installation")
    assert kit.berth("status").returncode == 1


def test_an_engine_that_is_not_ready_has_nothing_to_finish_and_gets_little_time(kit: Kit) -> None:
    kit.fake(silent=True, deaf=True)
    done = kit.berth("up", "-d", "--timeout", "2", *DEMO, timeout=40)  # the time for running answers would be 75 s
    assert done.returncode == 4
    assert kit.gone(), kit.processes()


def test_a_second_ctrl_c_does_not_wait_for_an_engine_that_takes_its_time(kit: Kit) -> None:
    kit.fake(deaf=True)
    process = kit.begin("up", *DEMO)
    wait_until(lambda: "stop it with" in kit.output, START_S, "the last lines of up")
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "berth: stopping" in kit.output, START_S, "the word that it stops")
    wait_until(lambda: kit.state["children"]["engine"]["state"] == "stopping", START_S, "the engine's state")
    process.send_signal(signal.SIGINT)
    assert process.wait(START_S) == 130
    wait_until(kit.gone, START_S, "the end of all processes")
