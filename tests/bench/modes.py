"""What telemetry and policy add to a call: the same calls with each of them in force.

    .venv/bin/python -m tests.bench.modes [--quick] [--json] [--only TEXT] [--mode NAME]

The stock module beside it is never instrumented. A mode is a process of its own:

    metrics   instrument() with no span for sends
    spans     every send a span, below a recording span, encoded as OTLP into /dev/null
    policy    an egress policy of 1,000 rules, of which the last one allows the peer
    audit     a record of every judged call, written to a log
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.bench import calls, connections, harness
from tests.bench.harness import Row
from tests.bench.sockets import tcp_pair, udp_pair, unix_pair

MODES = ("metrics", "spans", "policy", "audit")
RULES = 1000

SUBJECTS = {
    "send, Unix": calls.sending(unix_pair, "send", 1, None),
    "send, Unix, timeout": calls.sending(unix_pair, "send", 1, 5.0),
    "recv, Unix": calls.receiving(unix_pair, "recv", 1, None),
    "recv_into, Unix": calls.receiving(unix_pair, "recv_into", 1, None),
    "recv_into, Unix, timeout": calls.receiving(unix_pair, "recv_into", 1, 5.0),
    "send, TCP": calls.sending(tcp_pair, "send", 1, None),
    "recv, TCP": calls.receiving(tcp_pair, "recv", 1, None),
    "sendall, Unix, 16 KiB": calls.sending(unix_pair, "sendall", 16 << 10, None),
    "sendmsg, Unix": calls.sending(unix_pair, "sendmsg", 1, None),
    "sendto, UDP": calls.datagrams_out(udp_pair, "sock.sendto(data, address)", 1, None),
    "sendto, UDP, prepared Address": calls.datagrams_out(
        udp_pair, "sock.sendto(data, address)", 1, None, prepared=True
    ),
    "recvfrom, UDP": calls.datagrams_in(udp_pair, "sock.recvfrom(size)", 1, None),
    "socket, close": connections.lives,
    "connect, accept, close": connections.connections,
    "create_connection by name": connections.by_name,
    "getaddrinfo, hosts file": connections.lookups("localhost"),
}
# In bursts that are long enough for what a thread beside the program does with them.
WITHOUT_A_PAUSE = {
    "sendto, UDP": 10_000,
    "connect, accept, close": 2_000,
}
QUICK = ("send, Unix", "recv_into, Unix", "sendto, UDP", "connect, accept, close")

# What is to be reached with every call recorded.
TARGETS = {
    "send, Unix": 0.88,
    "recv, Unix": 0.88,
    "recv_into, Unix": 0.88,
    "send, TCP": 1.00,
    "send, Unix, timeout": 0.55,
    "recv_into, Unix, timeout": 0.48,
    "sendto, UDP": 1.08,
    "sendto, UDP, prepared Address": 0.98,
    "sendmsg, Unix": 1.08,
    "socket, close": 1.05,
    "connect, accept, close": 1.00,
}


def _policy() -> None:
    from tracesock.audit.policy import parse_policy, use_policy

    rules = [
        f'[[rule]]\nid = "net-{number}"\naction = "deny"\n'
        f'cidr = ["10.{number // 250}.{number % 250}.0/24"]\n'
        for number in range(RULES - 1)
    ]
    rules.append('[[rule]]\nid = "loopback"\naction = "allow"\ncidr = ["127.0.0.0/8"]\n')
    text = 'mode = "enforce"\ndefault = "allow"\n' + "\n".join(rules)
    use_policy(parse_policy(text.encode()))


@contextlib.contextmanager
def in_force(mode: str) -> Iterator[None]:
    """The mode, for this process."""
    import tracesock

    if mode == "policy":
        _policy()
        yield
        return
    if mode == "audit":
        from tracesock import audit

        with tempfile.TemporaryDirectory(prefix="tracesock-bench-") as directory:
            audit.open_log(os.path.join(directory, "audit.jsonl"))
            try:
                yield
            finally:
                audit.close(60)
        return
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(shutdown_on_exit=False)
    settings: dict[str, Any] = {"send_spans": "off"}
    if mode == "spans":
        settings = {"send_spans": "all", "max_sends_per_trace": 0, "otlp": "file:/dev/null"}
    tracesock.instrument(provider, MeterProvider(shutdown_on_exit=False), **settings)
    try:
        with provider.get_tracer("bench").start_as_current_span("bench"):
            yield
    finally:
        tracesock.uninstrument()


def rows(mode: str, quick: bool) -> Iterator[Row]:
    """The calls, in one mode."""
    for name, make in SUBJECTS.items():
        if not quick or name in QUICK:
            target = TARGETS.get(name) if mode in ("metrics", "spans") else None
            yield harness.against_stock(f"{name}; {mode}", make, target)
    for name, calls_in_burst in () if quick else WITHOUT_A_PAUSE.items():
        yield harness.against_stock(
            f"{name}, {calls_in_burst:,} without a pause; {mode}",
            _longer(SUBJECTS[name], calls_in_burst),
            bursts=2,
        )


def _longer(make: harness.Make, calls_in_burst: int) -> harness.Make:
    return lambda module: dataclasses.replace(make(module), calls=calls_in_burst)


def children(arguments: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each mode's figures, from a process each."""
    for mode in MODES:
        told = subprocess.run(
            [sys.executable, "-m", "tests.bench.modes", "--mode", mode, *arguments, "--json"],
            stdout=subprocess.PIPE,
            check=True,
        )
        yield from json.loads(told.stdout).items()


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--mode", choices=MODES, help="only this one")
    options = parser.parse_args()
    if options.mode is None:
        harness.tell(children([each for each in sys.argv[1:] if each != "--json"]), options.json)
        return
    with in_force(options.mode):
        wanted = [row for row in rows(options.mode, options.quick) if options.only in row.name]
        rounds = options.rounds or (3 if options.quick else 9)
        harness.tell(list(harness.measure_all(wanted, rounds)), options.json)


if __name__ == "__main__":
    main()
