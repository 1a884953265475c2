"""`berth quantize` before anything starts: what is refused, and the exact commands."""

import pickle
from pathlib import Path

import pytest

from berth.errors import BerthError
from berth.quantizing import places, plan
from berth.quantizing.plan import Plan
from berth.runtimes import NOTHING
from engine import host
from tests.support.engine_python import ROOT


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "samples.jsonl"
    file.write_text('{"text": "Once"}\n')
    return file


def settled(
    scheme: str | None = None,
    to: Path | None = Path("/models/small"),
    data: Path | None = None,
    device: str = "cpu",
    model: str | None = "demo",
    trust_pickle: bool = False,
) -> Plan:
    return plan.settle(model, [], device, scheme, to, data, 64, 256, trust_pickle)


def refusal(**asked: object) -> tuple[str, str]:
    with pytest.raises(BerthError) as caught:
        settled(**asked)  # type: ignore[arg-type]
    assert caught.value.exit_code in (2, 3)
    return caught.value.problems[0].sentence, caught.value.problems[0].hint


def test_fp8_is_what_is_made_unless_a_scheme_is_named() -> None:
    assert settled().scheme == "fp8-dynamic"
    assert settled(device="cuda").scheme == "fp8-dynamic"


def test_gaudis_own_fp8_is_what_is_made_for_gaudi(data: Path) -> None:
    assert settled(device="hpu", to=None, data=data).scheme == "fp8-inc"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_gaudis_own_fp8_is_refused_elsewhere_with_what_to_use_instead(device: str, data: Path) -> None:
    sentence, hint = refusal(scheme="fp8-inc", device=device, to=None, data=data)
    assert "for Gaudi" in sentence
    assert "fp8-dynamic" in hint


def test_int8_is_refused_for_gaudi_which_would_gain_nothing(data: Path) -> None:
    assert "BF16" in refusal(scheme="w8a8", device="hpu", data=data)[0]


def test_4_bits_are_refused_for_a_cpu_without_their_kernel(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(host, "has_avx512", lambda: False)
    sentence, hint = refusal(scheme="w4a16", data=data)
    assert "AVX-512" in sentence
    assert "w8a8" in hint
    monkeypatch.setattr(host, "has_avx512", lambda: True)
    assert settled(scheme="w4a16", data=data)


@pytest.mark.parametrize("scheme", ["w8a8", "w4a16"])
def test_a_scheme_that_is_calibrated_needs_samples(scheme: str) -> None:
    assert "calibration set" in refusal(scheme=scheme, device="cuda")[0]


def test_a_file_that_is_no_calibration_set_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text('{"text": "Once"}\n{"txt": "a typo"}\n')
    assert f"{file}:2" in refusal(scheme="w8a8", data=file)[0]
    assert "no-such" in refusal(scheme="w8a8", data=tmp_path / "no-such")[0]


def test_a_pickle_needs_the_users_word_and_is_for_gaudi_alone(tmp_path: Path) -> None:
    file = tmp_path / "set.pkl"
    file.write_bytes(pickle.dumps([1]))
    assert "--trust-pickle" in refusal(device="hpu", to=None, data=file)[1]
    assert settled(device="hpu", to=None, data=file, trust_pickle=True)
    assert "--trust-pickle" not in refusal(scheme="w8a8", data=file, trust_pickle=True)[1]


def test_where_it_goes_must_be_said_where_something_goes(data: Path, tmp_path: Path) -> None:
    assert "--to is missing" in refusal(to=None)[0]
    assert "leave --to out" in refusal(device="hpu", data=data)[1]
    assert "a file" in refusal(to=data)[0]


def lines(asked: Plan, runtime: str) -> list[str]:
    return places.lines(asked, places.steps(asked, runtime, NOTHING))


def test_a_plain_process_runs_in_an_environment_of_its_own(data: Path) -> None:
    install, run = lines(settled(scheme="w8a8", data=data), "native")
    assert install.endswith(f"engine/quantize/install.sh cpu {ROOT}/.berth/quantize")
    words = f"-P -m engine.quantize.compress demo --scheme w8a8 --to /models/small --data {data}"
    assert f"/.berth/quantize/bin/python {words}" in run
    assert lines(settled(device="cuda"), "native")[0].endswith(f"install.sh cuda {ROOT}/.berth/quantize")


def test_gaudi_is_calibrated_by_the_engines_own_service(data: Path) -> None:
    (run,) = lines(
        settled(device="hpu", to=None, data=data), places.default_runtime(settled(device="hpu", to=None, data=data))
    )
    assert "COMPOSE_FILE=compose/base.yaml:compose/settings.yaml:compose/hpu.yaml:compose/quantize.yaml" in run
    assert f"FP8_DATASET_PATH={data}" in run
    assert "LLM_VLLM_MODEL_NAME=demo" in run
    assert run.endswith("docker compose --env-file env/hpu.env run --rm -T engine")


def test_gaudis_software_is_in_its_image_alone(data: Path) -> None:
    with pytest.raises(BerthError, match="in the image that serves"):
        lines(settled(device="hpu", to=None, data=data), "native")


def test_a_container_sees_the_calibration_set_read_only(data: Path) -> None:
    build, run = lines(settled(scheme="w8a8", data=data, device="cuda"), "compose")
    assert build.endswith("build engine")
    assert f"--volume {data}:{data}:ro" in run
    assert "--volume /models:/models engine" in run.replace(f"--volume {data}:{data}:ro ", "")
    assert "compose/cuda.yaml:compose/compress.yaml" in run


def test_a_job_is_one_sbatch_command(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    (run,) = lines(settled(scheme="w8a8", data=data), "slurm")
    assert "sbatch --parsable" in run
    told = f"--scheme=w8a8 --samples=64 --length=256 --to=/models/small --data={data}"
    assert f"apptainer/quantize.sbatch {told} env/cpu.env" in run
