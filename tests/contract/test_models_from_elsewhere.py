"""Real vLLM serves what `berth fetch` brought: a tar without any network, and a model out of an object store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine_python import ROOT, engine_python
from tests.support.stub_hub import StubHub
from tests.support.waiting import free_port

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL = "tests/demo"
ENGINE = {
    "LLM_DEVICE": "cpu",
    "VLLM_MAX_MODEL_LEN": "256",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENFORCE_EAGER": "true",
    "PYTHONPATH": str(ROOT),
}
SITE = {
    "AWS_ACCESS_KEY_ID": "an-id-for-tests",
    "AWS_SECRET_ACCESS_KEY": "a-secret-for-tests",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def fetch(home: Path, *words: str, **environ: str) -> dict[str, object]:
    """`berth fetch` of the demo model, from a hub on loopback."""
    with StubHub({MODEL: ROOT / "models" / "demo"}) as hub:
        shell = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": hub.address, "HF_TOKEN": "", **environ}
        command = [sys.executable, "-P", "-m", "berth", "fetch", MODEL, *words, "--json"]
        done = subprocess.run(command, env=shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def serve(tmp_path: Path, model: str, *before: str, **environ: str) -> dict[str, object]:
    """Start the engine, ask it once, and end it."""
    port = str(free_port())
    settings = {"LLM_VLLM_MODEL_NAME": model, "LLM_VLLM_PORT": port, "HF_HOME": str(tmp_path / "engine-home")}
    script, log = Path(__file__).with_name("isolated_start.py"), tmp_path / "engine.log"
    python = engine_python()
    shell = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", **ENGINE, **settings, **environ}
    command = [*before, sys.executable, str(script), str(python), port, str(log)]
    done = subprocess.run(command, env=shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + (log.read_text()[-4000:] if log.exists() else "")
    return dict(json.loads(done.stdout))


def test_a_tar_is_served_where_there_is_no_network_at_all(tmp_path: Path) -> None:
    fetched = fetch(tmp_path / "home", "--tar", str(tmp_path / "tests--demo"))
    told = serve(tmp_path, str(fetched["tar"]), "unshare", "--net", "--map-root-user", HF_HUB_OFFLINE="1")
    assert told["net"] == ["lo"]
    assert told["model"] == MODEL
    assert told["text"]


def test_a_model_in_an_object_store_is_streamed_from_there(tmp_path: Path) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        site = {**SITE, "AWS_ENDPOINT_URL": f"http://{host}:{port}", "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0"}
        make = "import boto3; boto3.client('s3').create_bucket(Bucket='models-of-a-site')"
        subprocess.run([sys.executable, "-c", make], env={**os.environ, **site}, check=True)
        fetched = fetch(tmp_path / "home", "--to", "s3://models-of-a-site", **site)
        told = serve(tmp_path, str(fetched["url"]), **site)
    finally:
        server.stop()
    assert str(fetched["url"]).startswith("s3://models-of-a-site/models/")
    assert told["text"]
