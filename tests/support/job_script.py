"""The parts of the job script (apptainer/lib, apptainer/devices), run one by one with plain bash."""

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

APPTAINER = Path(__file__).resolve().parents[2] / "apptainer"
_READ = """
for file in "$@"; do
    rm -f "$file.code"
    (
        declare -A got=()
        read_env_file "$file" got $MODE
        for name in "${!got[@]}"; do printf '%s=%s\\0' "$name" "${got[$name]}"; done
    ) >"$file.read" 2>"$file.said" || echo "$?" >"$file.code"
done
"""


def bash(
    text: str,
    *args: str | Path,
    parts: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run bash after sourcing parts, such as "lib/ports"; under the options that the job script sets."""
    sources = "".join(f"source {APPTAINER}/{part}.sh\n" for part in parts)
    words = ["bash", "-c", f"set -uo pipefail\n{sources}{text}", "test", *map(str, args)]
    usual = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(
        words,
        env={**usual, **(environ or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=120,
    )


def read_env_files(paths: Iterable[Path], mode: str = "", cwd: Path | None = None) -> list[dict[str, str] | str]:
    """Read each file as the job does: its settings, or what it says where it refuses the file (exit code 64)."""
    paths = list(paths)
    parts = ("lib/messages", "lib/envfile")
    done = bash(_READ, *paths, parts=parts, environ={"MODE": mode}, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return [_read(path) for path in paths]


def _read(path: Path) -> dict[str, str] | str:
    said = path.with_name(f"{path.name}.said").read_text(encoding="utf-8", errors="replace")
    code = path.with_name(f"{path.name}.code")
    if code.exists():
        assert code.read_text() == "64\n", said
        assert said.startswith("berth: error: "), said
        return said
    assert not said, said
    pairs = path.with_name(f"{path.name}.read").read_bytes().decode("utf-8").split("\0")[:-1]
    return dict(pair.split("=", 1) for pair in pairs)
