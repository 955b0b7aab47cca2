"""Every benchmark, one after the other: a table and one JSON object of all.

    .venv/bin/python -m tests.bench [--quick] [--json] [--output FILE] [--subject NAME ...]
                                    [--only TEXT] [--rounds N]

Each subject is a module beside this one and runs in a process of its own, because telemetry,
policies and patches are a process's: `python -m tests.bench.SUBJECT` runs one by itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench import harness

HERE = Path(__file__).resolve().parent
# What others import, and what asks for figures as a test.
NO_SUBJECTS = {"__main__", "harness", "sockets", "counted"}
# The order of the table; what is not named comes after.
ORDER = [
    "calls",
    "connections",
    "batches",
    "threads",
    "echo",
    "modes",
    "naive",
    "others",
    "footprint",
    "instructions",
]
# What takes minutes in its full form: run so only where it is named, never in a quick run.
LONG = {"dashboard"}
LONGEST = 900  # seconds of one subject


def subjects() -> list[str]:
    """The names of the benchmarks."""
    found = {
        path.stem
        for path in HERE.glob("*.py")
        if path.stem not in NO_SUBJECTS and not path.stem.startswith(("_", "test_"))
    }
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def takes(subject: str, option: str) -> bool:
    """Whether a subject knows an option: those on the harness know all of the harness's."""
    text = (HERE / f"{subject}.py").read_text(encoding="utf-8")
    return "harness.main(" in text or "harness.parser(" in text or f'"{option}"' in text


def rows_of(told: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a subject's JSON; figures in a form of its own are told by their names."""
    for name, each in told.items():
        if isinstance(each, dict) and each.get("median", 0) is None:
            # A time with no other to compare it with.
            limit = {"target": each["limit"]} if each.get("limit") else {}
            yield name, {"median": each["ns"], "unit": "ns", **limit}
        elif isinstance(each, dict) and ("median" in each or "skipped" in each):
            yield name, {"low": each.get("min"), "high": each.get("max"), **each}
        elif isinstance(each, dict):
            for inner, figures in rows_of(each):
                yield f"{name}: {inner}", figures
        elif isinstance(each, (int, float)) and not isinstance(each, bool):
            yield name, {"median": each, "unit": ""}


def run(subject: str, quick: bool, only: str = "", rounds: int | None = None) -> dict[str, Any]:
    """One subject's figures, or why there are none."""
    command = [sys.executable, "-m", f"tests.bench.{subject}", "--json"]
    if only:
        if not takes(subject, "--only"):
            return {}
        command += ["--only", only]
    if rounds is None and quick and not takes(subject, "--quick"):
        rounds = 2
    if rounds is not None and takes(subject, "--rounds"):
        command += ["--rounds", str(rounds)]
    if quick and takes(subject, "--quick"):
        command.append("--quick")
    try:
        told = subprocess.run(
            command,
            cwd=HERE.parents[1],
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {subject: {"skipped": f"took longer than {LONGEST} s"}}
    try:
        if told.returncode == 0:
            figures: dict[str, Any] = json.loads(told.stdout)
            return figures
    except json.JSONDecodeError:
        pass
    sys.stderr.write(told.stderr)
    last = (told.stderr.strip().splitlines() or ["no output"])[-1]
    return {subject: {"skipped": f"failed with status {told.returncode}: {last}", "failed": True}}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--output", type=Path, help="write the JSON object there as well")
    parser.add_argument(
        "--subject", action="append", choices=subjects(), help="only this one; may be given again"
    )
    parser.add_argument("--only", default="", help="rows whose name contains this text")
    parser.add_argument("--rounds", type=int, help="rounds of each row")
    options = parser.parse_args()
    machine = harness.machine()
    told: dict[str, Any] = {"machine": machine, "subjects": {}}
    if not options.json:
        print(", ".join(machine.values()))
        print("1.00 is the stock socket module of the same interpreter; lower is better.\n")
        print(harness.HEADING)
    failed = False
    for subject in options.subject or subjects():
        long = subject in LONG and not options.subject
        if long and options.quick:
            continue
        begun = time.monotonic()
        figures = run(subject, options.quick or long, options.only, options.rounds)
        if not figures:
            continue
        took = time.monotonic() - begun
        told["subjects"][subject] = figures
        failed = failed or any(
            isinstance(each, dict) and "failed" in each for each in figures.values()
        )
        if not options.json:
            print(f"--- {subject} ({took:.0f} s)")
            for name, each in rows_of(figures):
                print(harness.line(name, each), flush=True)
    if options.json:
        json.dump(told, sys.stdout, indent=2)
        print()
    if options.output is not None:
        options.output.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
