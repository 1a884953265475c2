# shellcheck shell=bash
# Why the engine ended, as one sentence: its own last word where it had one.
#
#   last_words LOG       print the last `berth: error:` line, else the last exception of Python in the log
#   failure RUN_DIR      print the sentence for a step that ended, from what its nodes left: rank-<rank>.exit
# shellcheck disable=SC2154 # job_nodes: see serve.sbatch

last_words() { # LOG
    local text error hint
    [[ -r $1 ]] || return 1
    text=$(tail -c 200000 "$1" | tr '\r' '\n' | sed $'s/\x1b\\[[0-9;]*[A-Za-z]//g' | iconv -c -f UTF-8 -t UTF-8)
    error=$(sed -n 's/^berth: error: //p' <<<"$text" | tail -n 1)
    if [[ -n $error ]]; then
        hint=$(sed -n 's/^berth: hint: //p' <<<"$text" | tail -n 1)
        printf '%s%s\n' "$error" "${hint:+ ($hint)}"
        return
    fi
    _last_exception <<<"$text"
}

# vLLM's processes put words before their lines, such as "(EngineCore pid=7) ERROR 11-21 10:00:00 [core.py:1] ". The
# cause stands before the exceptions of the processes that merely noticed.
_last_exception() {
    local name='[A-Za-z_.]*[A-Za-z]+(Error|Exception|Interrupt|Exit)'
    grep -aE "(^|[] )])$name(:|$)" |
        grep -avE 'See root cause above|Engine core initialization failed|EngineDeadError|WorkerProc initialization' |
        grep -aoE "$name(:.*|$)" | tail -n 1 | cut -c1-400 | grep -a .
}

# A follower or leader that was hit first ends first; the others follow it down.
failure() { # RUN_DIR
    local file first='' node='' rank='' code='' words said
    for file in "$1"/rank-*.exit; do
        [[ -r $file ]] || continue
        read -r said <"$file"
        if [[ -z $first || $said < $first ]]; then first=$said; fi
    done
    if [[ -z $first ]]; then
        words=$(grep -aoE 'error: [^ :]+: task [0-9]+: .*' "$1/step.log" 2>/dev/null | head -n 1)
        printf 'the job step was ended from outside%s\n' "${words:+ (Slurm: ${words#error: })}"
        return
    fi
    read -r _ node rank code <<<"$first"
    if ((code > 128)); then
        printf 'the engine on %s (rank %s) was killed by signal %d%s\n' "$node" "$rank" $((code - 128)) "$(_hint "$code")"
    elif words=$(last_words "$1/engine-$rank.log"); then
        if ((${#job_nodes[@]} > 1)); then words+=" ($node, rank $rank)"; fi
        printf '%s\n' "$words"
    else
        printf 'the engine on %s (rank %s) ended with code %s and no word (see engine-%s.log)\n' "$node" "$rank" "$code" "$rank"
    fi
}

_hint() { # CODE
    case $1 in
    137) printf ' (by hand, or for memory: ask Slurm for more, SITE_MEM or --mem)' ;;
    135) printf ' (the image was taken away under it)' ;;
    esac
}
