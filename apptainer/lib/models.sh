# shellcheck shell=bash
# What can be known of the model before anything starts: where it is, and whether the hub is needed for it.
# shellcheck disable=SC2154 # models_dir and settings: see serve.sbatch
#
#   model_paths          print the paths that settings name and that the container must see, one a line
#   model_is_complete    whether every file of the model is on this cluster, so that no network is needed
#   snapshot_dir NAME    print the folder of a model in the store

# A snapshot of the hub's cache is made of links into the folders beside it, so those must be seen too.
model_paths() {
    local name path
    for name in LLM_VLLM_MODEL_NAME VLLM_MODEL VLLM_TOKENIZER VLLM_CHAT_TEMPLATE VLLM_CONFIG QUANT_CONFIG; do
        path=${settings[$name]:-}
        [[ $path == /* && -e $path ]] || continue
        [[ $path =~ ^(.*/models--[^/]+)/snapshots/ ]] && path=${BASH_REMATCH[1]}
        # It names measurements that lie beside it.
        [[ $name != QUANT_CONFIG ]] || path=${path%/*}
        printf '%s\n' "$path"
    done | sort -u
}

model_is_complete() {
    local model=${settings[LLM_VLLM_MODEL_NAME]:-${settings[VLLM_MODEL]:-}}
    [[ $model == demo || ($model == /* && -e $model) ]] && return
    [[ $model =~ ^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$ ]] || return 1
    local repository=$models_dir/hub/models--${model//\//--} folder file weights=
    folder=$(snapshot_dir "$repository") || return 1
    # A download on its way, and a link to what never arrived.
    compgen -G "$repository/blobs/*.incomplete" >/dev/null && return 1
    for file in "$folder"/*; do
        [[ -e $file ]] || return 1
        case $file in *.safetensors | *.bin | *.pt | *.gguf) weights=yes ;; esac
    done
    [[ -n $weights && -e $folder/config.json ]] || return 1
    # Weights in several files: an index names them all.
    for file in "$folder"/*.index.json; do
        [[ -e $file ]] || continue
        _shards_are_there "$file" || return 1
    done
}

snapshot_dir() { # REPOSITORY
    local revision=${settings[VLLM_REVISION]:-main} commit
    commit=$revision
    if [[ -r $1/refs/$revision ]]; then commit=$(<"$1/refs/$revision"); fi
    [[ -d $1/snapshots/$commit ]] && printf '%s\n' "$1/snapshots/$commit"
}

_shards_are_there() { # INDEX
    local shard
    while read -r shard; do
        [[ -e ${1%/*}/$shard ]] || return 1
    done < <(grep -oE '"[^"/]+\.(safetensors|bin)"' "$1" | tr -d '"' | sort -u)
}
