#!/bin/sh
# Installs what `make test-kernel` needs (Debian, amd64): quietly as root; otherwise it names it.
set -eu
cd "$(dirname "$0")/../.."
missing=$("${PYTHON:-python3}" tests/kernel/vm.py missing | tr '\n' ' ') || true
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "test-kernel: apt-get is missing: the virtual machine needs a Debian machine" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "test-kernel: missing: $missing- run as root: apt-get install $missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # several packages
apt-get install -y -qq --no-install-recommends $missing >/dev/null
