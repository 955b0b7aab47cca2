"""What a socket takes in memory, and what an import takes in time.

    .venv/bin/python -m tests.bench.footprint [--quick] [--json] [--only TEXT] [--rounds N]

Memory is the growth of a process's resident memory by thousands of sockets, in bytes more than
stock's for each; the kernel's own is not part of it. An import is the
processor time of one in a new interpreter.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench import harness, modes

SOCKETS = 4000
# These find room in what the imports have left free, which is not the same for both: with telemetry
# some megabytes.
WARM_UP = 10000

IMPORT = """
import time
begun = time.process_time()
import {module}
print(time.process_time() - begun)
"""

# At most: bytes more than stock's.
MEMORY = {"plain": 64, "metrics": 512, "spans": 512}


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _made(module: Any, count: int) -> list[Any]:
    return [module.socket() for _ in range(count)]


def _connected(module: Any, count: int) -> list[Any]:
    made = []
    with module.create_server(("127.0.0.1", 0), backlog=64) as server:
        for _ in range(count // 2):
            client = module.create_connection(server.getsockname())
            accepted, _ = server.accept()
            made += [client, accepted]
    return made


KINDS: dict[str, Callable[[Any, int], list[Any]]] = {"made": _made, "connected": _connected}


def _weigh(kind: str, name: str, mode: str) -> float:
    """Bytes of resident memory for each socket of a kind, in this process."""
    import resource
    import socket

    import tracesock

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = WARM_UP + SOCKETS + 1000
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    module: Any = tracesock if name == "tracesock" else socket

    def weigh() -> float:
        kept = KINDS[kind](module, WARM_UP)
        gc.collect()
        before = _resident()
        kept += KINDS[kind](module, SOCKETS)
        gc.collect()
        after = _resident()
        for each in kept:
            each.close()
        return (after - before) / SOCKETS

    if mode == "plain":
        return weigh()
    with modes.in_force(mode):
        return weigh()


def _in_new_process(*arguments: str) -> float:
    told = subprocess.run(
        [sys.executable, "-m", "tests.bench.footprint", "--weigh", *arguments],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return float(told.stdout)


def memory(quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Bytes more than stock's."""
    if not os.path.exists("/proc/self/statm"):
        yield "memory of a socket", {"skipped": "no /proc/self/statm here"}
        return
    for kind in ("connected",) if quick else KINDS:
        stock = _in_new_process(kind, "stock", "plain")
        for mode in ("plain", "spans") if quick else MEMORY:
            more = _in_new_process(kind, "tracesock", mode) - stock
            figures = {"median": round(more), "target": MEMORY[mode], "stock": round(stock)}
            yield f"memory of a socket, {kind}, {mode}", {**figures, "unit": "B more than stock"}


def imports(rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The ratio of the times of `import tracesock` and `import socket`."""

    def seconds(module: str) -> float:
        told = subprocess.run(
            [sys.executable, "-P", "-c", IMPORT.format(module=module)],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        return float(told.stdout)

    for module in ("socket", "tracesock"):
        seconds(module)  # from here on they are compiled, and read from memory
    ratios, times = [], []
    for _ in range(rounds):
        # The shortest of some: an interpreter's start is disturbed by anything.
        stock = min(seconds("socket") for _ in range(3))
        own = min(seconds("tracesock") for _ in range(3))
        ratios.append(own / stock)
        times.append((own, stock))
    figures: dict[str, Any] = harness.spread(ratios)
    figures["ns"] = round(statistics.median(own for own, _ in times) * 1e9)
    figures["stock_ns"] = round(statistics.median(stock for _, stock in times) * 1e9)
    yield "import", {**figures, "target": 1.3}


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--weigh", nargs=3, metavar=("KIND", "MODULE", "MODE"))
    options = parser.parse_args()
    if options.weigh is not None:
        print(_weigh(*options.weigh))
        return

    def figures() -> Iterator[tuple[str, dict[str, Any]]]:
        yield from imports(options.rounds or (3 if options.quick else 7))
        yield from memory(options.quick)

    harness.tell((each for each in figures() if options.only in each[0]), options.json)


if __name__ == "__main__":
    main()
