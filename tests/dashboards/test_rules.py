"""Prometheus rules: promtool's opinion, its tests, and that none is untested."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="pyyaml: pip install -e '.[dev]'")
promql_parser = pytest.importorskip("promql_parser", reason="pip install -e '.[dev]'")

from dashboards import names  # noqa: E402
from tests.dashboards import boards  # noqa: E402
from tests.dashboards.test_lint import selectors  # noqa: E402

FOLDER = Path(__file__).parents[2] / "dashboards" / "prometheus"
FILES = sorted(FOLDER.glob("*.rules.yml"))
RULES: dict[str, dict[str, Any]] = {
    rule.get("record") or rule["alert"]: rule
    for path in FILES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
}
ALERTS = {name: rule for name, rule in RULES.items() if "alert" in rule}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus"
)


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *words], capture_output=True, text=True, timeout=100, cwd=FOLDER
    )


@needs_promtool
def test_promtool_check_rules() -> None:
    done = promtool("check", "rules", *(path.name for path in FILES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


@needs_promtool
def test_promtool_test_rules() -> None:
    done = promtool("test", "rules", "rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("change", [("> 0.05", "> 0.5"), ("> 7200", "> 72000"), ("== 0", "== 1")])
def test_the_tests_notice_another_threshold(change: tuple[str, str], tmp_path: Path) -> None:
    for path in FOLDER.glob("*.yml"):
        (tmp_path / path.name).write_text(path.read_text())
    alerts = tmp_path / "alerts.rules.yml"
    assert change[0] in alerts.read_text()
    alerts.write_text(alerts.read_text().replace(*change))
    done = promtool("test", "rules", str(tmp_path / "rules_test.yml"))
    assert done.returncode != 0


def test_every_rule_has_a_test() -> None:
    text = (FOLDER / "rules_test.yml").read_text()
    fired = {
        test["alertname"]
        for case in yaml.safe_load(text)["tests"]
        for test in case["alert_rule_test"]
        if test["exp_alerts"]
    }
    assert fired == ALERTS.keys()
    for name in RULES.keys() - ALERTS.keys():
        assert f"expr: {name}" in text or f"({name}" in text, name


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_say_what_it_is_about_and_where_to_look(name: str) -> None:
    rule = ALERTS[name]
    assert name.startswith("Tracesock")
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    uids = {board["uid"] for board in boards.boards().values()}
    assert rule["annotations"]["dashboard"] in uids
    assert "{{ $labels.job }}" in rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


@pytest.mark.parametrize("name", RULES)
def test_rules_read_what_is_told(name: str) -> None:
    for selector, _ in selectors(promql_parser.parse(RULES[name]["expr"])):
        assert selector.name in names.METRIC_OF or selector.name in RULES, selector.name
        if selector.name in names.LABELS:
            for matcher in selector.matchers.matchers:
                assert matcher.name in names.LABELS[selector.name]


def test_the_alerts_that_were_asked_for() -> None:
    """Failure ratio, look-up p99, stall time, retransmit ratio, ephemeral ports, accept queue,
    dropped telemetry, policy denials, chain broken."""
    assert {
        "TracesockConnectFailures",
        "TracesockLookupSlow",
        "TracesockSendStalls",
        "TracesockRetransmits",
        "TracesockEphemeralPortsLow",
        "TracesockAcceptQueueFull",
        "TracesockTelemetryDropped",
        "TracesockPolicyDenials",
        "TracesockAuditChainBroken",
    } <= ALERTS.keys()


def test_the_readme_lists_the_alerts() -> None:
    text = (FOLDER.parent / "README.md").read_text()
    listed = re.findall(r"^\| (Tracesock\w+) \| .+ \| (\w+) \|$", text, re.M)
    assert dict(listed) == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}
    assert len(listed) == len(ALERTS)
