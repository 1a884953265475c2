"""Home, temporary files and caches are usable, or the reason is said."""

import os
from pathlib import Path

import pytest

from engine import credentials, writable


def changed(environ: dict[str, str]) -> tuple[dict[str, str | None], list[str]]:
    decisions, problems = writable.settle(environ)
    return (
        {name: value for decision in decisions for name, value in decision.environ.items()},
        [problem.sentence for problem in problems],
    )


def test_a_good_home_is_kept_and_compiled_code_goes_below_vllms_cache(tmp_path: Path) -> None:
    found, problems = changed({"HOME": str(tmp_path), "USER": "x"})
    assert found == {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / ".cache/vllm/inductor"),
        "TRITON_CACHE_DIR": str(tmp_path / ".cache/vllm/triton"),
    }
    assert not problems


def test_places_that_settings_name_are_kept(tmp_path: Path) -> None:
    named = {"TORCHINDUCTOR_CACHE_DIR": "/a", "TRITON_CACHE_DIR": "/b", "VLLM_CACHE_ROOT": str(tmp_path / "v")}
    assert changed({"HOME": str(tmp_path), "USER": "x", **named}) == ({}, [])


@pytest.mark.parametrize("home", ["/", "", "/proc/nowhere"])
def test_an_unusable_home_is_replaced(tmp_path: Path, home: str) -> None:
    found, _ = changed({"HOME": home, "USER": "x", "TMPDIR": str(tmp_path)})
    assert found["HOME"] == str(tmp_path / f"berth-home-{os.getuid()}")


def test_an_unwritable_cache_falls_back_to_temporary_space(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "USER": "x", "TMPDIR": str(tmp_path)}
    found, _ = changed({**environ, "VLLM_CACHE_ROOT": "/proc/nowhere", "HF_HOME": "/proc/nowhere"})
    assert found["VLLM_CACHE_ROOT"] == str(tmp_path / f"berth-cache-{os.getuid()}/vllm")
    assert found["HF_HOME"] == str(tmp_path / f"berth-cache-{os.getuid()}/huggingface")


@pytest.mark.parametrize("mode", [0o777, None], ids=["that all may write", "that is a link"])
def test_temporary_space_that_another_user_laid_out_is_not_used(tmp_path: Path, mode: int | None) -> None:
    trap = tmp_path / f"berth-cache-{os.getuid()}"
    if mode is None:
        trap.symlink_to("elsewhere")
    else:
        trap.mkdir()
        trap.chmod(mode)
    found, _ = changed(
        {"HOME": str(tmp_path), "USER": "x", "TMPDIR": str(tmp_path), "VLLM_CACHE_ROOT": "/proc/nowhere"}
    )
    place = Path(str(found["VLLM_CACHE_ROOT"])).parent
    assert place.parent == tmp_path
    assert place != trap
    assert place.stat().st_mode & 0o777 == 0o700


def test_a_cache_mounted_noexec_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writable, "is_executable", lambda folder: False)
    assert ["noexec" in sentence for sentence in changed({"HOME": str(tmp_path), "USER": "x"})[1]] == [True]


def test_no_writable_place_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writable, "is_writable", lambda folder: False)
    assert changed({}) == ({}, ["there is no writable folder for temporary files"])


def test_secrets_come_from_the_places_where_they_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "hf_token").write_text("hf_x\n", encoding="utf-8")
    (tmp_path / "vllm_api_key").write_text("key\n", encoding="utf-8")
    decisions, problems = credentials.settle({}, {}, tmp_path)
    found = {name: value for decision in decisions for name, value in decision.environ.items()}
    assert found == {"HF_TOKEN_PATH": str(tmp_path / "hf_token"), "VLLM_API_KEY": "key"}
    assert not problems
    assert "key" not in "".join(map(str, decisions)).replace("vllm_api_key", "")


def test_an_empty_mounted_secret_is_none(tmp_path: Path) -> None:
    (tmp_path / "hf_token").touch()
    (tmp_path / "vllm_api_key").touch()
    assert credentials.settle({}, {}, tmp_path) == ([], [])


def test_what_is_set_beats_what_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "hf_token").write_text("hf_x", encoding="utf-8")
    (tmp_path / "vllm_api_key").write_text("key", encoding="utf-8")
    assert credentials.settle({}, {"HF_TOKEN": "a", "VLLM_API_KEY": "b"}, tmp_path) == ([], [])
