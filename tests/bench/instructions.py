"""User instructions of each call, by valgrind's callgrind, as ratios to the stock module's.

    .venv/bin/python -m tests.bench.instructions [--json] [--write]

No noise: a busy machine counts the same. The program that is counted forks for each measurement, so
that start-up is paid once: a child makes n calls or 2n, in the order n, 2n, 2n, n, and what grows
from child to child cancels out, like everything that a child does besides the calls. "recorded" is
with the recorder on, below a sampled span, every send a record; its drain does not run.

--write makes tests/bench/instructions.json, with which test_instructions.py compares.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench import harness
from tests.bench.counted import CALLS, CHUNKS, SUBJECTS

BASELINE = Path(__file__).with_suffix(".json")
ROOT = Path(__file__).resolve().parents[2]
MODES = ("stock", "plain", "recorded")

# What is to be reached, of stock's instructions: (plain, recorded).
TARGETS = {"send": (0.30, 0.40)}


class Missing(Exception):
    """valgrind cannot count here; the text says why."""


# --- counting -------------------------------------------------------------------------------------


def available() -> str | None:
    """Why nothing can be counted here, or None."""
    if not shutil.which("valgrind"):
        return "valgrind is not installed (Debian: apt install valgrind)"
    if not hasattr(os, "fork"):
        return "this platform has no fork"
    return None


def count(mode: str, wanted: list[str], python: str = sys.executable) -> dict[str, float]:
    """User instructions of a call, by subject."""
    with tempfile.TemporaryFile("w+") as log:
        told = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                os.path.realpath(python) if python != sys.executable else python,
                "-m",
                "tests.bench.counted",
                mode,
                *wanted,
            ],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=False,
        )
        log.seek(0)
        text = log.read()
    if told.returncode != 0:
        raise Missing(f"valgrind failed on {mode}: {text[-2000:]}")
    collected = dict(re.findall(r"==(\d+)== Collected : (\d+)", text))
    totals: dict[str, float] = dict.fromkeys(wanted, 0.0)
    for each in told.stdout.splitlines():
        pid, calls, name = each.split(" ", 2)
        sign = 1 if int(calls) == 2 * CALLS else -1
        totals[name] += sign * int(collected[pid]) / (2 * CHUNKS * CALLS)
    return totals


def figures(wanted: list[str], python: str = sys.executable) -> dict[str, dict[str, float]]:
    """Instructions of stock, and the ratios of tracesock: plain, and recorded."""
    counts = {mode: count(mode, wanted, python) for mode in MODES}
    return {
        name: {
            "stock": round(counts["stock"][name], 1),
            **{mode: round(counts[mode][name] / counts["stock"][name], 4) for mode in MODES[1:]},
        }
        for name in wanted
    }


def setup_name() -> str:
    """What a count depends on: the interpreter's build, and the compiler of the extension."""
    compiler = os.environ.get("CXX", "c++")
    try:
        version = subprocess.run(
            [compiler, "-dumpfullversion"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        version = "unknown"
    shared = "shared" if sysconfig.get_config_var("Py_ENABLE_SHARED") else "static"
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    optimised = "optimized" if "--enable-optimizations" in arguments else "plain"
    return (
        f"{platform.python_implementation()} {platform.python_version()} ({shared}, {optimised}), "
        f"{platform.python_compiler()}; extension {os.path.basename(compiler)} {version}; "
        f"{platform.machine()}"
    )


def _rows(wanted: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    reason = available()
    if reason is not None:
        yield "user instructions", {"skipped": reason}
        return
    for name, each in figures(wanted).items():
        for index, mode in enumerate(MODES[1:]):
            row: dict[str, Any] = harness.spread([each[mode]])
            row["instructions"] = round(each[mode] * each["stock"])
            row["stock_instructions"] = round(each["stock"])
            if name in TARGETS:
                row["target"] = TARGETS[name][index]
            yield f"instructions of {name}, {mode}", row


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--write", action="store_true", help=f"make {BASELINE.name} anew")
    options = parser.parse_args()
    wanted = [name for name in SUBJECTS if options.only in name]
    if options.quick:
        wanted = [name for name in wanted if name in ("send", "recv", "recv_into", "sendto")]
    if options.write:
        known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
        known[setup_name()] = figures(list(SUBJECTS))
        BASELINE.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        return
    harness.tell(_rows(wanted), options.json)


if __name__ == "__main__":
    main()
