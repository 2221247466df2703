#!/bin/sh
# The guard of one process started by the `native` crate. Its standard input is the life line: a pipe whose only
# write end is held by the starter. A word on it means that the process has ended in front of the starter's eyes;
# its closing means that the starter is gone, however that happened, and then the guard stops the process.
#
# usage: guard.sh NAME PID BORN SIGNAL GRACE_TENTHS
#   BORN: the start time in /proc/PID/stat, so that a later process with the same number is left alone

# Field 22 of the stat line; nothing for a process that is gone or only waits to be reaped.
born_at() {
    { read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 0
    # The command's name may hold blanks and brackets: count from behind it.
    set -- ${stat##*) }
    [ "$1" = Z ] || echo "${20}"
}

# The processes that it has started itself: a database serves each connection by one.
children_of() { cat /proc/"$1"/task/*/children 2>/dev/null; }

# A process that is frozen by SIGSTOP does not see another signal.
thaw() {
    for child in $(children_of "$1"); do kill -s CONT "$child"; done
    kill -s CONT "$1"
}

# The parent is stopped first and killed last: until then no child's number can pass to somebody else.
kill_family() {
    kill -s STOP "$1"
    for child in $(children_of "$1"); do kill -s KILL "$child"; done
    kill -s KILL "$1"
}

# One function, so that the shell has read all of this file before it waits: it may be edited meanwhile.
main() {
    # A Ctrl-C or a hang-up that reaches the guard as well must not leave the process without one.
    trap '' HUP INT QUIT TERM
    pid=$2 born=$3 signal=$4 left=$5
    read -r _word && exit 0
    [ "$(born_at "$pid")" = "$born" ] || exit 0
    kill -s "$signal" "$pid"
    thaw "$pid"
    while [ "$left" -gt 0 ] && [ "$(born_at "$pid")" = "$born" ]; do
        sleep 0.1
        left=$((left - 1))
    done
    [ "$(born_at "$pid")" = "$born" ] && kill_family "$pid"
    exit 0
}

main "$@" 2>/dev/null
