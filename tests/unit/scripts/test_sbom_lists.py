"""scripts/lib/sbom_lists.py: licences and requirements out of a CycloneDX file."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "scripts" / "lib" / "sbom_lists.py"
_spec = importlib.util.spec_from_file_location("sbom_lists", PROGRAM)
assert _spec
assert _spec.loader
LISTS = importlib.util.module_from_spec(_spec)
sys.modules["sbom_lists"] = LISTS  # where its dataclass looks for itself
_spec.loader.exec_module(LISTS)


def component(purl: str, name: str, version: str, *licences: dict[str, Any]) -> dict[str, Any]:
    return {"type": "library", "purl": purl, "name": name, "version": version, "licenses": list(licences)}


def lists(folder: Path, text: str) -> "subprocess.CompletedProcess[str]":
    (folder / "llm.cdx.json").write_text(text, encoding="utf-8")
    return subprocess.run([sys.executable, PROGRAM, folder / "llm.cdx.json"], capture_output=True, text=True)


def test_every_package_is_listed_once_with_what_it_states(tmp_path: Path) -> None:
    components = [
        component("pkg:deb/debian/libc6@2.36?arch=amd64", "libc6", "2.36", {"license": {"id": "GPL-2.0-only"}}),
        component("pkg:pypi/torch@2.13.0%2Bcpu", "torch", "2.13.0+cpu", {"license": {"name": "BSD-3-Clause"}}),
        component("pkg:pypi/httpx@0.28.1", "httpx", "0.28.1", {"expression": "BSD-3-Clause OR MIT"}),
        component("pkg:pypi/httpx@0.28.1", "httpx", "0.28.1", {"expression": "BSD-3-Clause OR MIT"}),
        component("pkg:pypi/odd@1", "odd", "1", {"license": {"name": "A licence\n  of several lines"}}),
        component("pkg:pypi/silent@1", "silent", "1"),
        {"type": "operating-system", "name": "debian", "version": "12"},
    ]
    done = lists(tmp_path, json.dumps({"components": components}))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "llm.licences.txt").read_text().splitlines() == [
        "deb libc6 2.36: GPL-2.0-only",
        "pypi httpx 0.28.1: BSD-3-Clause OR MIT",
        "pypi odd 1: A licence of several lines",
        "pypi silent 1: not stated",
        "pypi torch 2.13.0+cpu: BSD-3-Clause",
    ]
    assert (tmp_path / "llm.python.txt").read_text().splitlines() == [
        "httpx==0.28.1",
        "odd==1",
        "silent==1",
        "torch==2.13.0",
    ]


def test_what_is_no_such_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for text in (
        "",
        "[]",
        "{}",
        '{"components": 1}',
        '{"components": [1]}',
        '{"components": [{"purl": 3, "version": 1}]}',
    ):
        done = lists(tmp_path, text)
        assert done.returncode == 2, text
        assert done.stderr.startswith("berth: error: ")
        assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["llm.cdx.json"]


KEYS = ["components", "purl", "name", "version", "licenses", "license", "expression", "id"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
)


@given(st.lists(VALUES, max_size=3))
def test_any_json_is_read_or_refused(components: list[object]) -> None:
    try:
        found = LISTS.packages(json.dumps({"components": components}))
    except ValueError:
        return
    assert all(len(line.splitlines()) == 1 for line in LISTS.licences(found) + LISTS.pins(found))
