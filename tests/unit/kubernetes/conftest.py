"""What the kustomizations come to, by kubectl itself; no cluster is needed for that."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.kubernetes.cluster import Cluster, without_a_cluster

ROOT = Path(__file__).resolve().parents[3]
KUBERNETES = ROOT / "kubernetes"
DEVICES = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())
Manifest = dict[str, Any]

# Every kustomization that somebody may apply: each overlay as it is and with each component, and those of their own.
BUILDS = [
    *((device, component) for device in DEVICES for component in ("", *COMPONENTS)),
    ("multi-node", ""),
]

# Podman knows neither Services nor network policies nor budgets: its component drops them.
NO_CLUSTER = "podman"


def _each(builds: list[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("build", builds, ids=lambda build: "+".join(filter(None, build)))


every_build = _each(BUILDS)
every_build_for_a_cluster = _each([build for build in BUILDS if build[1] != NO_CLUSTER])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say so where the tests of this folder cannot run."""
    if shutil.which("kubectl"):
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="no kubectl on PATH, which builds kustomizations"))


def kustomize(folder: Path) -> str:
    """What kubectl makes of a kustomization."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifests(text: str) -> list[Manifest]:
    """The documents of a YAML text."""
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """kubectl without a cluster."""
    return without_a_cluster(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The manifests of one of BUILDS, each built once."""

    @functools.cache
    def of(build: tuple[str, str]) -> list[Manifest]:
        base, component = build
        folder = KUBERNETES / ("overlays" if base in DEVICES else "") / base
        if component:
            above = tmp_path_factory.mktemp("kustomization")
            content = {
                "resources": [os.path.relpath(folder, above)],
                "components": [os.path.relpath(KUBERNETES / "components" / component, above)],
            }
            (above / "kustomization.yaml").write_text(yaml.safe_dump(content))
            folder = above
        return manifests(kustomize(folder))

    return of


def templates(documents: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Each pod template by what it is of."""
    for each in documents:
        name, spec = f"{each['kind']} {each['metadata']['name']}", each.get("spec") or {}
        if "template" in spec:
            yield name, spec["template"]
        for part in ("leaderTemplate", "workerTemplate"):
            if part in spec.get("leaderWorkerTemplate", {}):
                yield f"{name} {part}", spec["leaderWorkerTemplate"][part]


def named(documents: list[Manifest], kind: str, name: str) -> Manifest:
    """One manifest; a ConfigMap's name ends in a hash."""
    found = [
        each
        for each in documents
        if each["kind"] == kind
        and (each["metadata"]["name"] == name or each["metadata"]["name"].startswith(f"{name}-"))
    ]
    assert len(found) == 1, [each["metadata"]["name"] for each in found]
    return found[0]
