# shellcheck shell=bash
# Sourced by scripts/test: lanes of work side by side, each with an output of its own.
#
#   run_lanes FOLDER FUNCTION…   run the functions at once; what each says goes to FOLDER/FUNCTION.log. Shown is the first
#                                one's output as it comes, to its end, and then the next one's, from its beginning.
#                                Sets lanes_result: 0 if all of them returned 0; else 1, or 130 when a signal ended them.
#                                (A result of its own would have `run_lanes || …` switch off `set -e` in the lanes.)
#
# A signal (Ctrl-C, a kill) is passed on as Ctrl-C to all that the lanes run, so that they clean up; then it waits for them.

run_lanes() { # FOLDER FUNCTION…
    local folder=$1 lane number
    shift
    local -a lanes=("$@") groups=()
    local interrupted=
    lanes_result=0
    mkdir -p "$folder"
    trap 'interrupted=yes; lanes_tell' INT TERM HUP
    # A process group for each: one signal reaches all of it. Without this, Bash has what is in the background ignore Ctrl-C.
    {
        set -m
        for lane; do
            : >"$folder/$lane.log"
            (trap 'exit 130' INT && "$lane") </dev/null >"$folder/$lane.log" 2>&1 &
            groups+=($!)
        done
        set +m
    } 2>/dev/null # Bash's word of a lane that ends so soon
    for number in "${!lanes[@]}"; do
        lanes_show "${groups[number]}" "$folder/${lanes[number]}.log"
        lanes_wait "${groups[number]}" || lanes_result=1
    done
    trap - INT TERM HUP
    # shellcheck disable=SC2034 # for the caller
    [ -z "$interrupted" ] || lanes_result=130
}

# To every lane that still runs. The dynamic scope of `groups` is that of run_lanes.
lanes_tell() {
    local group
    for group in "${groups[@]}"; do kill -INT -- "-$group" 2>/dev/null || true; done
}

lanes_wait() { # PID: its exit code; a signal that comes while Bash waits is no end of it
    local code=0
    wait "$1" || code=$?
    while kill -0 "$1" 2>/dev/null; do
        code=0
        wait "$1" || code=$?
    done
    return "$code"
}

lanes_show() { # PID FILE: all of the file, until the process ends; of an interrupted run's only the end
    local shown
    if [ -n "$interrupted" ]; then
        lanes_wait "$1" || true
        tail -n 20 "$2"
        return
    fi
    tail -n +1 -s 0.3 -f --pid="$1" "$2" &
    shown=$!
    lanes_wait "$shown" || true
}
