# shellcheck shell=bash
# Ports on shared nodes: a block of 8 for each job, below the ports that kernels hand out (32768 and up).
#
#   port_block JOBID [SKIP]   print the first port of a block whose ports are all free on this node; begins at the
#                             job's own block, SKIP blocks further
#
# In a block: +0 the door, +1 torch's rendezvous, +2 vLLM's internal ports, +3 and on Ray's.

readonly PORT_FIRST=20000 PORT_LAST=31999 PORT_BLOCK=8

port_block() { # JOBID [SKIP]
    local -i blocks=$(((PORT_LAST + 1 - PORT_FIRST) / PORT_BLOCK)) tried start port
    local -A taken=()
    _ports_taken
    for ((tried = 0; tried < blocks; tried++)); do
        start=$((PORT_FIRST + ($1 + ${2:-0} + tried) % blocks * PORT_BLOCK))
        for ((port = start; port < start + PORT_BLOCK; port++)); do
            [[ -z ${taken[$port]:-} ]] || continue 2
        done
        printf '%s\n' "$start"
        return
    done
    return 1
}

# Every local TCP port that the kernel knows, whoever holds it: /proc/net is the same for every user.
_ports_taken() {
    local address rest port
    while read -r _ address rest; do
        port=$((16#${address##*:}))
        taken[$port]=1
    done < <(cat "${PORTS_PROC:-/proc/net}"/tcp "${PORTS_PROC:-/proc/net}"/tcp6 2>/dev/null | grep '^ *[0-9]')
}
