"""The dashboard with a million spans stored; tests/dashboard/bench.py is the whole of it.

    .venv/bin/python -m tests.bench.dashboard [--quick] [--json]

These are no ratios but figures with a bound: first paint under 2 s, a filter under 500 ms, 20,000
spans a second with the page open, memory under 300 MB. --quick stores a twentieth.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from tests.dashboard import bench


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="tracesock-bench-"))
    try:
        figures = bench.run(
            50_000 if options.quick else 1_000_000,
            3 if options.quick else 20,
            directory / "bench.sqlite3",
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if not options.json:
        print(bench.table(figures))
        return
    rows = {
        "first paint, slowest screen": (figures["first_paint_ms"], "ms"),
        "filter, slowest": (figures["filter_ms"], "ms"),
        "ingest with a page open": (figures["ingest_spans_per_second"], "spans/s"),
        "ingest with a core of its own": (figures["fill_spans_per_cpu_second"], "spans/s"),
        "memory, highest": (figures["memory_mb"], "MB"),
    }
    print(
        json.dumps(
            {
                f"{figures['spans_stored']} spans: {name}": {"median": round(value), "unit": unit}
                for name, (value, unit) in rows.items()
            }
        )
    )


if __name__ == "__main__":
    main()
