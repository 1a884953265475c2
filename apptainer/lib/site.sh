# shellcheck shell=bash
# The site file, and the places of the store: all that is particular about one cluster.
# shellcheck disable=SC2154 # settings, device and checkout: see serve.sbatch
#
#   read_site FILE       fills `site`, an associative array of SITE_ names; FILE may be empty
#   site_places          sets store, models_dir, cache_dir from it
#   site_programs        `module load`, then sets apptainer and setting_prefix
#
# Needs messages.sh and envfile.sh; `settings` is what the env files say.

_site_names=' SITE_LOGIN SITE_SCRATCH SITE_ACCOUNT SITE_PARTITION SITE_QOS SITE_CONSTRAINT SITE_GRES SITE_CPUS_PER_TASK
 SITE_MEM SITE_TIME SITE_SBATCH SITE_MODULE SITE_APPTAINER SITE_INTERFACE SITE_BIND SITE_TRANSPORT SITE_TUNNEL_HOST
 SITE_MODELS '

declare -gA site=()

read_site() { # FILE
    local name
    [[ -n $1 ]] || return 0
    read_env_file "$1" site
    for name in "${!site[@]}"; do
        [[ $_site_names == *[[:space:]]"$name"[[:space:]]* ]] ||
            fail 64 "$1: $name: no such name in a site file (they are in apptainer/site.env.example)"
    done
    case ${site[SITE_TRANSPORT]:-direct} in
    direct | jump) ;;
    job) [[ -n ${site[SITE_TUNNEL_HOST]:-${site[SITE_LOGIN]:-}} ]] ||
        fail 64 "$1: SITE_TRANSPORT=job needs SITE_TUNNEL_HOST, the host that the job's tunnel goes to" ;;
    *) fail 64 "$1: SITE_TRANSPORT=${site[SITE_TRANSPORT]}: no such way to a node (direct, jump or job)" ;;
    esac
}

site_places() { # uses device and checkout
    local root=${site[SITE_SCRATCH]:-${SCRATCH:-}}
    store=${root:+${root%/}/berth}
    store=${store:-$checkout/.berth/slurm}
    models_dir=${site[SITE_MODELS]:-}
    # In an env file BERTH_CACHE is a Docker volume or a path; as a path it means the same here.
    if [[ -z $models_dir && ${settings[BERTH_CACHE]:-} == /* ]]; then models_dir=${settings[BERTH_CACHE]}; fi
    models_dir=${models_dir:-$store/models}
    # shellcheck disable=SC2034 # container.sh binds it
    cache_dir=$store/cache/$device
}

site_programs() {
    if [[ -n ${site[SITE_MODULE]:-} ]]; then _site_module "${site[SITE_MODULE]}"; fi
    apptainer=${site[SITE_APPTAINER]:-}
    [[ -n $apptainer ]] || apptainer=$(command -v apptainer || command -v singularity) || apptainer=apptainer
    command -v "$apptainer" >/dev/null ||
        fail 66 "there is no $apptainer on $(hostname -s) (set SITE_APPTAINER or SITE_MODULE in the site file)"
    # Settings reach the container as <prefix>NAME=value; SingularityCE knows the older prefix alone.
    setting_prefix=APPTAINERENV_
    # shellcheck disable=SC2034 # container.sh uses it
    [[ $("$apptainer" --version 2>/dev/null) == apptainer* ]] || setting_prefix=SINGULARITYENV_
}

_site_module() { # NAME…, blank separated
    local file
    local -a names
    for file in /etc/profile.d/{modules,lmod,z00_lmod,00-modulepath}.sh; do
        declare -F module >/dev/null && break
        # shellcheck disable=SC1090 # the site's own
        [[ -r $file ]] && { set +u && source "$file" && set -u; }
    done
    declare -F module >/dev/null ||
        fail 66 "SITE_MODULE=$1, but there is no module command on $(hostname -s) (delete the line from the site file)"
    read -ra names <<<"$1"
    set +u
    module load "${names[@]}" || fail 66 "module load $1 fails on $(hostname -s) (correct SITE_MODULE in the site file)"
    set -u
}
