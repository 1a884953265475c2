"""The Gaudi image, built over a stand-in for Intel's base: everything but Gaudi's own software is real.

Needs the plugin's source, which is on GitHub alone: a folder with vllm_gaudi-0.26.0.tar.gz, named by
$BERTH_TEST_GAUDI_SOURCES. Wheels that no index has (torch for CPUs) come from $BERTH_WHEELS.
"""

import json
import os

import pytest

from tests.support.compose import ROOT, docker, needs_engine

BASE = "berth-test/gaudi-base"
IMAGE = "berth-test/vllm-hpu"
STRANGER = ("--user", "1000540000:0")

pytestmark = [pytest.mark.image, pytest.mark.docker]


def build(tag: str, context: str, *options: str) -> None:
    bundle = os.environ.get("SSL_CERT_FILE", "/dev/null")
    docker("build", "--quiet", "--secret", f"id=ca,src={bundle}", *options, "--tag", tag, context)


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    needs_engine()
    sources = os.environ.get("BERTH_TEST_GAUDI_SOURCES")
    if not sources:
        pytest.skip("vllm-gaudi's source is not here (its folder: BERTH_TEST_GAUDI_SOURCES; takes 10 minutes)")
    slim = os.environ.get("BERTH_BASE_IMAGE") or "berth-lab/base:bookworm"
    wheels = os.environ.get("BERTH_WHEELS") or sources
    folder = str(ROOT / "tests" / "image" / "gaudi_base")
    build(BASE, folder, "--build-arg", f"BASE_IMAGE={slim}", "--build-context", f"wheels={wheels}")
    options = ("--file", str(ROOT / "Dockerfile.hpu"), "--build-arg", f"BASE_IMAGE={BASE}")
    build(IMAGE, str(ROOT), *options, "--build-context", f"wheels={sources}")


def run(*command: str, options: tuple[str, ...] = ()) -> str:
    return docker("run", "--rm", "--network", "none", *STRANGER, *options, IMAGE, *command)


def test_the_bases_pytorch_stays_the_only_one() -> None:
    said = run("python", "-P", "-c", "import torch; print(torch.__file__)")
    assert not said.startswith("/opt/venv/")


def test_vllm_and_the_plugin_have_the_same_number() -> None:
    program = "from importlib.metadata import version; print(version('vllm'), version('vllm-gaudi'))"
    assert run("python", "-P", "-c", program).split() == ["0.26.0", "0.26.0"]


def test_its_catalog_was_written_from_the_vllm_in_it() -> None:
    written = json.loads(run("cat", "/opt/venv/share/berth/catalog.json"))
    tracked = json.loads((ROOT / "engine" / "catalogs" / "hpu.json").read_text())
    assert written["flags"].keys() == tracked["flags"].keys()
    assert written["variables"] == tracked["variables"]


def test_the_calibration_scripts_are_kept() -> None:
    assert "usage:" in run("sh", "-c", "bash /opt/venv/share/vllm-gaudi/calibration/calibrate_model.sh || true")


def test_any_user_of_group_0_can_write_gaudis_logs() -> None:
    assert run("sh", "-c", 'touch "$HABANA_LOGS/log" && echo "$OMPI_MCA_btl_vader_single_copy_mechanism"') == "none\n"


def test_settings_that_only_the_plugin_reads_are_known() -> None:
    variables = ("LLM_VLLM_MODEL_NAME=demo", "VLLM_PROMPT_BS_BUCKET_MAX=4", "VLLM_SKIP_WARMUP=true")
    assert run("--check", options=tuple(word for variable in variables for word in ("--env", variable))) == ""
