# shellcheck shell=bash
# BERTH_EXECUTOR=ray: a Ray cluster of this job alone, over its nodes; vLLM is started on the head and finds it.
# shellcheck disable=SC2034,SC2154 # the job's variables: see serve.sbatch and node.sh
#
#   ray_start_node     start this node's Ray; sets ray_pid. On the head it waits until all nodes have joined.
#   ray_head_environ   settings of the engine, which is started on the head alone
#   ray_stop_node      end this node's Ray
#
# Ray's files and sockets are in /tmp/ray, which is the job's private directory: two jobs on a node do not meet. For the
# same reason nothing here calls `ray stop`: it ends every Ray of the user on the node.

ray_start_node() {
    local address
    local -a how=(--address "$head_address:$((port_base + 3))")
    "${container[@]}" "$image" python -c 'import ray' 2>/dev/null ||
        fail 66 "BERTH_EXECUTOR=ray, and there is no Ray in $sif (make it from apptainer/ray.Dockerfile)"
    address=$(node_interfaces | sed -n "s/^$node_interface //p" | head -n 1)
    if ((rank == 0)); then how=(--head --port $((port_base + 3)) --include-dashboard false); fi
    how+=(--node-ip-address "$address" --temp-dir /tmp/ray --block --disable-usage-stats
        --node-manager-port $((port_base + 4)) --object-manager-port $((port_base + 5))
        --dashboard-agent-listen-port $((port_base + 6)) --runtime-env-agent-port $((port_base + 7)))
    # As many as vLLM has ranks here; Ray counts GPUs itself, but not Gaudis that it was not told of.
    case $device in
    cuda) how+=(--num-gpus "$ranks") ;;
    hpu) how+=(--resources "{\"HPU\": $ranks}") ;;
    esac
    setting RAY_ADDRESS "$head_address:$((port_base + 3))"
    "${container[@]}" ${device_args[@]+"${device_args[@]}"} "$image" ray start "${how[@]}" &
    ray_pid=$!
    ((rank > 0)) || "${container[@]}" "$image" python -P -m engine.ray_nodes \
        "$head_address:$((port_base + 3))" "$SLURM_JOB_NUM_NODES"
}

# vLLM's own way over several nodes and Ray exclude each other.
ray_head_environ() {
    local name
    for name in VLLM_NNODES VLLM_NODE_RANK VLLM_MASTER_ADDR VLLM_MASTER_PORT; do unset "$setting_prefix$name"; done
    setting VLLM_DISTRIBUTED_EXECUTOR_BACKEND ray
}

ray_stop_node() {
    kill -TERM "$ray_pid" 2>/dev/null
    wait "$ray_pid"
}
