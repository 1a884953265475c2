# What the install scripts share; sourced by <device>.sh, defines functions only.
# shellcheck shell=bash

install=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$install/../../microservice/requirements

# fail EXIT_CODE SENTENCE HINT
fail() {
    printf 'berth: error: %s\nberth: hint: %s\n' "$2" "$3" >&2
    exit "$1"
}

say() {
    printf 'berth: %s\n' "$1" >&2
}

# read_arguments "$@": sets $venv (absolute), $prune, and $uv.
read_arguments() {
    prune=
    if [ "${1:-}" = --prune ]; then
        prune=yes
        shift
    fi
    if [ $# -ne 1 ] || [ "${1#-}" != "$1" ]; then
        printf 'Usage: %s [--prune] VENV_DIR\n' "$0" >&2
        printf 'Installs vLLM into VENV_DIR, which is made when missing. --prune deletes what no server uses (for images).\n' >&2
        exit 2
    fi
    venv=$(realpath -m "$1")
    uv=${UV:-$(command -v uv || true)}
    [ -n "$uv" ] || fail 3 "uv is missing" "put uv on PATH, or its path in \$UV: scripts/up does so by itself"
}

# stamp DEVICE VERSION: one line that changes when an installation made by these scripts has to be made anew.
stamp() {
    local engine
    engine=$(dirname "$install")
    printf '%s %s %s %s\n' "$1" "$2" "${prune:-whole}" \
        "$(cat "$install/common.sh" "$install/$1".* "$install/finish.py" "$engine/write_catalog.py" "$requirements".* 2>/dev/null | sha256sum | cut -c-16)"
}

# up_to_date DEVICE VERSION: true when $venv holds exactly what this script would install.
up_to_date() {
    [ "$(cat "$venv/share/berth/installed" 2>/dev/null)" = "$(stamp "$1" "$2")" ]
}

# strip_library FILE: drop debug information and symbol tables that the dynamic loader does not read.
# A copy is stripped and renamed into place: the file may be a hard link into uv's cache.
strip_library() {
    strip --strip-unneeded -o "$1.stripped" "$1"
    chmod --reference="$1" "$1.stripped"
    mv "$1.stripped" "$1"
}

# prune_listed FILE: do what FILE lists, lines of "delete|strip  glob below site-packages  why"; `#` starts a comment line.
# `**/NAME` is a name at any depth. A glob that matches nothing is only noted: the next version may have dropped it itself.
prune_listed() {
    local site verb glob path
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    while read -r verb glob _; do
        case $verb in '' | '#'*) continue ;; delete | strip) ;; *) fail 1 "$1: no such verb: $verb" "write delete or strip" ;; esac
        case $glob in
        '**/'*) find "$site" -depth -name "${glob#\*\*/}" ;;
        *) compgen -G "$site/$glob" || say "nothing to $verb: $glob" ;;
        esac | while read -r path; do
            if [ "$verb" = delete ]; then rm -rf "$path"; else strip_library "$path"; fi
        done
    done <"$1"
}

# install_service INSTALLER...: what the service on :9000 imports, since under Slurm it runs from this environment, too.
# What vLLM brought stays (it limits FastAPI's version); it does not bring orjson.
install_service() {
    "$@" --requirement "$requirements.in" "$(grep -o '^orjson==[^ ]*' "$requirements.txt")"
}

# install_streamer INSTALLER...: what vLLM reads weights from an object store with, and boto3, with which the launcher
# brings a packed model from there. 52 MB; changes no package that vLLM brought.
install_streamer() {
    "$@" 'runai-model-streamer[s3]'
}

# finish DEVICE VERSION: make `engine` importable, write the catalog, note what was installed. While the first layer of an
# image is built only this folder is there, and the Dockerfile runs finish.py later.
finish() {
    if [ -f "$install/../write_catalog.py" ]; then
        "$venv/bin/python" -P "$install/finish.py" "$1"
    fi
    mkdir -p "$venv/share/berth"
    stamp "$1" "$2" >"$venv/share/berth/installed"
}
