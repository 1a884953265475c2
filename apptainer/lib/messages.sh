# shellcheck shell=bash
# What the job says: one line to its log; a failure is one sentence, also in endpoint.json.
#
#   say TEXT             one line to the log
#   fail CODE SENTENCE   end the job; the sentence becomes the reason in endpoint.json where there is one yet

say() { printf 'berth: %s\n' "$*" >&2; }

fail() { # CODE SENTENCE
    printf 'berth: error: %s\n' "$2" >&2
    if declare -F record >/dev/null && [[ -n ${run_dir:-} ]]; then record failed "$2"; fi
    exit "$1"
}
