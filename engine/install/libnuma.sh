# libnuma, which vLLM's CPU kernels need and a bare Debian lacks; sourced by cpu.sh, defines functions only.
# shellcheck shell=bash

# provide_libnuma: make libnuma.so.1 loadable in $venv, from the distribution's package and without being root.
provide_libnuma() {
    local site
    "$venv/bin/python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null && return
    say "libnuma is missing on this machine: fetching it for this environment alone"
    fetch_libnuma ||
        fail 3 "libnuma.so.1 is missing, which vLLM's CPU kernels need" "as root: apt-get install libnuma1 (Fedora, RHEL: dnf install numactl-libs)"
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # A library that is loaded already is found by its name; this line runs in every process of the environment.
    echo "import ctypes; ctypes.CDLL('$venv/lib/libnuma.so.1', mode=ctypes.RTLD_GLOBAL)" >"$site/berth_libnuma.pth"
}

# The package of this machine's own release, through an apt with folders of its own: its lists may be absent or another's.
fetch_libnuma() (
    command -v apt-get dpkg-deb >/dev/null || exit 1
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial" "$scratch/unpacked"
    options=(-qq -o "Dir::State::lists=$scratch/lists" -o "Dir::Cache=$scratch/cache" -o APT::Sandbox::User=root -o Acquire::Retries=3)
    cd "$scratch"
    apt-get "${options[@]}" update && apt-get "${options[@]}" download libnuma1 || exit 1
    dpkg-deb -x libnuma1_*.deb unpacked
    find unpacked -name 'libnuma.so.1.*' -type f -exec cp {} "$venv/lib/libnuma.so.1" \; -quit
    [ -s "$venv/lib/libnuma.so.1" ]
)
