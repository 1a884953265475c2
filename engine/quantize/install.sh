#!/usr/bin/env bash
# Installs llm-compressor into a virtual environment of its own: engine/quantize/install.sh cpu|cuda VENV_DIR
# uv's own settings (UV_DEFAULT_INDEX, UV_FIND_LINKS, UV_PYTHON) say where packages and Python come from.
set -euo pipefail

torch=2.13.0 # the newest that this llm-compressor takes and that vLLM's images have, too
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() { # EXIT_CODE SENTENCE HINT
    printf 'berth: error: %s\nberth: hint: %s\n' "$2" "$3" >&2
    exit "$1"
}

if [ $# -ne 2 ] || [[ $1 != cpu && $1 != cuda ]]; then
    printf 'Usage: %s cpu|cuda VENV_DIR\nInstalls llm-compressor into VENV_DIR, which is made when missing.\n' "$0" >&2
    exit 2
fi
device=$1 venv=$(realpath -m "$2")
uv=${UV:-$(command -v uv || true)}
[ -n "$uv" ] || fail 3 "uv is missing" "put uv on PATH, or its path in \$UV: scripts/berth does so by itself"

# The packages by their list, and the place of engine/, which is imported from there.
stamp="$device $torch $here $(cat "$here/requirements.txt" "$here/install.sh" | sha256sum | cut -c-16)"
if [ "$(cat "$venv/share/berth/installed" 2>/dev/null)" = "$stamp" ]; then exit 0; fi

# PyTorch's CPU build is a fifth of the other. A folder of wheels may have it, else PyTorch's own index does.
backend=()
if [ "$device" = cpu ] && ! compgen -G "${UV_FIND_LINKS:-/nonexistent}/torch-*cpu*.whl" >/dev/null; then
    backend=(--torch-backend cpu)
fi
version=$torch
if [ "$device" = cpu ] && [ "$(uname -m)" = x86_64 ]; then version=$torch+cpu; fi

mkdir -p "$(dirname "$venv")"
[ -x "$venv/bin/python" ] || "$uv" venv --quiet --python '>=3.11' "$venv"
printf 'berth: installing llm-compressor for %s\n' "$device" >&2
without=$venv/without.txt
# 1 GB that PyTorch lists and that a CPU never uses.
if [ "$device" = cpu ]; then echo 'triton; sys_platform == "never"'; fi >"$without"
"$uv" pip install --python "$venv/bin/python" --overrides "$without" "${backend[@]}" "torch==$version"
"$uv" pip install --python "$venv/bin/python" --no-deps --requirement "$here/requirements.txt"
rm "$without"
root=$(dirname "$(dirname "$here")")
"$venv/bin/python" - "$root" <<'PYTHON'
import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "berth.pth").write_text(sys.argv[1] + "\n")
PYTHON
# What cannot be imported must be found out now.
(cd / && "$venv/bin/python" -P -c 'import llmcompressor, engine.quantize.layers')
mkdir -p "$venv/share/berth"
echo "$stamp" >"$venv/share/berth/installed"
