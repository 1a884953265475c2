#!/bin/sh
# The table of published ports on one machine: which model answers on which port of its loopback interface.
# Runs there through SSH, as: sh -c "$(cat ports_table.sh)" ports_table claim PORT|0 WHO DEPLOYMENT MODEL
#                                                     … release PORT | key PORT (the key on stdin) | list
# One file a port and account in a directory that all accounts share; the kernel decides who gets a port in the end.
# Prints lines of tab-separated cells; exit code 9: the port is taken.
set -u
umask 022
dir=/var/tmp/berth-ports
keys=$HOME/.berth/published
grace=60 # seconds that a claim counts before its tunnel listens
now=$(date +%s)
tab=$(printf '\t')

mkdir -m 1777 "$dir" 2>/dev/null && chmod 1777 "$dir" # in spite of the umask
exec 9<"$dir" || exit 1
flock 9

listening=" $(awk '$4 == "0A" { n = split($2, cell, ":"); print cell[n] }' /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    while read -r hex; do printf '%d ' "0x$hex"; done)"

up() { # PORT
    case $listening in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

# Sets port, model, name, who, since of a claim; fails for what is none. Anybody may have written the file, and a shell
# evaluates what it calculates with.
read_claim() { # FILE
    [ -f "$1" ] && [ ! -L "$1" ] && IFS=$tab read -r port model name who since <"$1" || return 1
    case $port$since in '' | *[!0-9]*) return 1 ;; esac
}

# Runs a command for each claim, with its state besides.
each() {
    for file in "$dir"/[0-9]*.[0-9]*; do
        read_claim "$file" || continue
        state=stale
        [ $((since + grace)) -gt "$now" ] && state=new
        up "$port" && state=up
        "$@"
    done
}

forget() { # what is stale, and of this account
    [ "$state" = stale ] && [ "${file##*.}" = "$(id -u)" ] || return 0
    [ "$who$tab$name" = "$claimant" ] && last=$port
    rm -f "$file"
    rm -rf "${keys:?}/$port"
}

show() {
    [ "$state" = stale ] || printf 'row\t%s\t%s\t%s\t%s\t%s\t%s\n' "$port" "$model" "$name" "$who" "$since" "$state"
}

taken() { # PORT
    up "$1" && return 0
    for file in "$dir/$1".[0-9]*; do
        read_claim "$file" || continue
        [ "$who$tab$name" != "$claimant" ] && [ $((since + grace)) -gt "$now" ] && return 0
    done
    return 1
}

claim() { # PORT WHO DEPLOYMENT MODEL
    claimant=$2$tab$3 last='' chosen=$1
    each forget
    if [ "$chosen" = 0 ]; then
        chosen=${last:-20000}
        while taken "$chosen"; do
            chosen=$((chosen + 1))
            [ "$chosen" -lt 32000 ] || chosen=20000
        done
    elif taken "$chosen"; then
        each show
        exit 9
    fi
    draft=$(mktemp "$dir/.claim.XXXXXX") || exit 1
    printf '%s\t%s\t%s\t%s\t%s\n' "$chosen" "$4" "$3" "$2" "$now" >"$draft"
    chmod 644 "$draft"
    mv -fT "$draft" "$dir/$chosen.$(id -u)" || exit 1
    printf 'port\t%s\nhome\t%s\n' "$chosen" "$HOME"
}

case $1 in
claim) shift && claim "$@" ;;
release)
    rm -f "$dir/$2.$(id -u)"
    rm -rf "${keys:?}/${2:?}"
    ;;
key)
    umask 077
    mkdir -p "$keys/$2" && cd "$keys/$2" || exit 1
    cat >api_key
    { printf 'Authorization: Bearer ' && cat api_key; } >authorization
    ;;
list) ;;
esac
claimant=
each show
