#!/bin/sh
# A tunnel in the connection that the user shares (ControlMaster), where a second one would ask for a second factor.
# Runs as: sh shared_tunnel.sh LOCAL_FORWARD DESTINATION SSH_OPTION…
# The forwarding belongs to another process, so this one lives as long as it does, and takes it back when it is ended.
set -u
spec=$1 to=$2
shift 2

ssh "$@" -O check "$to" 2>/dev/null || exec ssh -o ControlMaster=no -o ControlPath=none "$@" -N -L "$spec" "$to"
trap 'exit 0' TERM INT HUP
trap 'ssh "$@" -O cancel -L "$spec" "$to" 2>/dev/null' EXIT
ssh "$@" -O forward -L "$spec" "$to" || exit 1
while ssh "$@" -O check "$to" 2>/dev/null; do
    sleep 2 &
    wait $!
done
echo "the shared connection to $to has been closed"
exit 1
