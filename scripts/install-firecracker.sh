#!/bin/bash
# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# install-firecracker.sh [--version X.Y.Z] [--to DIR] [--archive FILE --sum FILE]: installs firecracker and jailer of one
# official release into DIR (/usr/local/bin). The archive is checked against the release's SHA-256 sum before anything of it is
# used. With --archive and --sum nothing is fetched: they are the release's files, brought by other ways.
set -euo pipefail

version=1.16.1
oldest=1.12.0 # the engine needs what came with it
to=/usr/local/bin
archive= sum=

usage() {
    sed -n 's/^# \(install-firecracker.sh .*\)/usage: \1/p' "$0" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
    --version) version=${2#v} ;;
    --to) to=$2 ;;
    --archive) archive=$2 ;;
    --sum) sum=$2 ;;
    *) usage ;;
    esac
    shift 2
done

fail() {
    echo "install-firecracker: $*" >&2
    exit 1
}

[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "$version is no version such as $oldest"
[ "$(printf '%s\n' "$oldest" "$version" | sort -V | head -n 1)" = "$oldest" ] || fail "version $version is too old, at least $oldest is needed"
[ "$(uname -m)" = x86_64 ] || fail "micropod's Firecracker engine runs on x86_64, this is $(uname -m)"
[ -n "${archive:+x}" ] && [ -z "$sum" ] && fail "--archive and --sum go together"
[ -n "${sum:+x}" ] && [ -z "$archive" ] && fail "--archive and --sum go together"
[ -d "$to" ] && [ -w "$to" ] || fail "$to is no folder that can be written: run as root, or choose another with --to"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
name=firecracker-v$version-x86_64
if [ -z "$archive" ]; then
    release=https://github.com/firecracker-microvm/firecracker/releases/download/v$version
    archive=$tmp/$name.tgz sum=$tmp/$name.tgz.sha256.txt
    curl --fail --silent --show-error --location --proto =https --output "$archive" "$release/$name.tgz" || fail "fetching $name.tgz"
    curl --fail --silent --show-error --location --proto =https --output "$sum" "$release/$name.tgz.sha256.txt" || fail "fetching its sum"
fi

wanted=$(grep -oE '^[0-9a-f]{64}' "$sum") || fail "$sum has no SHA-256 sum"
found=$(sha256sum "$archive" | cut -d ' ' -f 1)
[ "$wanted" = "$found" ] || fail "$archive has SHA-256 $found, the release says $wanted: nothing is installed"

tar -xzf "$archive" -C "$tmp" --no-same-owner
for program in firecracker jailer; do
    file=$tmp/release-v$version-x86_64/$program-v$version-x86_64
    [ -f "$file" ] || fail "the archive lacks $program-v$version-x86_64"
    "$file" --version 2>/dev/null | grep -qF "v$version" || fail "$program does not say that it is $version"
done
for program in firecracker jailer; do
    install -m 755 "$tmp/release-v$version-x86_64/$program-v$version-x86_64" "$to/.$program.new"
    mv "$to/.$program.new" "$to/$program"
done
echo "firecracker and jailer $version are in $to; micropod doctor says whether machines run"
