"""One env file, one `vllm serve`: Compose, Slurm, Kubernetes, KServe, SAP AI Core and plain processes start the same.

The same but for where the engine listens and where its folders are: those are each face's own.
"""

import functools
import shutil
from pathlib import Path

import pytest

from berth.kubernetes import kustomize, sizes
from engine import devices
from tests.compose.conftest import WriteEnv
from tests.compose.conftest import write_env as write_env
from tests.support import faces
from tests.support.compose import ROOT, device_files, model_files, needs_compose
from tests.support.faces import FACES, Said

built_once = functools.cache(kustomize.documents)
SHELL: dict[str, str] = {}
BY_KUBECTL = ("kubernetes", "kserve")
DEMO = "env/models/demo.env"
# Values that a reader with a mind of its own would change: a shell, kubelet, Go's templates, YAML.
OVERRIDES = """{"a b": ["x, y", {"u": "Zoe $HOME $(id) $$ ${X:-1}"}]}"""
HOSTILE = (
    f"VLLM_HF_OVERRIDES='{OVERRIDES}'",
    "VLLM_SERVED_MODEL_NAME=one yes 1e3",
    "VLLM_LOGGING_PREFIX='$(VLLM_TP_SIZE) #1: no'",
    "VLLM_MAX_NUM_SEQS=07",
    "SOME_LIBRARY_OPTION=null",
)
NAMED = ("VLLM_LOGGING_PREFIX", "SOME_LIBRARY_OPTION")


def names() -> set[str]:
    """Every name that a tracked env file sets or suggests for the engine, and every variable of a device."""
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in (*device_files(), *model_files())]
    lines = [line.removeprefix("# ") for text in texts for line in text.splitlines() if "=" in line]
    own = {name for device in devices.names() for name in devices.load(device).VARIABLES}
    found = {line.partition("=")[0] for line in lines} | own | set(NAMED)
    return {name for name in found if not name.startswith(("BERTH_", "COMPOSE_"))}


def needs_kubectl() -> None:
    """Skip the test where kubectl is not here; no cluster is needed to render manifests."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl here")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models' sizes are asked for where the manifests are made; each overlay is built once."""
    monkeypatch.setattr(sizes, "of", lambda _: sizes.Sizes(0))
    monkeypatch.setattr(kustomize, "documents", built_once)


def sets() -> list[list[str]]:
    """Each device's file alone, the built-in model over each, and each other model over one of them in turn."""
    every, models = device_files(), [model for model in model_files() if model != DEMO]
    turns = [[every[place % len(every)], model] for place, model in enumerate(models)]
    return [*([device] for device in every), *([device, DEMO] for device in every), *turns]


def different(
    asked: tuple[str, ...], files: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Said, dict[str, Said]]:
    """What vLLM is started with by plain processes, and by each face that starts something else."""
    paths = [ROOT / file for file in files]
    said = {face: faces.said(FACES[face](paths, SHELL), names(), tmp_path, monkeypatch) for face in ("native", *asked)}
    return said["native"], {face: each for face, each in said.items() if each != said["native"]}


@pytest.mark.parametrize("files", sets(), ids=lambda files: "+".join(Path(file).stem for file in files))
def test_every_face_starts_the_same_command(files: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needs_compose()
    rest = tuple(face for face in FACES if face not in ("native", *BY_KUBECTL))
    native, others = different(rest, files, monkeypatch, tmp_path)
    assert native.argv or native.code == 2  # refused: by every face
    assert not others, (native, others)


@pytest.mark.parametrize("files", sets(), ids=lambda files: "+".join(Path(file).stem for file in files))
def test_every_face_of_kubernetes_starts_it_too(
    files: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needs_kubectl()
    several = faces.deployment([ROOT / file for file in files], SHELL).value("BERTH_NODES")
    native, others = different(("kubernetes",) if several else BY_KUBECTL, files, monkeypatch, tmp_path)
    assert not others, (native, others)


@pytest.mark.parametrize("face", [*FACES, "ai core"])
def test_values_that_something_on_the_way_might_read_arrive_as_they_are(
    face: str, write_env: WriteEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if face in BY_KUBECTL:
        needs_kubectl()
    if face == "compose":
        needs_compose()
    files = [ROOT / "env/cpu.env", ROOT / DEMO, Path(write_env("local", *HOSTILE))]
    environ = {**FACES, "ai core": faces.ai_core}[face](files, SHELL)
    said = faces.said(environ, names(), tmp_path, monkeypatch)
    assert said.argv[said.argv.index("--hf-overrides") + 1] == OVERRIDES
    assert said.argv[said.argv.index("--max-num-seqs") + 1] == "07"
    served = said.argv.index("--served-model-name") + 1
    assert said.argv[served : served + 3] == ("one", "yes", "1e3")
    assert said.environ["VLLM_LOGGING_PREFIX"] == "$(VLLM_TP_SIZE) #1: no"
    assert said.environ["SOME_LIBRARY_OPTION"] == "null"


def test_sap_ai_core_adds_the_revision_and_the_name_that_its_parameters_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [ROOT / "env/cuda.env", ROOT / "env/models/mistral-7b.env"]
    shell = {"VLLM_REVISION": "a" * 40}
    native = faces.said(faces.native(files, shell), names(), tmp_path, monkeypatch)
    there = faces.said(faces.ai_core(files, shell), names(), tmp_path, monkeypatch)
    place = there.argv.index("--served-model-name")
    assert there.argv[place + 1] == "mistralai/Mistral-7B-Instruct-v0.3"
    assert (*there.argv[:place], *there.argv[place + 2 :]) == native.argv
    assert native.argv[native.argv.index("--revision") + 1] == "a" * 40
    assert there.environ == native.environ
