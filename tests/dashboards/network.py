"""A network namespace of the check's own: nobody else's ports, a lossy way, a resolver.

Needs root and iproute2. `enter()` starts the program again inside of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOSSY = "127.0.0.66"  # a narrow way with a short queue: segments are lost
UNREACHABLE = "192.0.2.1"  # TEST-NET-1, RFC 5737: no such way inside the namespace
PROHIBITED = "192.0.2.2"
PORTS = (40000, 41999)
_INSIDE = "TRACESOCK_CHECK_NAMESPACE"

# sch_netem is not in every kernel, so a token bucket that overflows loses the segments.
_SETUP = f"""
set -e
ip link set lo up mtu 1500
tc qdisc add dev lo root handle 1: htb default 10
tc class add dev lo parent 1: classid 1:10 htb rate 10gbit quantum 60000
tc class add dev lo parent 1: classid 1:20 htb rate 8mbit burst 4k
tc qdisc add dev lo parent 1:20 handle 20: tbf rate 8mbit burst 4k limit 6k
tc filter add dev lo parent 1: protocol ip prio 1 u32 match ip dst {LOSSY}/32 flowid 1:20
ip route add unreachable {UNREACHABLE}
ip route add prohibit {PROHIBITED}
echo {PORTS[0]} {PORTS[1]} > /proc/sys/net/ipv4/ip_local_port_range
echo 16 > /proc/sys/net/ipv4/tcp_max_tw_buckets
"""


def missing() -> str:
    """What a namespace would need and this machine has not; empty where it can be made."""
    if not sys.platform.startswith("linux"):
        return "Linux"
    if os.geteuid() != 0:
        return "root"
    tools = [name for name in ("unshare", "ip", "tc", "mount") if shutil.which(name) is None]
    if tools:
        return f"{', '.join(tools)} (Debian: apt install iproute2 util-linux)"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", _SETUP],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return "" if tried.returncode == 0 else f"namespaces ({tried.stderr.strip()[:200]})"


def inside() -> bool:
    return _INSIDE in os.environ


def command(words: list[str]) -> list[str]:
    """The command that runs `words` in a namespace of its own."""
    return ["unshare", "--net", "--mount", sys.executable, "-m", __name__, *words]


def main() -> None:
    """Inside of the namespace: make it ready, and become the command."""
    subprocess.run(["sh", "-c", _SETUP], check=True, stdout=subprocess.DEVNULL, timeout=60)
    with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as file:
        file.write("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
    # The mount keeps the file alive, and is seen by this namespace alone.
    subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True, timeout=60)
    Path(file.name).unlink()
    os.environ[_INSIDE] = "1"
    os.environ.pop("RES_OPTIONS", None)  # the file's
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
