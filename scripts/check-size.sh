#!/bin/bash
# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# check-size.sh FILE MAX: fails when FILE has more than MAX bytes.
set -euo pipefail

size=$(stat -c %s "$1")
if ((size > $2)); then
    echo "$1 has $size bytes, more than the $2 allowed: 'go version -m $1' lists what was linked in" >&2
    exit 1
fi
echo "$1: $size bytes of at most $2"
