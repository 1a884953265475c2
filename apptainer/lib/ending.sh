# shellcheck shell=bash
# How a run ends, and how it takes over from the one before it in a chain.
# shellcheck disable=SC2034,SC2154 # see serve.sbatch
#
#   take_over      ask the predecessor to drain: called TAKE_OVER_SECONDS after this run is ready
#   drain WHY      running answers finish, then door and engine end; 75 s at most. After a plain scancel nothing can
#                  finish any more: the word is written, and clean_up follows
#   clean_up       whatever still runs here, and the head's private directory

# Whoever reads endpoint files finds this run before the other one goes: a shared file system may show them half a
# minute late, and a tunnel takes seconds to open.
readonly DRAIN_SECONDS=75 TAKE_OVER_SECONDS=30

take_over() {
    [[ -n $predecessor ]] || return 0
    say "job $predecessor is asked to finish: this one takes over"
    # To its batch shell alone. It may have ended by itself, or wait to be started again after its node failed.
    scancel --signal=TERM --batch "$predecessor" 2>/dev/null
    scancel --state=PENDING "$predecessor" 2>/dev/null
    predecessor=''
}

running() { [[ -n ${1:-} ]] && kill -0 "$1" 2>/dev/null; } # PID

pause() { # SECONDS; a signal ends it
    sleep "$1" &
    wait $!
}

drain() { # WHY
    local -i deadline=$((SECONDS + DRAIN_SECONDS))
    record draining "$1"
    if _cancelled; then
        record stopped "$1"
        return
    fi
    # First the door: it takes no new request, and lets those that run finish through the engine.
    running "$door_pid" && kill -TERM "$door_pid"
    _wait_until "$deadline" "$door_pid"
    # Only the server: see node.sh. Where there is none yet, nothing is lost with the step.
    if [[ -s $private/server.pid ]]; then
        kill -TERM "$(<"$private/server.pid")" 2>/dev/null
    else
        kill -TERM "$step_pid" 2>/dev/null
    fi
    _wait_until "$deadline" "$step_pid"
    if running "$step_pid"; then
        say "the engine did not end within $DRAIN_SECONDS seconds"
        kill -TERM "$step_pid"
        _wait_until $((SECONDS + 5)) "$step_pid"
    fi
    record stopped "$1"
}

# Whether Slurm ends the job by itself: it has signalled door, engine and image already, and soon kills this shell.
_cancelled() {
    [[ $(timeout 2 squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2>/dev/null) == COMPLETING ]]
}

_wait_until() { # SECOND PID
    local -i ticks=0
    while running "$2" && ((SECONDS < $1)); do
        pause 0.5
        ((++ticks % 10)) || record
    done
}

clean_up() {
    local pid
    tunnel_stop
    for pid in "$watch_pid" "$door_pid" "$step_pid"; do
        ! running "$pid" || kill -TERM "$pid" 2>/dev/null
    done
    # Slurm ends what is left of the step when this script ends.
    private_remove "$private"
    rm -f "$run_dir/private-0"
}
