# shellcheck shell=bash
# How many devices each node must show, by the settings. vLLM's ranks are spread evenly over the nodes.
# shellcheck disable=SC2154 # settings: see serve.sbatch
#
#   ranks_per_node NODES    print the number; ends the job with code 64 where the settings do not fit the nodes

_number_of() { # DEFAULT NAME…: the first of these settings that says a number
    local name default=$1
    shift
    for name; do
        [[ ${settings[$name]:-} =~ ^[1-9][0-9]{0,5}$ ]] && printf '%s\n' "${settings[$name]}" && return
    done
    printf '%s\n' "$default"
}

ranks_per_node() { # NODES
    local -i tensor pipeline data all
    tensor=$(_number_of 1 VLLM_TP_SIZE VLLM_TENSOR_PARALLEL_SIZE)
    pipeline=$(_number_of 1 VLLM_PP_SIZE VLLM_PIPELINE_PARALLEL_SIZE)
    data=$(_number_of 1 VLLM_DATA_PARALLEL_SIZE)
    all=$((tensor * pipeline * data))
    # Flags of one's own may say otherwise; vLLM then checks them itself.
    if [[ ${settings[LLM_VLLM_EXTRA_ARGS]:-} == *@(parallel-size|-tp|-pp|-dp)* ]]; then
        printf '%s\n' "$(_number_of 0 BERTH_GPUS_PER_NODE)"
        return
    fi
    ((all % $1 == 0)) || fail 64 "$1 nodes for $all ranks (VLLM_TP_SIZE x VLLM_PP_SIZE): set VLLM_PP_SIZE=$1, or ask \
Slurm for a number of nodes that divides $all"
    printf '%d\n' $((all / $1))
}
