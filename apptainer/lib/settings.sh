# shellcheck shell=bash
# The settings: what the env files say, and what of it goes where.
# shellcheck disable=SC2004,SC2034,SC2154 # see serve.sbatch; the arrays are associative
#
#   read_settings      fill `settings`; sets device, model, executor; ends the job with code 64 for what cannot be
#   deployment_name    print the name of a model's deployment
#   make_secrets       the key and the token as files of the deployment; they leave the settings
#   engine_settings    hand the engine's settings to the containers that are started from here on

declare -A settings=() from_files=()

read_settings() {
    local file name pair
    local -A shell=()
    # The environment alone: a variable of this script is no setting, whatever its name.
    while IFS= read -rd '' pair; do shell[${pair%%=*}]=${pair#*=}; done < <(env -0)
    for file in "${env_files[@]}"; do
        if [[ -n $deployment && $file -ef $deployment/job.env ]]; then
            # Merged by `berth up`: quotes are gone, and the shell has had its say.
            read_env_file "$file" settings literal
        else
            read_env_file "$file" from_files
        fi
    done
    for name in "${!from_files[@]}"; do settings[$name]=${shell[$name]-${from_files[$name]}}; done
    device=${settings[LLM_DEVICE]:-}
    model=${settings[LLM_VLLM_MODEL_NAME]:-${settings[VLLM_MODEL]:-}}
    [[ -r $job_dir/devices/$device.sh && -n $device ]] ||
        fail 64 "LLM_DEVICE=$device: no such device (give env/<device>.env; there are: $(cd "$job_dir/devices" && echo *.sh))"
    [[ -n $model ]] || fail 64 "LLM_VLLM_MODEL_NAME is not set: there is no model to serve"
    executor=${settings[BERTH_EXECUTOR]:-mp}
    [[ $executor == mp || $executor == ray ]] || fail 64 "BERTH_EXECUTOR=$executor: it is mp or ray"
    case $model in
    ./* | ../* | '~'/*)
        model=$(realpath -m -- "${model/#'~'/$HOME}")
        settings[LLM_VLLM_MODEL_NAME]=$model
        ;;
    esac
    [[ $model != /* || -e $model ]] || fail 64 "LLM_VLLM_MODEL_NAME: $model is not there (the nodes must see it)"
}

# meta-llama/Llama-3.1-8B is llama-3.1-8b, as `berth up` names it.
deployment_name() { # MODEL
    local LC_ALL=C name=$1
    while [[ $name == */ ]]; do name=${name%/}; done
    name=$(tr '[:upper:]' '[:lower:]' <<<"${name##*/}" | sed -E 's/[^a-z0-9._-]+/-/g; s/^[-._]+//; s/[-._]+$//')
    name=${name:0:63}
    printf '%s\n' "${name:-model}"
}

make_secrets() {
    key_make
    if [[ -n ${settings[HF_TOKEN]:-} ]]; then printf '%s\n' "${settings[HF_TOKEN]}" >"$deployment/hf_token"; fi
    unset 'settings[HF_TOKEN]' 'settings[VLLM_API_KEY]'
}

# The env files' names for the engine. Left out: what concerns this machine, the service alone, or is settled here.
engine_settings() {
    local name
    for name in "${!settings[@]}"; do
        case $name in
        BERTH_* | COMPOSE_* | BIND_ADDR | LLM_USVC_* | LLM_API_KEYS_FILE | LLM_VLLM_ENDPOINT) ;;
        LLM_VLLM_PORT | LLM_VLLM_HOST | VLLM_HOST | VLLM_PORT | VLLM_API_KEY_FILE | HF_TOKEN_PATH) ;;
        *) setting "$name" "${settings[$name]}" ;;
        esac
    done
    if model_is_complete && [[ -z ${settings[HF_HUB_OFFLINE]:-} ]]; then setting HF_HUB_OFFLINE 1; fi
}
