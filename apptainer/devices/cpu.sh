# shellcheck shell=bash
# CPU: nothing to hand over, nothing to count.
# shellcheck disable=SC2034 # node.sh reads device_args

device_prepare() { # RANKS
    device_args=()
}
