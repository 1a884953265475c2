# shellcheck shell=bash
# The door: the service in front of the engine, the only listener that others can reach; every route asks for the key.
# Beside it the watch, which writes the engine's phase and load into watch.json. Both run in the image, on the head node.
# shellcheck disable=SC2034,SC2154 # settings, private, sif and the rest: see serve.sbatch
#
#   key_make          the deployment's key, made once
#   door_start        start the door; sets door_pid
#   door_ready        whether the door says that it can answer
#   door_keep         start a door that has ended anew, twice at most; a taken port moves it on to another block
#   watch_start       start the watch; sets watch_pid

door_pid='' watch_pid=''
declare -i door_starts=0

key_make() {
    local fresh=$key_file.$SLURM_JOB_ID
    if [[ -n ${settings[VLLM_API_KEY]:-} ]]; then
        printf '%s\n' "${settings[VLLM_API_KEY]}" >"$fresh" && mv -f "$fresh" "$key_file"
    elif [[ ! -s $key_file ]]; then
        head -c 32 /dev/urandom | base64 -w 0 | tr '+/' '-_' | tr -d '=' >"$fresh"
        # Replicas that start together agree on the first one's.
        ln "$fresh" "$key_file" 2>/dev/null
        rm -f "$fresh"
    fi
    [[ -s $key_file ]] || fail 73 "$key_file cannot be written"
    chmod 0600 "$key_file"
}

# The door reads a copy on this node, renewed when the deployment's changes: a file that is replaced cannot be bound.
door_key() {
    local copy=$private/tmp/door_key
    [[ -e $copy && ! $key_file -nt $copy ]] || { cp "$key_file" "$copy.new" && mv -f "$copy.new" "$copy"; }
}

door_start() {
    door_key
    door_starts+=1
    _door_run >>"$run_dir/door.log" 2>&1 </dev/null &
    door_pid=$!
}

# In a function, so that bash has a short name for it when it is killed.
_door_run() {
    local name
    for name in "${!settings[@]}"; do
        case $name in
        LLM_VLLM_MODEL_NAME) ;;
        LLM_VLLM_* | LLM_DEVICE | LLM_MODEL_SERVER_ENDPOINT | LLM_ENDPOINT) continue ;;
        LLM_USVC_* | LLM_API_KEYS_FILE | LLM_PHASE_FILE) continue ;;
        LLM_*) ;;
        *) continue ;;
        esac
        setting "$name" "${settings[$name]}"
    done
    # Everybody on the network reaches this port: nothing answers here without the key, unless a file asks for the page.
    [[ -n ${settings[LLM_PAGE]:-} ]] || setting LLM_PAGE false
    setting PYTHONNOUSERSITE 1
    setting LLM_USVC_HOST "$door_host"
    setting LLM_USVC_PORT "$door_port"
    setting LLM_VLLM_ENDPOINT unix:///tmp/s/engine.sock
    setting LLM_PHASE_FILE /tmp/s/phase.json
    setting LLM_API_KEYS_FILE /tmp/door_key
    exec "${container[@]}" "$image" python -P -m llm_service
}

# Over bash's own sockets: no program whose arguments would show the key, none that a node may lack.
door_ready() {
    local status='' socket
    { exec {socket}<>"/dev/tcp/$door_host/$door_port"; } 2>/dev/null || return 1
    printf 'GET /ready HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n' \
        "$door_host" "$(<"$key_file")" 1>&"$socket"
    IFS= read -r -t 5 status <&"$socket"
    exec {socket}>&-
    [[ $status == HTTP/1.1\ 200* ]]
}

door_keep() { # returns 1 when it has ended too often
    local code
    wait "$door_pid"
    code=$?
    ((door_starts < 3)) || return 1
    say "the door ended with code $code and is started anew"
    if tail -n 3 "$run_dir/door.log" | grep -qi 'in use'; then
        door_port=$(port_block "$SLURM_JOB_ID" "$door_starts") || return 1
    fi
    door_start
}

watch_start() {
    _watch_run >>"$run_dir/door.log" 2>&1 </dev/null &
    watch_pid=$!
}

_watch_run() {
    setting PYTHONNOUSERSITE 1
    exec "${container[@]}" --bind "$run_dir" "$image" python -P -m engine.watch --log "$run_dir/engine-0.log" \
        --socket /tmp/s/engine.sock --out "$run_dir/watch.json"
}
