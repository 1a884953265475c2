# shellcheck shell=bash
# How a program runs in the image: an own home and /tmp, nothing of the caller's, settings through the environment only.
#
#   image_check            the SIF is there, for this device and processor
#   container_prepare      sets `container`, the words that begin every command in the image; needs `private`
#   container_probe        try the image; unpacks it where it cannot be mounted; sets `image`, what to run
#   setting NAME VALUE     a variable inside the container; call it in the subshell that starts the program
#   private_make DIR       the folders of a node's private directory; private_remove DIR
#
# Values never stand in an argument list, and --no-eval keeps them literal.
# shellcheck disable=SC2154 # apptainer, setting_prefix, sif, device, site and the directories: see serve.sbatch

setting() { export "$setting_prefix$1=$2"; }

image_check() {
    local labels arch
    [[ -f $sif ]] || fail 66 "there is no image $sif (make it: berth sif $device)"
    [[ -r $sif ]] || fail 66 "$sif cannot be read"
    labels=$("$apptainer" inspect --labels "$sif" 2>&1) ||
        fail 66 "$sif is no image that ${apptainer##*/} can read (make it anew: berth sif $device --force)"
    _label_must_be berth.device "$device" "it is an image for another device (make one: berth sif $device)"
    arch=$(uname -m)
    case $arch in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac
    _label_must_be org.label-schema.build-arch "$arch" "it was made for another processor than $(hostname -s) has"
}

_label_must_be() { # LABEL VALUE WHY
    local found
    found=$(sed -n "s/^${1//./\\.}: *//p" <<<"$labels" | tail -n 1)
    [[ -z $found || $found == "$2" ]] || fail 66 "$sif says $1=$found, not $2: $3"
}

private_make() { # DIR
    mkdir -p "$1"/{home,tmp,vartmp,cache} "$1/tmp/s"
    chmod 0700 "$1"
    # Apptainer's own files would go to the caller's home.
    export APPTAINER_CACHEDIR=$1/cache APPTAINER_CONFIGDIR=$1/cache SINGULARITY_CACHEDIR=$1/cache
}

private_remove() { [[ ${1##*/} != berth-* ]] || rm -rf "$1"; }

# /dev/shm is the node's: Apptainer binds nothing else to it, and its own with --contain would be too small.
container_prepare() {
    local bind
    local -a binds=("$private/tmp:/tmp" "$private/vartmp:/var/tmp")
    container=("$apptainer" --quiet exec --no-eval --cleanenv --no-mount cwd --home "$private/home:/home/berth"
        --pwd /home/berth)
    mapfile -t -O "${#binds[@]}" binds <<<"$container_binds"
    for bind in "${binds[@]}"; do
        [[ -z $bind ]] || container+=(--bind "$bind")
    done
}

# The binds that are the same on every node, one a line.
container_shared_binds() {
    local path options=''
    [[ -w $models_dir ]] || options=:ro
    for path in "$models_dir" "$cache_dir" "$run_dir"; do _bindable "$path"; done
    printf '%s\n' "$models_dir:/cache/huggingface$options" "$cache_dir:/cache/vllm"
    while read -r path; do
        _bindable "$path"
        case $path in
        # A model in one file: mounted, it is a folder of the file's name, and the setting holds inside, too.
        *.squashfs | *.sqfs) printf '%s\n' "$path:$path:image-src=/" ;;
        *) printf '%s\n' "$path:$path:ro" ;;
        esac
    done < <(model_paths)
    tr ',' '\n' <<<"${site[SITE_BIND]:-}"
}

_bindable() { [[ $1 != *[:,]* ]] || fail 64 "$1: Apptainer cannot bind a path with a colon or a comma in it"; }

container_probe() {
    local said
    image=$sif
    said=$("${container[@]}" "$image" true 2>&1) && return
    if [[ $said == *[Ff][Uu][Ss][Ee]* ]]; then
        say "the image cannot be mounted on $(hostname -s), so it is unpacked: that takes minutes, and space in /tmp"
        image=$private/image
        APPTAINER_TMPDIR=$private/vartmp "$apptainer" --silent build --sandbox "$image" "$sif" 2>/dev/null &
        wait_beating $!
        "${container[@]}" "$image" true 2>/dev/null && return
    fi
    fail 66 "${apptainer##*/} cannot run $sif on $(hostname -s): $(_container_reason "$said")"
}

# Wait for a process, and go on writing the record where there is one to write.
wait_beating() { # PID
    while kill -0 "$1" 2>/dev/null; do
        sleep 1
        if ((SECONDS % 5 == 0)) && declare -F record >/dev/null; then record; fi
    done
}

_container_reason() { # WHAT IT SAID
    case $1 in
    *'user namespace'* | *'unprivileged'* | *newuidmap*)
        printf 'user namespaces are off there (ask for user.max_user_namespaces, or for the setuid installation)' ;;
    *[Ff][Uu][Ss][Ee]*)
        printf 'FUSE is off there, and unpacking failed too (ask for /dev/fuse, or for space in /tmp)' ;;
    *) printf '%s' "$(grep -E 'FATAL|ERROR' <<<"$1" | tail -n 1 | sed -E 's/^(FATAL|ERROR): *//')" ;;
    esac
}
