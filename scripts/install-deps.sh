#!/bin/bash
# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# install-deps.sh [run] [demo] [test] [bench] [generate]: installs the Debian packages of these sets that are missing, and
# only those; checks that Go is new enough. Without arguments: run.
set -euo pipefail
cd "$(dirname "$0")/.."

# A line per package: its set, its name, what it is for.
packages='
run      qemu-system-x86          the VMM where Firecracker cannot run
run      linux-image-cloud-amd64  the kernel that guests boot
run      e2fsprogs                makes the writable disks of machines
demo     mmdebstrap               makes the Debian image
test     mmdebstrap               makes the Debian image
test     busybox-static           is in the small image
test     skopeo                   judges the images made, copies between registries
test     docker-registry          is the registry pulled from
test     apache2-utils            makes passwords for the registry
test     umoci                    unpacks images as the reference
test     erofs-utils              judges the EROFS images made
test     attr                     reads extended attributes
test     bzip2                    makes archives compressed by bzip2
test     xz-utils                 makes kernels and layers compressed by xz
test     zstd                     makes layers compressed by zstd
test     lz4                      makes kernels compressed by lz4
test     cpio                     reads the initramfs
test     iproute2                 lays out the hosts and routers that networks are tested with
test     procps                   sets what namespaces are tested with (sysctl)
test     iputils-ping             asks machines over their networks
test     iptables                 is a filter that machines must get through
test     iperf3                   measures what limits let through
test     nftables                 shows rules as others read them
test     curl                     is a client of what machines publish
test     strace                   injects faults
test     python3-pip              fetches Firecracker for the KVM host in software
bench    busybox-static           is in the images measured
bench    skopeo                   makes archives, pushes to the registry
bench    docker-registry          is the registry pulled from
bench    zstd                     is measured beside ours
bench    umoci                    is measured beside ours
bench    erofs-utils              is measured beside ours
bench    podman                   is measured beside ours
bench    containerd               is measured beside ours
bench    crun                     is measured beside ours
bench    runc                     is measured beside ours
generate protobuf-compiler        compiles the .proto files
generate libprotobuf-dev          has the well-known types they import
'

missing() { # SET...: prints the missing packages of these sets
    local set name purpose
    while read -r set name purpose; do
        if [[ " $* " == *" $set "* && $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) != installed ]]; then
            echo "  installing $name: $purpose" >&2
            echo "$name"
        fi
    done <<<"$packages" | sort -u
}

install_packages() { # SET...
    if ! command -v dpkg-query >/dev/null; then
        echo "this is no Debian: nothing is installed; needed are:" >&2
        grep -E "^($(IFS='|'; echo "$*"))" <<<"$packages" >&2
        return
    fi
    local names
    names=$(missing "$@")
    if [ -z "$names" ]; then
        echo "  Debian packages: all there"
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "installing packages needs root: run as root, or: sudo apt-get install" $names >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    if ! apt-get update -q=2 >&2; then
        echo "  apt-get update reports errors: trying with the lists that are there" >&2
    fi
    # shellcheck disable=SC2086 # words are wanted
    apt-get install -q=2 -y --no-install-recommends $names >&2
    if [ -d /run/systemd/system ]; then
        disable_services "$names"
    fi
}

# Tests and measurements start registries and daemons of their own; services that come with packages
# installed for them alone are nobody's wish.
disable_services() { # NAMES, one a line
    local package unit
    while read -r package unit; do
        if grep -qx "$package" <<<"$1"; then
            systemctl disable --now "$unit" >&2
        fi
    done <<'UNITS'
docker-registry docker-registry.service
containerd containerd.service
podman podman.socket
podman podman.service
podman podman-restart.service
podman podman-auto-update.timer
UNITS
}

check_go() {
    local wanted found
    wanted=$(sed -n 's/^go //p' go.mod)
    if ! command -v go >/dev/null; then
        echo "Go is missing: install Go $wanted or newer (https://go.dev/dl), then put its bin folder into PATH" >&2
        exit 1
    fi
    # Inside the repository go 1.21 and newer fetch the version of go.mod by themselves, unless told not to.
    if ! found=$(go env GOVERSION 2>&1) || [ "$(printf '%s\n' "$wanted" "${found#go}" | sort -V | head -n 1)" != "$wanted" ]; then
        echo "Go is too old, $wanted is needed: $found" >&2
        echo "install a newer one (https://go.dev/dl), or, with Go 1.21 and newer, let it fetch one: export GOTOOLCHAIN=auto" >&2
        exit 1
    fi
    echo "  $found (at least $wanted is needed)"
}

[ $# -gt 0 ] || set -- run
check_go
install_packages "$@"
