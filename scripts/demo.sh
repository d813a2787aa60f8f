#!/bin/bash
# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh: what micropod does, from a clean clone to a container in a microVM. Leaves the built binaries and the image
# (.cache) and nothing else: the daemon it starts has folders of its own and is stopped at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh
need_root

started=$EPOCHREALTIME
work=$(mktemp -d /tmp/micropod-demo.XXXXXX)
chmod 755 "$work" # each VMM runs under a uid of its own
export MICROPOD_DATA_DIR=$work/data MICROPOD_RUN_DIR=$work/run

clean_up() {
    if [ -s "$MICROPOD_RUN_DIR/micropodd.pid" ]; then
        local pid
        pid=$(cat "$MICROPOD_RUN_DIR/micropodd.pid")
        # Only when something failed is there a container left; its machine would outlive the daemon.
        bin/micropod ps -aq 2>/dev/null | xargs -r bin/micropod rm -f >/dev/null 2>&1 || true
        kill "$pid" 2>/dev/null || true
        timeout 30 tail --pid="$pid" -s 0.1 -f /dev/null || kill -9 "$pid"
    fi
    rm -rf "$work"
}
trap clean_up EXIT

make_image() {
    image=$(go run ./test/images/makeimage debian .cache/images) || return
    echo "    $image: $(stat -c %s "$image") bytes"
}

in_vm() { # COMMAND...: in a container of its own, in a machine of its own
    echo "    \$ micropod run --rm demo ${*@Q}"
    bin/micropod run --rm demo "$@"
}

step "Install what is missing" scripts/install-deps.sh run demo
step "Build" make --no-print-directory build
step "Make a Debian image from packages (kept in .cache)" make_image
step "Import it (the first command starts the daemon)" bin/micropod image import --name demo "$image"
step "Run it in a microVM" in_vm sh -c 'cat /etc/os-release; uname -a'
echo "    (the kernel of this host is $(uname -r))"
step "Run it again" in_vm true
step "Stop the daemon, remove its folders" clean_up
trap - EXIT
echo "All of it took $(seconds_since "$started") s."
