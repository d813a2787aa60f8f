# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# steps.sh: for demo.sh and test.sh to source. Shows what is done and how long it took.

# step TITLE COMMAND...: runs the command; says which step failed if it does.
step() {
    local title=$1 start=$EPOCHREALTIME code=0
    shift
    echo "==> $title"
    "$@" || code=$?
    printf '    %s after %s s\n' "$([ $code = 0 ] && echo done || echo "FAILED ($code)")" "$(seconds_since "$start")"
    return $code
}

# seconds_since START: START as EPOCHREALTIME told it.
seconds_since() {
    local us=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
    printf '%d.%02d' $((us / 1000000)) $((us % 1000000 / 10000))
}

need_root() {
    if [ "$(id -u)" != 0 ]; then
        echo "machines need root for now (cgroups, uids of their own): run as root" >&2
        exit 1
    fi
}
