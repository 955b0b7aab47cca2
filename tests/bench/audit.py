"""What the audit costs a call: ratios to the bare call, and nanoseconds.

    .venv/bin/python tests/bench/audit.py [--rounds N] [--json] [--instructions]

The bare call is tracesock's own, in a process without hook, policy and log; 1.00 is that, lower is
better. Each state has a process of its own, because a hook cannot be taken out again; the processes
take turns, round by round, and a ratio or a difference is that of one round. A single time means
nothing on a busy machine. `--instructions` counts instructions a call with valgrind, where the
machine's load changes nothing; it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from typing import Any

RULES = 1000
# A round takes less time than the system's scheduler gives a process at once.
CALLS = 100  # of the whole call
LOOPS = 2000  # of the audit's part of it alone

# What the project promises, in nanoseconds: of the audit's part, and of a whole call what it adds.
LIMITS = {
    ("off", "judging"): 5.0,
    ("subscribed", "event"): 80.0,
    ("policy", "judging"): 150.0,
    ("policy", "sendto"): 150.0,
    ("policy", "connect"): 150.0,
}
STATES = ("off", "subscribed", "policy", "policy and log")


def policy_of(count: int) -> str:
    """So many rules, of which the last but one decides on the loopback address."""
    rules = ['default = "deny"']
    for number in range(count):
        network = f"10.{number // 250}.{number % 250}.0/24"
        if number == count - 2:
            network = "127.0.0.0/8"
        rules.append(
            f'[[rule]]\nid = "rule-{number}"\naction = "allow"\n'
            f'cidr = "{network}"\nport = [9, "{8000 + number}-{9000 + number}"]'
        )
    return "\n".join(rules)


def prepare(state: str) -> None:
    """Puts this process into a state."""
    from tracesock import audit

    if state == "subscribed":
        # A subscription that wants others: what every event of the process costs for it.
        audit.subscribe(print, events="socket.bind", peers="192.0.2.1")
    if state.startswith("policy"):
        from tracesock.audit.policy import parse_policy

        audit.use_policy(parse_policy(policy_of(RULES).encode()))
    if state.endswith("log"):
        import os
        import tempfile

        audit.open_log(os.path.join(tempfile.mkdtemp(), "audit.jsonl"), when_full="drop")


class Work:
    """The pieces of work; each returns nanoseconds a call."""

    def __init__(self) -> None:
        import time

        import tracesock
        from tracesock import _native

        self._clock = time.perf_counter_ns
        self._native = _native.audit
        self._sender = tracesock.socket(tracesock.AF_INET, tracesock.SOCK_DGRAM)
        self._connecting = tracesock.socket(tracesock.AF_INET, tracesock.SOCK_DGRAM)
        # Port 9: nobody receives, so nothing has to be emptied.
        self._to = ("127.0.0.1", 9)

    def run(self, name: str, count: int) -> float:
        return float(getattr(self, name)(count))

    def sendto(self, count: int) -> float:
        call, to = self._sender.sendto, self._to
        begun = self._clock()
        for _ in range(count):
            call(b"x", to)
        return (self._clock() - begun) / count

    def connect(self, count: int) -> float:
        call, to = self._connecting.connect, self._to
        begun = self._clock()
        for _ in range(count):
            call(to)
        return (self._clock() - begun) / count

    def judging(self, count: int) -> float:
        return float(self._native.cost_of_call(self._sender, self._to, count))

    def event(self, count: int) -> float:
        return float(self._native.cost_of_event("socket.sendto", self._sender, self._to, count))


PIECES = {"sendto": CALLS, "connect": CALLS, "judging": LOOPS, "event": LOOPS}


def serve(state: str) -> None:
    """A worker: runs what it is told to, line by line."""
    prepare(state)
    work = Work()
    for line in sys.stdin:
        name, count = line.split()
        print(work.run(name, int(count)), flush=True)


class Worker:
    """A process in one state."""

    def __init__(self, state: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", state],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, count: int) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{name} {count}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """For each state and piece of work: the ratio to the bare call, and what it adds in ns."""
    workers = {state: Worker(state) for state in STATES}
    times: dict[tuple[str, str], list[float]] = {}
    try:
        for number in range(rounds):
            for name, count in PIECES.items():
                # The first of a turn meets colder caches: by turns.
                order = STATES if number % 2 == 0 else STATES[::-1]
                for state in order:
                    times.setdefault((state, name), []).append(workers[state].run(name, count))
    finally:
        for worker in workers.values():
            worker.close()
    results = {}
    for (state, name), spent in times.items():
        whole = name in ("sendto", "connect")
        bare = times["off", name]
        ratios = [one / other for one, other in zip(spent, bare, strict=True)]
        added = [one - other for one, other in zip(spent, bare, strict=True)]
        results[f"{state}: {name}"] = {
            "median": statistics.median(ratios) if whole else 0.0,
            "min": min(ratios) if whole else 0.0,
            "max": max(ratios) if whole else 0.0,
            # Of a whole call what the state adds; of the audit's part all of it.
            "ns": statistics.median(added if whole else spent),
            "limit": LIMITS.get((state, name), 0.0),
        }
    return results


def instructions() -> dict[str, float]:
    """Instructions a call, by valgrind: those of a long run less those of a short one."""
    counts = {}
    for state in ("off", "subscribed", "policy"):
        for name in PIECES:
            short, long = (_counted(state, name, count) for count in (200, 2200))
            counts[f"{state}: {name}"] = (long - short) / 2000
    return counts


def _counted(state: str, name: str, count: int) -> int:
    words = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
    done = subprocess.run(
        [*words, __file__, "--serve", state],
        input=f"{name} {count}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    collected = next(line for line in done.stderr.splitlines() if "Collected" in line)
    return int(collected.rsplit(":", 1)[1])


def show(results: dict[str, dict[str, float]]) -> None:
    print(f"{'':28}  median   min   max      ns  promised   (off is 1.00, lower is better)")
    for name, each in results.items():
        ratio = (
            f"{each['median']:6.2f}{each['min']:6.2f}{each['max']:6.2f}"
            if each["median"]
            else " " * 18
        )
        limit = f"{each['limit']:10.0f}" if each["limit"] else ""
        print(f"{name:28}  {ratio}{each['ns']:8.1f}{limit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--serve", choices=STATES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    results: dict[str, Any] = measure(options.rounds)
    counts = {}
    if options.instructions:
        if shutil.which("valgrind") is None:
            parser.error("valgrind is not installed")
        counts = instructions()
    if options.json:
        for name, count in counts.items():
            results[name]["instructions"] = count
        json.dump(results, sys.stdout, indent=2)
        print()
        return
    show(results)
    for name, count in counts.items():
        print(f"{name:28}  {count:8.0f} instructions a call")


if __name__ == "__main__":
    main()
