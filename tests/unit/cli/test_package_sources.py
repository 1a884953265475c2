"""What pip has been told is told to uv and to image builds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from berth import package_sources

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose only pip configuration is the file pip.conf in tmp_path."""
    monkeypatch.setattr(package_sources, "SYSTEM", tmp_path / "none")
    empty = str(tmp_path / "empty")
    return {"HOME": empty, "XDG_CONFIG_DIRS": empty, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}


def configure(tmp_path: Path, text: str) -> None:
    (tmp_path / "pip.conf").write_text(text)


def test_a_mirror_in_pip_conf_reaches_uv(tmp_path: Path, site: dict[str, str]) -> None:
    configure(
        tmp_path,
        "[global]\nindex-url = https://mirror.example/simple\nextra-index-url =\n    file:///a\n    file:///b\n"
        "find_links = /w1 /w2\ntrusted-host = mirror.example\ncert = /ca.pem\ntimeout = 90\n",
    )
    found = package_sources.for_uv(site)
    assert found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert found["UV_INDEX"] == "file:///a file:///b"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert found["UV_FIND_LINKS"] == "/w1,/w2"
    assert found["UV_INSECURE_HOST"] == "mirror.example"
    assert found["SSL_CERT_FILE"] == "/ca.pem"
    assert found["UV_HTTP_TIMEOUT"] == "90"


def test_the_install_section_beats_global_and_the_environment_beats_both(tmp_path: Path, site: dict[str, str]) -> None:
    configure(tmp_path, "[install]\nindex-url = https://two\n[global]\nindex-url = https://one\nfind-links = /one\n")
    assert package_sources.for_uv(site)["UV_DEFAULT_INDEX"] == "https://two"
    site["PIP_INDEX_URL"] = "https://three"
    assert package_sources.for_uv(site)["UV_DEFAULT_INDEX"] == "https://three"
    assert package_sources.for_uv(site)["UV_FIND_LINKS"] == "/one"


def test_what_uv_has_been_told_itself_stays(tmp_path: Path, site: dict[str, str]) -> None:
    configure(tmp_path, "[global]\nindex-url = https://one\n")
    assert "UV_DEFAULT_INDEX" not in package_sources.for_uv({**site, "UV_DEFAULT_INDEX": "https://mine"})


def test_pip_can_be_told_to_read_no_file(tmp_path: Path, site: dict[str, str]) -> None:
    configure(tmp_path, "[global]\nindex-url = https://one\n")
    assert "UV_DEFAULT_INDEX" not in package_sources.for_uv({**site, "PIP_CONFIG_FILE": os.devnull})


def test_a_broken_pip_conf_counts_as_none(tmp_path: Path, site: dict[str, str]) -> None:
    configure(tmp_path, "index-url = no section\n")
    assert package_sources.for_uv(site) == {}


def test_a_build_gets_what_it_can_reach(tmp_path: Path, site: dict[str, str]) -> None:
    wheels, bundle = tmp_path / "wheels", tmp_path / "ca.pem"
    wheels.mkdir()
    bundle.touch()
    configure(tmp_path, f"[global]\nindex-url = https://m/simple\nfind-links = file://{wheels}\ncert = {bundle}\n")
    assert package_sources.for_build(site) == {
        "BERTH_PACKAGE_INDEX": "https://m/simple",
        "BERTH_WHEELS": str(wheels),
        "BERTH_CA_BUNDLE": str(bundle),
    }
    configure(tmp_path, "[global]\nindex-url = file:///srv/simple\nfind-links = https://wheels.example\n")
    assert package_sources.for_build(site) == {}


def test_a_site_without_an_index_has_its_wheels_alone(tmp_path: Path, site: dict[str, str]) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    index = "index-url = https://m/simple\nextra-index-url = https://n/simple\n"
    configure(tmp_path, f"[global]\nno-index = true\n{index}find-links = {wheels}\n")
    told = package_sources.for_uv(site)
    assert told == {"UV_DEFAULT_INDEX": package_sources.NO_INDEX, "UV_FIND_LINKS": str(wheels)}
    build = package_sources.for_build({**site, **told})
    assert build == {"BERTH_PACKAGE_INDEX": package_sources.NO_INDEX, "BERTH_WHEELS": str(wheels)}
    # uv itself is asked, since it says nothing about a variable that it does not know.
    uv = shutil.which("uv") or ROOT / ".berth/uv/bin/uv"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("UV_")} | told
    command = [uv, "pip", "install", "--dry-run", "--no-cache", "--target", tmp_path / "target", "six"]
    done = subprocess.run([*command, "--python", sys.executable], env=environ, capture_output=True, text=True)
    assert done.returncode != 0
    assert "six was not found" in done.stderr
