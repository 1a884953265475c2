# shellcheck shell=bash
# Which address of a node the others use, and which one the door listens on. Never 127.*.
#
#   node_interfaces              print "INTERFACE ADDRESS" of this node, the likeliest fabric first
#   common_interface NODES       from lines "RANK INTERFACE ADDRESS" on stdin, print the first interface of rank 0 that
#                                all NODES ranks have
#   named_address                print the address that this node's name stands for, if it is one of the node's own
#   reaches ADDRESS PORT         whether that host answers: a refused connection is an answer too
#
#   find_addresses               in the batch shell: sets node_interface, head_address, door_host, or ends the job (65)
#   check_reach                  in the batch shell: every node can connect to the head, or the job ends (65)
# shellcheck disable=SC2034,SC2154 # job_nodes, site, door_host and the rest: see serve.sbatch

# Bridges of container engines and virtual machines join nothing but this node.
_address_local='^(lo|docker|br-|virbr|veth|cni|podman|lxc|flannel|cali|tun|tap)'

node_interfaces() {
    local interface cidr
    PATH=$PATH:/usr/sbin:/sbin ip -4 -o addr show up scope global 2>/dev/null |
        while read -r _ interface _ cidr _; do
            [[ $interface =~ $_address_local || $cidr == 127.* ]] && continue
            # InfiniBand, Slingshot, bonds: what sites build for traffic between nodes.
            if [[ $interface =~ ^(ib|hsn|bond) ]]; then printf '0 '; else printf '1 '; fi
            printf '%s %s\n' "${interface%%@*}" "${cidr%%/*}"
        done | sort -s -k1,1 | cut -d' ' -f2-
}

common_interface() { # NODES
    local rank interface address
    local -A ranks=()
    local -a of_head=()
    while read -r rank interface address; do
        [[ -n $address ]] || continue
        [[ ${ranks[$interface]:-} == *" $rank "* ]] || ranks[$interface]+=" $rank "
        ((rank > 0)) || of_head+=("$interface")
    done
    for interface in ${of_head[@]+"${of_head[@]}"}; do
        # shellcheck disable=SC2086 # a list of numbers
        set -- "$1" ${ranks[$interface]}
        if (($# - 1 == $1)); then
            printf '%s\n' "$interface"
            return 0
        fi
    done
    return 1
}

named_address() {
    local address own
    own=" $(node_interfaces | cut -d' ' -f2 | tr '\n' ' ')"
    while read -r address _; do
        [[ $own != *" $address "* ]] || { printf '%s\n' "$address" && return; }
    done < <(getent ahostsv4 "$(hostname)")
    return 1
}

reaches() { # ADDRESS PORT
    local said
    # shellcheck disable=SC2016 # the inner shell's
    said=$(timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1) && return
    [[ $said == *refused* ]]
}

# Run a line of bash on every node; `$0` in it is the job's directory, and what follows are its arguments.
on_every_node() { # LINE [ARGUMENT…]
    local line=$1
    shift
    srun --overlap --export=ALL --nodes="${#job_nodes[@]}" --ntasks="${#job_nodes[@]}" --ntasks-per-node=1 \
        --cpu-bind=none bash -c "source \"\$0/lib/addresses.sh\"; $line" "$job_dir" "$@"
}

find_addresses() {
    local said
    if ((${#job_nodes[@]} == 1)); then
        node_interface=${site[SITE_INTERFACE]:-$(node_interfaces | head -n 1 | cut -d' ' -f1)}
    else
        # shellcheck disable=SC2016 # the nodes' shells expand it
        said=$(on_every_node 'node_interfaces | sed "s/^/$SLURM_NODEID /"') ||
            fail 65 "the nodes ${job_nodes[*]} do not answer a step of this job"
        [[ -z ${site[SITE_INTERFACE]:-} ]] || said=$(grep -E "^[0-9]+ ${site[SITE_INTERFACE]} " <<<"$said")
        node_interface=$(common_interface "${#job_nodes[@]}" <<<"$said") || fail 65 "there is no network interface \
${site[SITE_INTERFACE]:-} that all of ${job_nodes[*]} have (set SITE_INTERFACE in the site file to the one that joins them)"
    fi
    head_address=$(node_interfaces | sed -n "s/^$node_interface //p" | head -n 1)
    [[ -n $node_interface && -n $head_address ]] || fail 65 "${job_nodes[0]} has no address${node_interface:+ on \
$node_interface} that other machines reach (set SITE_INTERFACE in the site file)"
    door_host=$(named_address) || door_host=$head_address
}

check_reach() {
    local said
    ((${#job_nodes[@]} > 1)) || return 0
    # shellcheck disable=SC2016 # the nodes' shells expand it
    said=$(on_every_node 'reaches "$1" "$2" || echo "$SLURMD_NODENAME"' "$head_address" $((port_base + 1)))
    [[ -z $said ]] || fail 65 "${said//$'\n'/, } cannot reach $head_address of ${job_nodes[0]} over $node_interface \
(set SITE_INTERFACE in the site file to the interface that joins the nodes)"
}
