"""Runs the behaviours whose name has one of the given texts in it, all of them without: a line of
JSON for each, {"name", "steps", "difference"}. Ends with status 1 where the modules differ."""

from __future__ import annotations

import json
import sys

from tests.behaviours import collect, difference


def main() -> int:
    differ = 0
    for name in collect():
        if len(sys.argv) > 1 and not any(each in name for each in sys.argv[1:]):
            continue
        steps, complaint = difference(name)
        differ += bool(complaint)
        print(json.dumps({"name": name, "steps": steps, "difference": complaint}), flush=True)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
