#!/usr/bin/env bash
# What each node of the job runs, as a task of the job's step: the engine in its container. Started by serve.sbatch.
#
# Rank 0 serves on a Unix socket in its private directory, the others run headless. Leaves rank-<rank>.exit behind, a
# line "TIME NODE RANK CODE", by which the batch shell tells who ended first.
# shellcheck disable=SC2154,SC2329 # the job's variables are exported by serve.sbatch
set -uo pipefail
umask 077

rank=$SLURM_NODEID
node=${SLURMD_NODENAME:-$(hostname -s)}
exec >>"$run_dir/engine-$rank.log" 2>&1 </dev/null

# shellcheck source-path=SCRIPTDIR
for part in messages models container addresses; do
    # shellcheck disable=SC1090
    source "$job_dir/lib/$part.sh" || exit 70
done
# shellcheck source=/dev/null
source "$job_dir/devices/$device.sh" || exit 70

finish() { # CODE
    printf '%s %s %s %s\n' "$(date +%s.%N)" "$node" "$rank" "$1" >"$run_dir/.rank-$rank.new"
    mv -f "$run_dir/.rank-$rank.new" "$run_dir/rank-$rank.exit"
    # The head's directory also holds the door's key and socket: the batch shell removes that one.
    if ((rank > 0)); then private_remove "$private" && rm -f "$run_dir/private-$rank"; fi
}

make_private() {
    if ((rank > 0)); then
        private=$(mktemp -d "/tmp/berth-$UID-$SLURM_JOB_ID.XXXXXX") || fail 3 "nothing can be written to /tmp on $node"
        # For `berth gc`: gone when this ends as it should.
        printf '%s %s\n' "$node" "$private" >"$run_dir/private-$rank"
    fi
    private_make "$private"
}

# What is this node's alone, or the job's; it beats what the env files say.
node_settings() {
    local name
    setting PYTHONNOUSERSITE 1
    setting HF_HOME /cache/huggingface
    setting VLLM_CACHE_ROOT /cache/vllm
    [[ ! -s $deployment/hf_token ]] || setting HF_TOKEN "$(<"$deployment/hf_token")"
    # What the site's modules and the user set for the fabric, and the way out to the hub.
    for name in "${!NCCL_@}" "${!GLOO_@}" "${!FI_@}" "${!UCX_@}" {http,https,no}_proxy {HTTP,HTTPS,NO}_PROXY; do
        of_job "$name" "${!name:-}"
    done
    setting VLLM_PORT $((port_base + 2))
    if ((SLURM_JOB_NUM_NODES > 1)); then several_nodes; else one_node; fi
    if ((rank > 0)); then setting VLLM_HEADLESS true; else head_settings; fi
}

# The door, which stands beside the head, finds both in the head's own folder.
head_settings() {
    setting VLLM_UDS /tmp/s/engine.sock
    setting LLM_PHASE_FILE /tmp/s/phase.json
}

# A variable of the job, unless the env files say something else.
of_job() { # NAME VALUE
    local inside=$setting_prefix$1
    [[ -n ${!inside:-} || -z $2 ]] || setting "$1" "$2"
}

# Nothing but the door listens on an address that others reach.
one_node() {
    setting VLLM_HOST_IP 127.0.0.1
    of_job GLOO_SOCKET_IFNAME lo
}

several_nodes() {
    local address
    address=$(node_interfaces | sed -n "s/^$node_interface //p" | head -n 1)
    setting VLLM_HOST_IP "$address"
    of_job GLOO_SOCKET_IFNAME "$node_interface"
    of_job NCCL_SOCKET_IFNAME "$node_interface"
    setting VLLM_NNODES "$SLURM_JOB_NUM_NODES"
    setting VLLM_NODE_RANK "$rank"
    setting VLLM_MASTER_ADDR "$head_address"
    setting VLLM_MASTER_PORT $((port_base + 1))
    setting VLLM_DISTRIBUTED_EXECUTOR_BACKEND mp
}

# Apptainer hands signals on to the program in the container. A signal to the whole step would also reach the process
# that mounts the image.
wait_for() { # PID
    local -i code
    trap 'kill -TERM "$1" 2>/dev/null' TERM
    wait "$1"
    code=$?
    while kill -0 "$1" 2>/dev/null; do
        wait "$1"
        code=$?
    done
    return "$code"
}

trap 'finish $?' EXIT
make_private
container_prepare
device_prepare "$ranks"
((rank == 0)) || container_probe
if declare -F device_contained >/dev/null && ! "${container[@]}" "$image" "${device_probe[@]}" 2>/dev/null; then
    device_contained
fi
node_settings
command=(python -P -m engine.serve)
if [[ $executor == ray ]]; then
    # shellcheck source=/dev/null
    source "$job_dir/lib/ray.sh" || exit 70
    ray_start_node || exit $?
    # vLLM is started on the head alone, and finds the others through Ray.
    if ((rank > 0)); then ray_follow && exit; exit $?; fi
    ray_head_environ
fi
"${container[@]}" ${device_args[@]+"${device_args[@]}"} "$image" "${command[@]}" &
server=$!
((rank > 0)) || printf '%s\n' "$server" >"$private/server.pid"
wait_for "$server"
code=$?
[[ $executor != ray ]] || ray_stop_node
exit "$code"
