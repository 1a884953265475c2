# shellcheck shell=bash
# endpoint.json: what this run is, for everyone who looks for it. One writer, the batch shell; replaced at once.
# shellcheck disable=SC2154 # the batch shell's variables: see serve.sbatch
#
#   record [STATE [REASON]]   write the file with a new state, or as it is with a new heartbeat
#   json_string TEXT          print TEXT as a JSON string
#
# Uses the batch shell's variables; all may be unset while nothing is known yet.

state=starting reason='' login_port=''

record() { # [STATE [REASON]]
    local watch='' file=$run_dir/endpoint.json
    if (($#)); then
        [[ $state == "$1" ]] || say "$1${2:+: $2}"
        state=$1 reason=${2:-}
    fi
    # engine.watch replaces its file at once: one line, one object.
    if [[ -r $run_dir/watch.json ]]; then IFS= read -r watch <"$run_dir/watch.json"; fi
    [[ $watch == '{'*'}' ]] || watch='{}'
    if _record_object "$watch" >"$file.new" 2>/dev/null && mv -f "$file.new" "$file" 2>/dev/null; then return 0; fi
    say "$file cannot be written: is the disk full?"
}

_record_object() { # WATCH
    local node nodes='' base=''
    for node in ${job_nodes[@]+"${job_nodes[@]}"}; do nodes+=${nodes:+,}$(json_string "$node"); done
    [[ -z ${door_host:-} || -z ${door_port:-} ]] || base=http://$door_host:$door_port
    local job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
    printf '{"schema":1,"deployment":%s,"run":%s,"job":%s,"state":%s,"reason":%s,"model":%s,"device":%s,' \
        "$(json_string "${deployment##*/}")" "$(json_string "$run")" "$(json_string "$job")" \
        "$(json_string "$state")" "$(json_string "$reason")" "$(json_string "${model:-}")" \
        "$(json_string "${device:-}")"
    printf '"base_url":%s,"host":%s,"port":%d,"node":%s,"nodes":[%s],"login_port":%s,"key_file":%s,' \
        "$(json_string "$base")" "$(json_string "${door_host:-}")" "${door_port:-0}" \
        "$(json_string "${job_nodes[0]:-}")" "$nodes" "${login_port:-null}" "$(json_string "${key_file:-}")"
    printf '"started":%d,"ends":%s,"heartbeat":%d,"restarts":%d,"sif":%s,"watch":%s}\n' \
        "$started" "${ends:-null}" "$(date +%s)" "${SLURM_RESTART_COUNT:-0}" "$(json_string "${sif:-}")" "$1"
}

json_string() { # TEXT; control characters become blanks, bytes that are no UTF-8 are left out
    local text=$1 LC_ALL=C
    text=${text//[$'\x01'-$'\x1f'$'\x7f']/ }
    [[ $text != *[$'\x80'-$'\xff']* ]] || text=$(iconv -c -f UTF-8 -t UTF-8 <<<"$text" 2>/dev/null)
    text=${text//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

# When Slurm ends the job, in Unix seconds; nothing where there is no limit or Slurm does not say.
job_end() {
    local end=${SLURM_JOB_END_TIME:-}
    [[ -n $end ]] || end=$(SLURM_TIME_FORMAT=%s squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e 2>/dev/null)
    [[ ! $end =~ ^[0-9]{9,10}$ ]] || printf '%s\n' "$end"
}
