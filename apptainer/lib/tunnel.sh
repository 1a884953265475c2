# shellcheck shell=bash
# SITE_TRANSPORT=job: a reverse tunnel from the job to the login node, for sites whose login nodes cannot reach node
# ports. It listens there on the loopback interface, at a port that is free there; login_port in endpoint.json.
# shellcheck disable=SC2154 # site, run_dir and the door's address: see serve.sbatch
#
#   tunnel_keep    call every second: starts the tunnel, starts it anew when it died, learns its port and records it
#   tunnel_stop

tunnel_pid='' tunnel_to=''
declare -i tunnel_next=0

tunnel_keep() {
    [[ ${site[SITE_TRANSPORT]:-} == job ]] || return 0
    if running "$tunnel_pid" && [[ $tunnel_to == "$door_host:$door_port" ]]; then
        [[ -z $login_port ]] || return 0
        login_port=$(sed -nE 's/^Allocated port ([0-9]+) for remote forward.*/\1/p' "$run_dir/tunnel.log" | tail -n 1)
        [[ -z $login_port ]] || record
    elif ((SECONDS >= tunnel_next)); then
        tunnel_next=$SECONDS+5
        tunnel_stop
        tunnel_to=$door_host:$door_port
        # A connection of its own: over a shared one the forwarding would belong to another process.
        ssh -N -T -o BatchMode=yes -o ControlMaster=no -o ControlPath=none -o ExitOnForwardFailure=yes \
            -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3 -o LogLevel=INFO \
            -o StrictHostKeyChecking=accept-new -R "127.0.0.1:0:$tunnel_to" \
            "${site[SITE_TUNNEL_HOST]:-${site[SITE_LOGIN]:-}}" >"$run_dir/tunnel.log" 2>&1 </dev/null &
        tunnel_pid=$!
    fi
}

tunnel_stop() {
    # shellcheck disable=SC2034 # record.sh writes it
    login_port=''
    [[ -z $tunnel_pid ]] || kill "$tunnel_pid" 2>/dev/null
    tunnel_pid=''
}
