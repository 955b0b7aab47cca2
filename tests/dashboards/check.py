"""`make check-dashboards`: every expression of panels, variables and rules, against real data.

Runs mixed load in a traced process, feeds two Prometheus servers with it, one by scrape and one by
remote write, and evaluates on both what Grafana and Prometheus would. Fails on an error, on an
empty result, and on a value that its unit cannot have.

    python -m tests.dashboards.check                 a minute of load, 200 values of an attribute
    python -m tests.dashboards.check --short         20 seconds of load, 40 values
    python -m tests.dashboards.check --long          an hour of load in 5 minutes

With root and iproute2 all of it runs in a network namespace of its own (network.py); without, the
expressions that need one are named, and evaluated as far as they can be.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.dashboards import boards, names_of, network, resolver, stack

ROOT = Path(__file__).parents[2]

# The alerts whose condition no load here brings about; their left side must have a value all the
# same. Each with what would bring it about.
NOT_BROUGHT_ABOUT = {
    "TracesockDrainLag": "a drain that is blocked for longer than 10 s, which stops the scrapes",
}
# What needs a network namespace: without root these are evaluated by their left side.
NEEDS_NAMESPACE = {
    "TracesockEphemeralPortsLow": "a narrow ip_local_port_range",
    "TracesockEphemeralPortsExhausted": "a narrow ip_local_port_range",
    "TracesockRetransmits": "a lossy way",
    "TracesockLookupSlow": "a slow name server",
    "TracesockLookupUnanswered": "a name server that fails",
}
PATIENCE = 120.0  # seconds more, where the machine is busy
SCRAPES = 8  # at least


@dataclass
class Report:
    """What was evaluated and what is wrong."""

    seconds: float = 0.0
    namespace: bool = False
    cap: int = 200
    expressions: int = 0
    samples: int = 0
    series: int = 0
    widest: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def wrong(self, what: object, why: str) -> None:
        self.problems.append(f"{what}: {why}")


@dataclass
class Window:
    """The time that is looked at, as a dashboard's."""

    start: float
    end: float
    step: float
    scrape: float

    def fill(self, expr: str, values: dict[str, str]) -> str:
        return boards.fill(expr, values, step=self.step, scrape=self.scrape)


# --- evaluating ---------------------------------------------------------------------------------


def values_of(result: list[dict[str, Any]]) -> list[float]:
    """The finite values of an answer."""
    points = [point for series in result for point in series.get("values", [series.get("value")])]
    return [value for value in (float(point[1]) for point in points) if math.isfinite(value)]


def check_unit(report: Report, what: object, unit: str, values: list[float]) -> None:
    """Whether values can be what the panel says they are."""
    low, high = {
        "percentunit": (0.0, 1.05),  # a full accept queue holds one more than its limit
        "s": (0.0, 1e6),
        "cps": (0.0, 1e7),
        "Bps": (0.0, 1e12),
        "short": (0.0, 1e7),
        "none": (0.0, 1e7),
    }[unit]
    outside = [value for value in values if not low <= value <= high]
    # 5 waiting connections of a limit of 4 is the kernel's own count.
    if unit == "percentunit" and outside and max(outside) <= 1.25 and "queue" in str(what):
        return
    if outside:
        report.wrong(what, f"{outside[0]:g} is no {unit}")


def check_panels(report: Report, server: stack.Prometheus, window: Window) -> None:
    for name, board in boards.boards().items():
        everything = boards.everything(board)
        chosen = check_variables(report, server, window, name, board)
        for target in (each for each in boards.targets() if each.board == name):
            unit = target.panel["fieldConfig"]["defaults"]["unit"]
            values = evaluate(report, server, window, target, {**everything, **chosen["one"]})
            if not values:
                report.wrong(f"{server.name}: {target}", "no data")
            if target.panel["type"] != "table":
                check_unit(report, f"{server.name}: {target}", unit, values)
            # One choice in each variable: no error, whether or not there is data for it.
            evaluate(report, server, window, target, chosen["all"], at_once=True)


def evaluate(
    report: Report,
    server: stack.Prometheus,
    window: Window,
    target: boards.Target,
    values: dict[str, str],
    *,
    at_once: bool = False,
) -> list[float]:
    """The finite values over the window; `at_once`: at its end alone."""
    expr = window.fill(target.expr, values)
    if "$" in expr:
        report.wrong(target, f"a variable has no value: {expr}")
        return []
    report.expressions += 1
    try:
        if at_once:
            return values_of(server.instant(expr, window.end))
        found = values_of(server.range(expr, window.start, window.end, window.step))
    except ValueError as error:
        report.wrong(f"{server.name}: {target}", f"{error}: {expr}")
        return []
    report.samples += len(found)
    return found


def check_variables(
    report: Report,
    server: stack.Prometheus,
    window: Window,
    name: str,
    board: dict[str, Any],
) -> dict[str, dict[str, str]]:
    """A value for each variable: of those without `All` under "one", of all of them under "all"."""
    values = boards.everything(board)
    one: dict[str, str] = {}
    for variable in boards.variables(board).values():
        if variable["type"] != "query":
            continue
        what = f"{server.name}: {name}: variable {variable['name']}"
        selector, label = boards.label_values(variable["query"]["query"])
        report.expressions += 1
        try:
            found = server.label_values(
                label, window.fill(selector, {**values, **one}), window.start, window.end
            )
        except ValueError as error:
            report.wrong(what, str(error))
            continue
        if not found:
            report.wrong(what, "no values")
            continue
        # The demo's own peer has everything.
        choice = "localhost" if "localhost" in found else found[0]
        if variable["name"] == "peer" and not variable["includeAll"]:
            one["peer"] = boards.escaped(choice)
        values = {**values, **one}
        one_of = boards.escaped(choice)
        if variable["name"] == "instance":
            one_of = boards.escaped(next((each for each in found if ":" in each), found[0]))
        chosen = {variable["name"]: one_of}
        values |= {} if variable["includeAll"] else chosen
        report.__dict__.setdefault("_chosen", {}).update(chosen)
    every = dict(report.__dict__.pop("_chosen", {}))
    return {"one": one, "all": {**boards.everything(board), **every}}


def check_rules(
    report: Report, server: stack.Prometheus, window: Window, rules: list[Path]
) -> None:
    states = {
        rule["name"]: rule for group in server.get("rules")["groups"] for rule in group["rules"]
    }
    for path in rules:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                name = rule.get("record") or rule["alert"]
                what = f"{server.name}: rule {name}"
                state = states.get(name)
                if state is None or state["health"] != "ok":
                    report.wrong(what, f"is not healthy: {state}")
                expr, why = rule["expr"], NOT_BROUGHT_ABOUT.get(name, "")
                if not report.namespace:
                    why = why or NEEDS_NAMESPACE.get(name, "")
                if why:
                    report.skipped[name] = why
                    expr = left_side(expr)
                report.expressions += 1
                try:
                    found = values_of(server.range(expr, window.start, window.end, window.step))
                except ValueError as error:
                    report.wrong(what, f"{error}: {expr}")
                    continue
                report.samples += len(found)
                if not found:
                    report.wrong(what, f"no data: {expr}")


def left_side(expr: str) -> str:
    """A condition without its threshold: what is compared."""
    return expr.partition(" > ")[0]


def check_names(report: Report, server: stack.Prometheus, window: Window) -> None:
    """Every series is one that docs/reference/telemetry.md names, and none has too many values."""
    found = server.label_values("__name__", '{job=~".+"}', window.start, window.end)
    found = [name for name in found if ":" not in name]  # the recording rules' own
    for name in names_of.unknown(found):
        report.wrong(f"{server.name}: {name}", "is no metric of the reference")
    for name in names_of.missing(found):
        report.wrong(f"{server.name}: {name}", "was never told")
    for label in ("server_address", "dns_question_name", "rule", "network_local_port"):
        found = server.label_values(label, '{job="shop"}', window.start, window.end)
        report.widest[label] = max(len(found), report.widest.get(label, 0))
        # The cap, and what shares the one value above it.
        if len(found) > report.cap + 1:
            report.wrong(
                f"{server.name}: {label}", f"{len(found)} values: more than {report.cap} + 1"
            )
    series = server.range('count({job="shop"})', window.start, window.end, window.step)
    report.series = max(report.series, int(max(values_of(series), default=0)))


# --- running ------------------------------------------------------------------------------------


class AuditLogs:
    """Verifies the log of the load as it grows, a damaged copy, and says so to who scrapes it."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.log = log
        self._folder = folder / "served"
        self._folder.mkdir()
        handler = partial(_Quiet, directory=str(self._folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_address[1]
        self._work = folder
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, daemon=True),
            threading.Thread(target=self._verify, daemon=True),
        ]
        self.failures: list[str] = []
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(60)

    def _verify(self) -> None:
        # Seldom: a verification holds the log's lock, and whoever writes waits for it.
        pause = 2.0
        while not self._stop.wait(pause):
            try:
                self._once()
            except Exception as error:
                self.failures.append(f"audit verify: {type(error).__name__}: {error}")
                return
            pause = 10.0

    def _once(self) -> None:
        lines: list[bytes] = []
        if self.log.exists():
            with self.log.open("rb") as file:
                lines = file.read(200_000).splitlines(keepends=True)[:-1]
        if len(lines) < 10:
            return
        damaged = self._work / "damaged.jsonl"
        damaged.write_bytes(b"".join([*lines[:4], *lines[5:]]))
        parts = []
        for path, status in ((self.log, 0), (damaged, 1)):
            told = self._work / f"{path.name}.prom"
            done = subprocess.run(
                [sys.executable, "-m", "tracesock", "audit", "verify", str(path)]
                + ["--textfile", str(told), "--service-name", "shop"],
                capture_output=True,
                text=True,
                timeout=60,
                cwd=ROOT,
            )
            if done.returncode != status:
                raise RuntimeError(f"{path.name}: status {done.returncode}: {done.stdout[-500:]}")
            parts.append(told.read_text())
        # A third, that nobody has verified for three hours.
        parts.append(_aged(parts[0].replace("audit.jsonl", "forgotten.jsonl"), 3 * 3600))
        one = self._folder / "audit.prom.part"
        one.write_text(_merged(parts))
        one.rename(self._folder / "audit.prom")


def _aged(text: str, seconds: float) -> str:
    lines = []
    for line in text.splitlines():
        if line.startswith("tracesock_audit_log_verified"):
            series, _, value = line.rpartition(" ")
            line = f"{series} {float(value) - seconds}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _merged(parts: list[str]) -> str:
    """Several files as one: the lines of a metric stand together, its HELP and TYPE once."""
    families: dict[str, list[str]] = {}
    for part in parts:
        for line in part.splitlines():
            name = line.split()[2] if line.startswith("#") else line.partition("{")[0]
            known = families.setdefault(name, [])
            if line not in known:
                known.append(line)
    return "\n".join(line for lines in families.values() for line in lines) + "\n"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None: ...


@contextlib.contextmanager
def running(
    report: Report, folder: Path, seconds: float, scrape: float, rules: list[Path]
) -> Iterator[Callable[[], list[stack.Prometheus]]]:
    """The load and the servers; what it yields waits for the load and returns the servers."""
    with contextlib.ExitStack() as parts:
        if report.namespace:
            names = resolver.Resolver("127.0.0.1", 53)
            parts.callback(names.close)
        metrics = stack.free_port()
        command = [sys.executable, "-m", "tests.dashboards.load", "--metrics", str(metrics)]
        command += ["--seconds", str(seconds + PATIENCE), "--folder", str(folder)]
        command += ["--cap", str(report.cap)]
        command += ["--namespace"] * report.namespace
        load = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

        def end_load() -> None:
            assert load.stdin is not None
            with contextlib.suppress(OSError):
                load.stdin.close()
            try:
                load.wait(60)
            except subprocess.TimeoutExpired:
                load.kill()
                load.wait()

        parts.callback(end_load)
        logs = AuditLogs(folder, folder / "audit.jsonl")
        parts.callback(logs.close)
        targets = {"shop": metrics, "audit-logs": logs.port}
        written = stack.Prometheus(
            folder, "remote write", stack.configuration({}, interval=scrape, rules=rules)
        )
        parts.callback(written.stop)
        written.start()
        scraping = stack.Prometheus(
            folder,
            "scrape",
            stack.configuration(targets, interval=scrape, rules=rules, remote=written.port),
        )
        parts.callback(scraping.stop)
        scraping.start()

        def wait() -> list[stack.Prometheus]:
            assert load.stdin is not None and load.stdout is not None
            begun = time.monotonic()
            while load.poll() is None and time.monotonic() < begun + seconds + PATIENCE:
                if time.monotonic() >= begun + seconds and not lacking(written):
                    break
                time.sleep(0.5)
            report.seconds = round(time.monotonic() - begun, 1)
            if missing := lacking(written):
                report.wrong("remote write", f"{missing}; {scraping.said()} {written.said()}")
            with contextlib.suppress(OSError):
                load.stdin.write("stop\n")
                load.stdin.flush()
            told = load.stdout.readline().strip()
            if told != "done":
                report.wrong("load", told or "it ended early")
            report.problems += logs.failures
            return [scraping, written]

        yield wait
        end_load()
        assert load.stdout is not None
        for line in load.stdout.read().splitlines():
            report.wrong("load", line)


def lacking(server: stack.Prometheus) -> str:
    """What the server has not seen often enough yet; empty where it has seen everything."""
    for series, scrapes in (
        ('tracesock_audit_decisions_total{action="would_deny"}', SCRAPES),
        ('tracesock_connect_duration_seconds_count{server_address="tracesock.overflow"}', SCRAPES),
        ('dns_lookup_duration_seconds_count{dns_question_name="tracesock.overflow"}', SCRAPES),
        ('tracesock_telemetry_dropped_total{signal="logs"}', SCRAPES),
        ('tracesock_audit_log_intact{log="damaged.jsonl"}', 2),  # a gauge
    ):
        found = values_of(server.instant(f"max(count_over_time({series}[1h]))", time.time()))
        if not found or found[0] < scrapes:
            return f"{series}: {found[0] if found else 0:g} of {scrapes} scrapes"
    return ""


def check_exposition(report: Report, folder: Path, port: int) -> None:
    """promtool's own opinion of what the process exposes."""
    with stack._open(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60
    )
    report.expressions += 1
    for line in (done.stdout + done.stderr).decode().splitlines():
        if not tolerated(line):
            report.wrong("promtool check metrics", line)


def tolerated(line: str) -> bool:
    """`tracesock.connection.count` and `target_info` have their names from OpenTelemetry."""
    return line.startswith(("tracesock_connection_count non-histogram", "target_info no help"))


def run(seconds: float, scrape: float, cap: int) -> Report:
    report = Report(seconds=seconds, namespace=network.inside(), cap=cap)
    with tempfile.TemporaryDirectory(prefix="tracesock-check-") as name:
        folder = Path(name)
        start = time.time()
        rules = stack.compressed_rules(folder, max(SCRAPES * scrape, seconds / 5))
        with running(report, folder, seconds, scrape, rules) as wait:
            servers = wait()
            step = max(scrape, round(seconds / 120, 1))
            window = Window(start, time.time(), step, scrape)
            targets = servers[0].get("targets")["activeTargets"]
            for target in targets:
                if target["labels"]["job"] == "shop":
                    check_exposition(
                        report, folder, int(target["labels"]["instance"].split(":")[1])
                    )
            for server in servers:
                check_names(report, server, window)
                check_panels(report, server, window)
                check_rules(report, server, window, rules)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.dashboards.check")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="20 seconds of load")
    length.add_argument("--long", action="store_true", help="5 minutes of load")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    arguments = parser.parse_args()
    if needed := stack.missing():
        print(f"check-dashboards: missing: {needed}", file=sys.stderr)
        return 2
    if not network.inside() and not network.missing():
        words = network.command([sys.executable, "-m", "tests.dashboards.check", *sys.argv[1:]])
        os.execvp(words[0], words)
    # What was started is ended, too, when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Each series costs time when it is scraped: fewer of them where time is short.
    if arguments.long:
        report = run(300.0, scrape=5.0, cap=200)
    elif arguments.short:
        report = run(20.0, scrape=2.0, cap=40)
    else:
        report = run(60.0, scrape=4.0, cap=200)
    if arguments.json:
        print(json.dumps(report.__dict__))
    else:
        where = "a network namespace" if report.namespace else f"no namespace ({network.missing()})"
        print(f"{report.seconds:g} s of load in {where}")
        print(f"{report.expressions} expressions evaluated, {report.samples} samples")
        print(f"{report.series} series; distinct values: {report.widest}; cap {report.cap}")
        for name, why in report.skipped.items():
            print(f"without its threshold: {name}: it needs {why}")
        for problem in report.problems:
            print(f"WRONG: {problem}")
        print("not right" if report.problems else "all have data, none an error")
    return int(bool(report.problems))


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
