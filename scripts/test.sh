#!/bin/bash
# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# test.sh: every test, on real machines too, with the coverage of all of it together: the tests' own, and that of the
# three binaries, which the end-to-end tests run built with counters (bin/cover). Exits with an error if a test fails
# or less than the wanted part of the statements ran. Leaves coverage/: test.log, profile.txt.
set -uo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh
need_root

wanted=80 # per cent of statements

# Tests write their counters to the folder that -test.gocoverdir names. The binaries that tests run write theirs to
# MICROPOD_COVERDIR: their own variable, GOCOVERDIR, is set anew by go test for what it runs. Two
# packages at once: they boot machines, and those have the cores to themselves.
run_tests() {
    MICROPOD_TEST_ALL=1 MICROPOD_COVERDIR=$PWD/coverage/binaries MICROPOD_BIN=$PWD/bin/cover CGO_ENABLED=0 \
        go test -p 2 -timeout 14m -cover -covermode=atomic ./... -args -test.gocoverdir="$PWD/coverage/tests" 2>&1 |
        tee coverage/test.log
}

count() {
    go tool covdata textfmt -i=coverage/tests,coverage/binaries -o coverage/profile.txt &&
        go list ./api/... ./cmd/... ./internal/... | go run ./scripts/coverage -min "$wanted" coverage/profile.txt
}

rm -rf coverage
mkdir -p coverage/tests coverage/binaries
step "Install what is missing" scripts/install-deps.sh run test || exit
step "Build, also with coverage counters" make --no-print-directory build build-cover || exit
code=0
step "Test" run_tests || code=1
step "Count coverage (tests and binaries together, without generated code)" count || code=1
echo "==> What go test said of each package"
grep -E '^(ok|FAIL|---|panic:|\?)[[:space:]]' coverage/test.log | grep -v '^--- PASS'
[ $code = 0 ] && echo "PASS" || echo "FAIL"
exit $code
