#!/bin/bash
# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# generate.sh: makes the Go files beside api/*/v1/*.proto again. protoc comes from Debian (protobuf-compiler), the plugins
# from the `tool` lines of go.mod, so that everyone generates with the same versions.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v protoc >/dev/null; then
    scripts/install-deps.sh generate
fi

plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
go build -o "$plugins/" \
    google.golang.org/protobuf/cmd/protoc-gen-go \
    connectrpc.com/connect/cmd/protoc-gen-connect-go \
    github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc

generate() { # ROOT FOLDER PLUGIN...: one protoc run over the folder's .proto files, whose imports are relative to ROOT
    local root=$1 folder=$2 outputs=()
    shift 2
    for plugin in "$@"; do
        outputs+=("--${plugin}_out=." "--${plugin}_opt=module=github.com/micropod/micropod")
    done
    PATH="$plugins:$PATH" protoc -I "$root" "${outputs[@]}" "$folder"/*.proto
    echo "generated $folder"
}

if compgen -G 'api/micropod/v1/*.proto' >/dev/null; then
    generate api api/micropod/v1 go connect-go
fi
if compgen -G 'api/agent/v1/*.proto' >/dev/null; then
    generate . api/agent/v1 go go-ttrpc
fi
