#!/bin/bash
# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# check-format.sh: fails when gofmt would change a Go file of the repository.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(gofmt -l api cmd internal scripts test ./*.go 2>/dev/null || true)
if [ -n "$unformatted" ]; then
    echo "not formatted (run gofmt -w on them):" >&2
    echo "$unformatted" >&2
    exit 1
fi
