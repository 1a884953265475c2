# shellcheck shell=bash
# CUDA: the host's driver comes with --nv; which GPUs are this job's is Slurm's word, CUDA_VISIBLE_DEVICES.
# shellcheck disable=SC2034 # node.sh reads device_args, ray.sh ray_args
# Needs messages.sh and `setting` of container.sh. Runs on every node, in the job step.

device_prepare() { # RANKS: how many GPUs this node must show
    local -a given=()
    local -i visible
    device_args=(--nv)
    IFS=, read -ra given <<<"${CUDA_VISIBLE_DEVICES:-}"
    visible=${#given[@]}
    ((visible)) || visible=$(cuda_listed | wc -l)
    # Only the settings' own count can be too small: more GPUs than ranks is dear, and works.
    ((visible >= $1)) || fail 3 "$(hostname -s) shows $visible GPUs, and VLLM_TP_SIZE x VLLM_PP_SIZE needs $1 on each node \
(ask Slurm for them: SITE_GRES in the site file, or --gpus-per-node=$1)"
    ((visible == $1 || $1 == 0)) || say "$(hostname -s) shows $visible GPUs; $1 of them are used"
    ((${#given[@]} == 0)) || setting CUDA_VISIBLE_DEVICES "$(cuda_indices)"
    setting CUDA_DEVICE_ORDER "${CUDA_DEVICE_ORDER:-PCI_BUS_ID}"
}

# The ids that the driver lets this job see, one a line: GPU-… of whole GPUs, MIG-… of parts. The driver's tool goes by
# what control groups allow, not by CUDA_VISIBLE_DEVICES.
cuda_listed() {
    local listed
    listed=$(nvidia-smi -L 2>/dev/null)
    if [[ $listed == *'(UUID: MIG-'* ]]; then
        grep -oE 'UUID: MIG-[^)]+' <<<"$listed"
    else
        grep -oE 'UUID: GPU-[^)]+' <<<"$listed"
    fi | cut -d' ' -f2
}

# vLLM wants numbers (vllm#41848). Ids may be numbered anew only where control groups hide the other GPUs: then what the
# driver lists is what the job has.
cuda_indices() {
    local id numbers='' position
    local -a listed
    if [[ $CUDA_VISIBLE_DEVICES =~ ^[0-9]+(,[0-9]+)*$ ]]; then
        printf '%s\n' "$CUDA_VISIBLE_DEVICES"
        return
    fi
    mapfile -t listed < <(cuda_listed)
    for id in "${given[@]}"; do
        for position in ${listed[@]+"${!listed[@]}"}; do
            # A prefix of a UUID is allowed wherever a UUID is.
            [[ ${listed[position]} == "$id"* ]] && numbers+=${numbers:+,}$position && continue 2
        done
        numbers=unknown && break
    done
    if [[ $numbers == unknown || ($CUDA_VISIBLE_DEVICES == *MIG-* && ${#listed[@]} -ne ${#given[@]}) ]]; then
        say "GPUs are passed on by the ids that Slurm gave, since others can be seen too: $CUDA_VISIBLE_DEVICES"
        numbers=$CUDA_VISIBLE_DEVICES
    fi
    printf '%s\n' "$numbers"
}

# What Ray is told of this node's GPUs.
device_ray() { # RANKS
    ray_args=(--num-gpus "$1")
}
