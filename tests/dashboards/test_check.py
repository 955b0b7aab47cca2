"""The short form of `make check-dashboards`: real load, real Prometheus, every expression."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

for needed in ("yaml", "opentelemetry.exporter.prometheus"):
    pytest.importorskip(needed, reason=f"{needed}: pip install -e '.[dev]'")

from tests.dashboards import boards, check, stack  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.skipif(bool(stack.missing()), reason=f"missing: {stack.missing()}")
def test_every_expression_has_data() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.dashboards.check", "--short", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=450,
    )
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert done.returncode == 0
    panels = sum(1 for _ in boards.targets())
    # Two servers, all values and one of each; and the rules.
    assert report["expressions"] > 2 * 2 * panels
    assert report["samples"] > 2 * panels
    assert report["skipped"].keys() <= check.NOT_BROUGHT_ABOUT.keys() | check.NEEDS_NAMESPACE.keys()


def test_intervals_are_grafanas() -> None:
    filled = boards.fill("rate(a[$__rate_interval])", {}, step=15, scrape=15)
    assert filled == "rate(a[60s])"
    filled = boards.fill("rate(a[$__rate_interval])", {}, step=300, scrape=15)
    assert filled == "rate(a[315s])"
    filled = boards.fill(
        'a{job=~"$job", x="${peer}"}', {"job": ".+", "peer": "b"}, step=1, scrape=1
    )
    assert filled == 'a{job=~".+", x="b"}'


@pytest.mark.parametrize(
    ("unit", "value", "wrong"),
    [
        ("percentunit", 1.0, False),
        ("percentunit", 40.0, True),
        ("s", -1.0, True),
        ("cps", 3.0, False),
    ],
)
def test_a_value_that_its_unit_cannot_have_is_told(unit: str, value: float, wrong: bool) -> None:
    report = check.Report()
    check.check_unit(report, "panel", unit, [value])
    assert bool(report.problems) == wrong


def test_missing_data_is_told() -> None:
    assert check.values_of([]) == []
    assert check.values_of([{"values": [[0, "NaN"], [1, "+Inf"]]}]) == []
    assert check.values_of([{"values": [[0, "NaN"], [1, "2.5"]]}, {"value": [1, "3"]}]) == [2.5, 3]
