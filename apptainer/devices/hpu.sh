# shellcheck shell=bash
# HPU: Gaudi needs no library of the host, only its device nodes, and a place for its logs.
# shellcheck disable=SC2034,SC2154 # node.sh reads device_args, and sets apptainer
# Needs messages.sh and `setting` of container.sh. Runs on every node, in the job step.

# Whether the container sees the cards; where it does not, device_contained is called.
device_probe=(test -e /dev/accel)

device_prepare() { # RANKS: how many cards this node must show
    local cards=${HABANA_VISIBLE_DEVICES:-${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS:-all}}}
    local -a listed=()
    local -i visible
    device_args=()
    IFS=, read -ra listed <<<"$cards"
    visible=${#listed[@]}
    if [[ $cards == all ]]; then visible=$(compgen -G "${HPU_DEV:-/dev}/accel/accel[0-9]*" | wc -l); fi
    ((visible >= $1)) || fail 3 "$(hostname -s) shows $visible Gaudi cards, and VLLM_TP_SIZE needs $1 \
(ask Slurm for them: SITE_GRES in the site file, such as --gres=gpu:{n})"
    # Slurm's own variable is not looked at by --intel-hpu: it must come as the container's.
    setting HABANA_VISIBLE_DEVICES "$cards"
    [[ -z ${HABANA_VISIBLE_MODULES:-} ]] || setting HABANA_VISIBLE_MODULES "$HABANA_VISIBLE_MODULES"
    setting HABANA_LOGS /tmp/habana_logs
}

# A container with a small /dev of its own must be told of the cards. With the whole
# /dev there is nothing to do, and binding them again would make them unusable (nodev).
device_contained() {
    if "$apptainer" exec --help 2>/dev/null | grep -q -- --intel-hpu; then
        device_args+=(--intel-hpu)
        return
    fi
    local folder
    for folder in /dev/accel /dev/infiniband; do
        [[ ! -e $folder ]] || device_args+=(--bind "$folder")
    done
}

# What Ray is told of this node's cards; vLLM asks it for the resource HPU.
device_ray() { # RANKS
    ray_args=(--resources "{\"HPU\": $1}")
}
