"""Whether a Prometheus has the names that the dashboards want, whatever feeds it.

python -m tests.dashboards.names_of http://localhost:9090
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Iterable

from dashboards import names

_OURS = ("tracesock", "dns_lookup", "dns.lookup")


def unknown(found: Iterable[str]) -> list[str]:
    """Names of tracesock's that the reference has not: of another translation, or new."""
    known = names.METRIC_OF.keys() | names.WITH_SNAPSHOTS.keys()
    return sorted(name for name in found if name.startswith(_OURS) and name not in known)


def missing(found: Iterable[str]) -> list[str]:
    """Names that nobody has told."""
    return sorted(names.METRIC_OF.keys() - set(found))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.dashboards.names_of")
    parser.add_argument("url", help="where Prometheus is, such as http://localhost:9090")
    url = parser.parse_args().url
    with urllib.request.urlopen(f"{url}/api/v1/label/__name__/values", timeout=30) as answer:
        found = [name for name in json.load(answer)["data"] if ":" not in name]
    for name in unknown(found):
        print(f"not a name of the dashboards: {name}")
    for name in missing(found):
        print(f"not told (yet): {name}")
    return int(bool(unknown(found)) or not any(name.startswith(_OURS) for name in found))


if __name__ == "__main__":
    sys.exit(main())
