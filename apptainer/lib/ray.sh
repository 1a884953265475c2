# shellcheck shell=bash
# BERTH_EXECUTOR=ray: a Ray cluster of this job alone, over its nodes; vLLM is started on the head and finds it.
# shellcheck disable=SC2034,SC2154 # the job's variables: see serve.sbatch and node.sh
#
#   ray_start_node     start this node's Ray; sets ray_pid. On the head it waits until all nodes have joined.
#   ray_head_environ   settings of the engine, which is started on the head alone
#   ray_follow         on the other nodes: returns when the head's Ray has ended, or with a failure when this node's has
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
    ((rank == 0)) || _ray_await_head || return 1
    if ((rank == 0)); then how=(--head --port $((port_base + 3)) --include-dashboard false); fi
    how+=(--node-ip-address "$address" --temp-dir /tmp/ray --block --disable-usage-stats
        --node-manager-port $((port_base + 4)) --object-manager-port $((port_base + 5))
        --dashboard-agent-listen-port $((port_base + 6)) --runtime-env-agent-port $((port_base + 7)))
    # As many devices as vLLM has ranks here.
    if declare -F device_ray >/dev/null; then device_ray "$ranks" && how+=("${ray_args[@]}"); fi
    ray_token || return 1
    setting RAY_ADDRESS "$head_address:$((port_base + 3))"
    # vLLM has drained by then; and nodes whose head has gone would wait for it for 30 s.
    setting RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S 0
    "${container[@]}" ${device_args[@]+"${device_args[@]}"} "$image" ray start "${how[@]}" &
    ray_pid=$!
    ((rank > 0)) || { _ray_await_head && "${container[@]}" "$image" python -P -m engine.ray_nodes \
        "$head_address:$((port_base + 3))" "$SLURM_JOB_NUM_NODES"; }
}

# Whoever reaches a Ray cluster's ports runs programs on it, unless it asks for a token. One for each start of the job.
ray_token() {
    local -i tries=0
    local file=$run_dir/ray_token-$((${SLURM_RESTART_COUNT:-0}))
    if ((rank == 0)); then
        head -c 32 /dev/urandom | base64 -w 0 | tr '+/' '-_' | tr -d '=' >"$file.new" && mv -f "$file.new" "$file"
    fi
    until [[ -s $file ]]; do
        ((++tries < 300)) || fail 73 "$(hostname -s) does not see $file, which the head wrote"
        sleep 0.2
    done
    cp "$file" "$private/tmp/ray_token"
    setting RAY_AUTH_MODE token
    setting RAY_AUTH_TOKEN_PATH /tmp/ray_token
}

# vLLM's own way over several nodes and Ray exclude each other.
ray_head_environ() {
    local name
    for name in VLLM_NNODES VLLM_NODE_RANK VLLM_MASTER_ADDR VLLM_MASTER_PORT; do unset "$setting_prefix$name"; done
    setting VLLM_DISTRIBUTED_EXECUTOR_BACKEND ray
}

# Ray itself would notice only after minutes.
ray_follow() {
    local -i missed=0
    trap 'kill -TERM "$ray_pid" 2>/dev/null' TERM
    while kill -0 "$ray_pid" 2>/dev/null && ((missed < 2)); do
        sleep 2 &
        wait $!
        if _ray_head_listens; then missed=0; else missed+=1; fi
    done
    if ((missed >= 2)); then
        say "the head of this deployment has ended, and so does this node"
        ray_stop_node
        return 0
    fi
    wait "$ray_pid"
    fail 1 "Ray has ended on $(hostname -s)"
}

_ray_await_head() {
    local -i tries=0
    until _ray_head_listens; do
        ((++tries < 300)) || fail 65 "Ray on the head does not answer $(hostname -s) at $head_address:$((port_base + 3))"
        sleep 1
    done
}

_ray_head_listens() {
    # shellcheck disable=SC2016 # the inner shell's
    timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$head_address" $((port_base + 3)) 2>/dev/null
}

ray_stop_node() {
    kill -TERM "$ray_pid" 2>/dev/null
    wait "$ray_pid"
    rm -f "$run_dir"/ray_token-*
}
