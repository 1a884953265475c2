# shellcheck shell=bash
# Sourced by the scripts: uv and virtual environments below .berth/, made from nothing but Python >= 3.11. No root needed.
#
#   berth_venv DIR FILE…   make sure that the virtual environment DIR holds exactly what the requirement FILEs pin.
#                          Quick when nothing changed: a stamp keeps the hash of the files.
#   berth_uv               print the path of uv, installing it into .berth/uv if there is none
#   berth_python           print the path of a Python >= 3.11

BERTH_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# Exit codes are those of the command line: 1 failed, 3 missing prerequisite.
berth_die() { # CODE SENTENCE HINT
    printf 'berth: error: %s\nberth: hint: %s\n' "$2" "$3" >&2
    exit "$1"
}

berth_python() {
    local name
    for name in python3 python3.11 python3.12 python3.13 python3.14; do
        # The real path, not a shim that a version manager put on PATH.
        "$name" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys.executable)' 2>/dev/null && return
    done
    berth_die 3 'no Python 3.11 or newer on PATH' \
        'install the package python3 (Debian 12, Ubuntu 24.04 or newer), or put a newer python3 on PATH'
}

berth_uv() {
    local python
    python=$(berth_python) || exit $?
    "$python" "$BERTH_ROOT/scripts/lib/get_uv.py" "$BERTH_ROOT/.berth/uv"
}

# uv does not read pip's configuration: hand over what a site with a mirror has told pip.
berth_package_sources() {
    local python exports
    python=$(berth_python) || exit $?
    exports=$("$python" "$BERTH_ROOT/berth/package_sources.py") || exit $?
    eval "$exports"
}

berth_stamp() { # FILE… : the root is part of it, since a moved checkout breaks its environments
    (set -o pipefail && cd "$BERTH_ROOT" && { printf '%s\n' "$BERTH_ROOT" && cat -- "$@"; } | sha256sum)
}

berth_venv() { # DIR FILE…
    local dir=$1 stamp
    shift
    stamp=$(berth_stamp "$@") || berth_die 1 "cannot read $*" 'is the checkout complete? try: git status'
    [[ -x $dir/bin/python && $(cat "$dir/berth.stamp" 2>/dev/null) == "$stamp" ]] && return
    mkdir -p "$BERTH_ROOT/.berth"
    (
        # Two scripts at once: the second waits, then finds the work done.
        flock 9
        [[ -x $dir/bin/python && $(cat "$dir/berth.stamp" 2>/dev/null) == "$stamp" ]] && exit 0
        berth_venv_make "$dir" "$stamp" "$@"
    ) 9>"$BERTH_ROOT/.berth/setup.lock" || exit $?
}

berth_venv_make() { # DIR STAMP FILE…
    local dir=$1 stamp=$2 uv python file
    local -a requirements=()
    shift 2
    printf 'berth: setting up %s\n' "${dir#"$BERTH_ROOT/"}" >&2
    python=$(berth_python) || exit $?
    uv=$(berth_uv) || exit $?
    berth_package_sources
    for file in "$@"; do requirements+=("$BERTH_ROOT/$file"); done
    rm -f "$dir/berth.stamp"
    if ! { "$uv" venv --quiet --clear --no-project --python "$python" "$dir" &&
        VIRTUAL_ENV=$dir "$uv" pip sync --quiet --compile-bytecode "${requirements[@]}"; }; then
        berth_die 1 "could not install $* into $dir" \
            'uv said why above; behind a mirror, set index-url or find-links in pip.conf or PIP_INDEX_URL'
    fi
    # On the path of this environment only: PYTHONPATH would reach vLLM too.
    printf '%s\n' "$BERTH_ROOT" "$BERTH_ROOT/microservice" \
        >"$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/berth.pth"
    printf '%s\n' "$stamp" >"$dir/berth.stamp"
}
