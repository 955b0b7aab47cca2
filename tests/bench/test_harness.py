"""The benchmarks' own machinery: rows, sides that are missing, subjects that fail."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import __main__ as runner
from tests.bench import harness
from tests.bench.harness import Case, Row, Skipped

ROOT = Path(__file__).resolve().parents[2]


def counting(calls: list[str], name: str) -> Case:
    return Case(
        "calls.append(name)",
        {"calls": calls, "name": name},
        calls=3,
        before=lambda: calls.append("before"),
        after=lambda: calls.append("after"),
        close=[lambda: calls.append("close")],
    )


def test_sides_take_turns_and_are_closed() -> None:
    calls: list[str] = []
    row = Row("a", {"one": lambda: counting(calls, "1"), "two": lambda: counting(calls, "2")})
    figures = harness.measure(row, 2)
    assert list(figures) == ["a"] and figures["a"]["median"] > 0
    # Of each round: a burst to warm up and twenty more, of three calls, on both sides.
    assert calls.count("1") == calls.count("2") == 2 * 21 * 3
    assert calls.count("before") == calls.count("after") == 2 * 2 * 21
    assert calls.count("close") == 4
    burst = ["before", *["1"] * 3, "after"]
    assert calls[:5] == burst and calls[5:10] == [each.replace("1", "2") for each in burst]
    assert calls[10] == "before" and calls[11] == "2"  # the other first, by turns


def test_one_at_a_time_where_both_do_not_fit() -> None:
    calls: list[str] = []
    sides = {name: (lambda name=name: counting(calls, name)) for name in "12"}
    harness.measure(Row("a", sides, bursts=1, apart=True), 1)
    assert calls.index("close") < calls.index("2")


def test_a_side_that_cannot_be_measured_is_left_out_alone() -> None:
    def missing() -> Case:
        raise Skipped("no such package")

    calls: list[str] = []
    sides = {"one": lambda: counting(calls, "1"), "two": missing}
    assert harness.measure(Row("a", sides), 1) == {"a": {"skipped": "no such package"}}
    sides["three"] = lambda: counting(calls, "3")
    figures = harness.measure(Row("a", sides), 1)
    assert figures["a: two"] == {"skipped": "no such package"}
    assert "median" in figures["a: three"]


def test_what_is_told_has_a_form() -> None:
    figures = harness.spread([1.0, 2.0, 4.0])
    assert figures == {"median": 2.0, "low": 1.5, "high": 3.0, "min": 1.0, "max": 4.0}
    assert harness.spread([3.0])["low"] == 3.0
    line = harness.line("name", {**figures, "target": 0.5, "ns": 1000.0, "stock_ns": 2000.0})
    assert "2.00" in line and "0.50" in line and "1,000" in line
    assert "no valgrind" in harness.line("name", {"skipped": "no valgrind"})
    assert socket.gethostname() not in " ".join(harness.machine().values())


def test_a_nested_or_plain_figure_of_a_subject_is_a_row() -> None:
    told = {"a": {"median": 1.0, "min": 0.5, "max": 2.0}, "b": {"c": {"skipped": "x"}, "d": 3}}
    rows = dict(runner.rows_of(told))
    assert rows["a"]["low"] == 0.5 and rows["b: c"] == {"low": None, "high": None, "skipped": "x"}
    assert rows["b: d"]["median"] == 3
    alone = {"e": {"median": None, "ns": 4.5, "limit": 5.0}}
    rows |= runner.rows_of(alone)
    assert rows["e"] == {"median": 4.5, "unit": "ns", "target": 5.0}
    for name, each in rows.items():
        assert harness.line(name, each)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_one_json_object_and_a_table(tmp_path: Path) -> None:
    arguments = ("--quick", "--subject", "connections", "--rounds", "1", "--only", "getaddrinfo")
    told = _run("--json", "--output", str(tmp_path / "out.json"), *arguments)
    assert told.returncode == 0, told.stderr
    result = json.loads(told.stdout)
    assert result == json.loads((tmp_path / "out.json").read_text())
    assert set(result["machine"]) == {"processor", "kernel", "python"}
    figures = result["subjects"]["connections"]["getaddrinfo, numeric"]
    assert {"median", "low", "high", "min", "max", "ns", "stock_ns"} <= set(figures)
    table = _run(*arguments)
    assert table.returncode == 0 and "getaddrinfo, numeric" in table.stdout


def test_a_subject_that_fails_is_told_and_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "takes", lambda subject, option: True)
    told = runner.run("no_such_subject", False)
    assert "No module named" in told["no_such_subject"]["skipped"]
    assert told["no_such_subject"]["failed"] is True


def test_every_subject_is_found() -> None:
    assert set(runner.ORDER) <= set(runner.subjects())
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(
            [sys.executable, "-m", "tests.bench", "--subject", "none"],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
            check=True,
        )
