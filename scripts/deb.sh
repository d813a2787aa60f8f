#!/bin/bash
# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# deb.sh [VERSION]: makes bin/micropod_VERSION_ARCH.deb of the binaries in bin/ ("make build"), with completions, manual pages,
# systemd's units and the configuration file. It needs dpkg-deb alone. The same binaries give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${GO:=go}"

version=${1:-$(git describe --tags --always --dirty 2>/dev/null || echo dev)}
version=${version#v}
[[ $version =~ ^[0-9]+\. ]] || version="0~$version" # Debian's begin with a number
version=${version//-/+}
arch=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

install -D -m 755 -t "$stage/usr/bin" bin/micropod bin/micropodd
install -D -m 755 bin/micropod-agent "$stage/usr/libexec/micropod/micropod-agent"
install -D -m 644 -t "$stage/lib/systemd/system" packaging/systemd/micropodd.service packaging/systemd/micropodd.socket
install -D -m 644 packaging/config.toml "$stage/etc/micropod/config.toml"
install -D -m 644 LICENSE "$stage/usr/share/doc/micropod/copyright"

"$GO" run ./scripts/manpages "$stage/usr/share/man/man1"
gzip -9n "$stage"/usr/share/man/man1/*
complete() { # SHELL FILE
    mkdir -p "$(dirname "$stage/$2")"
    bin/micropod completion "$1" >"$stage/$2"
}
complete bash usr/share/bash-completion/completions/micropod
complete zsh usr/share/zsh/vendor-completions/_micropod
complete fish usr/share/fish/vendor_completions.d/micropod.fish

mkdir -p "$stage/DEBIAN"
sed "s/@VERSION@/$version/; s/@ARCH@/$arch/" packaging/debian/control.in >"$stage/DEBIAN/control"
install -m 644 packaging/debian/conffiles "$stage/DEBIAN/conffiles"
install -m 755 -t "$stage/DEBIAN" packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm
find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
chmod 755 "$stage"

out="bin/micropod_${version}_$arch.deb"
dpkg-deb --root-owner-group -Zxz --build "$stage" "$out" >/dev/null
echo "$out"
