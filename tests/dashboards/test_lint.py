"""The rules of Grafana's dashboard linter, and those of this project, over the rendered JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("promql_parser", reason="promql-parser: pip install -e '.[dev]'")
pytest.importorskip("grafana_foundation_sdk", reason="pip install -e '.[dev]'")
import promql_parser

from dashboards import names
from dashboards.__main__ import rendered, stale
from tests.dashboards import boards
from tracesock.instrumentation import semconv

BOARDS = boards.boards()
TARGETS = list(boards.targets())
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in boards.panels(board)]
# Of Grafana's units, those that are used here.
UNITS = {"cps", "percentunit", "s", "Bps", "short", "none"}
COUNTERS = {
    series
    for metric in semconv.METRICS
    for series in names.series(metric)
    if series.endswith(("_total", "_bucket", "_sum", "_count"))
    and series != names.base(semconv.CONNECTION_COUNT)
}
EXTRA_LABELS = {"job", "instance", "le", "log", "__name__"}


def ident(value: object) -> str:
    if isinstance(value, tuple):
        return f"{value[0]}: {value[1]['title']}"
    return str(value)


def parsed(target: boards.Target) -> Any:
    values = boards.everything(BOARDS[target.board]) | {"peer": "localhost"}
    return promql_parser.parse(boards.fill(target.expr, values, step=15, scrape=15))


def selectors(node: Any, parents: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each selector of series below a node, with what it stands in, outermost first."""
    if type(node).__name__ == "VectorSelector":
        yield node, parents
        return
    below = [
        getattr(node, name)
        for name in ("expr", "lhs", "rhs", "vector_selector", "param")
        if hasattr(node, name)
    ]
    for child in [*below, *(getattr(node, "args", None) or [])]:
        if child is not None and not isinstance(child, (int, float, str)):
            yield from selectors(child, (*parents, node))


# --- what is committed --------------------------------------------------------------------------


def test_what_is_rendered_is_what_is_committed() -> None:
    assert stale(rendered()) == [], "run `python -m dashboards`"


def test_the_boards_that_were_asked_for() -> None:
    assert BOARDS.keys() == {"overview", "peer", "dns", "audit", "health"}
    uids = [board["uid"] for board in BOARDS.values()]
    assert len(set(uids)) == len(uids)
    for board in BOARDS.values():
        assert board["title"].startswith("tracesock / ") and board["description"]
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        titles = [panel["title"] for panel in boards.panels(board)]
        assert len(set(titles)) == len(titles)


# --- the dashboard linter's rules ---------------------------------------------------------------


@pytest.mark.parametrize("name", BOARDS)
def test_templated_data_source(name: str) -> None:
    """template-datasource-rule."""
    sources = [each for each in BOARDS[name]["templating"]["list"] if each["type"] == "datasource"]
    assert sources[0]["name"] == "prometheus_datasource"
    for source in sources:
        assert source["name"] == f"{source['query']}_datasource"
        assert source["label"] == f"{source['query'].title()} data source"


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("variable", ["job", "instance"])
def test_templated_job_and_instance(name: str, variable: str) -> None:
    """template-job-rule, template-instance-rule."""
    found = boards.variables(BOARDS[name])[variable]
    assert found["type"] == "query"
    assert found["datasource"]["uid"] == "${prometheus_datasource}"
    assert found["label"] == variable.title()
    assert found["multi"] is True and found["includeAll"] is True
    assert found["allValue"] == ".+"


@pytest.mark.parametrize("name", BOARDS)
def test_service_and_peer_are_templated_too(name: str) -> None:
    found = boards.variables(BOARDS[name])
    assert {"service", "peer"} <= found.keys()
    for variable in found.values():
        assert variable["label"]
        if variable["type"] == "query":
            # template-on-time-change-reload-rule, template-label-promql-rule
            assert variable["refresh"] == 2
            selector, label = boards.label_values(variable["query"]["query"])
            values = dict.fromkeys(found, ".+")
            promql_parser.parse(boards.fill(selector, values, step=15, scrape=15))
            assert label in {"job", "instance", "server_address", "dns_question_name"}


@pytest.mark.parametrize("name", BOARDS)
def test_no_variable_is_unused(name: str) -> None:
    board = BOARDS[name]
    for variable in boards.variables(board):
        uses = [
            target.expr
            for kind in ("prometheus", "loki")
            for target in boards.targets(kind)
            if target.board == name
        ]
        uses += [str(panel["datasource"]) for panel in boards.panels(board)]
        assert any(f"${variable}" in use or f"${{{variable}}}" in use for use in uses), variable


@pytest.mark.parametrize("name", BOARDS)
def test_not_editable(name: str) -> None:
    """uneditable-dashboard-rule: what is changed in the browser would be lost."""
    assert BOARDS[name]["editable"] is False


@pytest.mark.parametrize("panel", PANELS, ids=ident)
def test_panels(panel: tuple[str, dict[str, Any]]) -> None:
    """The rules panel-datasource, panel-title-description, panel-units and panel-no-targets."""
    _, own = panel
    assert own["title"] and own["description"].endswith(".")
    assert own["fieldConfig"]["defaults"]["unit"] in UNITS
    assert own["datasource"]["uid"] in {"${prometheus_datasource}", "${loki_datasource}"}
    assert own["targets"]
    for target in own["targets"]:
        assert target["datasource"] == own["datasource"]
    refs = [target["refId"] for target in own["targets"]]
    assert len(set(refs)) == len(refs)
    for override in own["fieldConfig"]["overrides"]:
        for change in override["properties"]:
            assert change["id"] != "unit" or change["value"] in UNITS


@pytest.mark.parametrize("name", BOARDS)
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("target", TARGETS, ids=ident)
def test_promql(target: boards.Target) -> None:
    """target-promql-rule: it parses. target-job-rule, target-instance-rule: each selector."""
    for selector, _ in selectors(parsed(target)):
        matchers = [(each.name, str(each.op), each.value) for each in selector.matchers.matchers]
        assert ("job", "MatchOp.Re", ".+") in matchers, matchers
        assert ("job", "MatchOp.Re", "(.+/)?(.+)") in matchers, matchers
        assert ("instance", "MatchOp.Re", ".+") in matchers, matchers
    for variable in ("$job", "($service)", "$instance"):
        assert variable in target.expr


@pytest.mark.parametrize("target", TARGETS, ids=ident)
def test_rate_interval(target: boards.Target) -> None:
    """target-rate-interval-rule: every range is $__rate_interval, and nothing is a fixed time."""
    assert target.expr.count("[") == target.expr.count("[$__rate_interval]")


@pytest.mark.parametrize("target", TARGETS, ids=ident)
def test_rates_over_counters_and_nothing_else(target: boards.Target) -> None:
    """target-counter-agg-rule, and its reverse: no rate over a gauge."""
    for selector, parents in selectors(parsed(target)):
        if selector.name is None:
            continue
        rated = any(
            type(each).__name__ == "Call" and each.func.name in ("rate", "irate", "increase")
            for each in parents
        )
        # How many series there are is no sum of theirs.
        counted = any(
            type(each).__name__ == "AggregateExpr" and "count" in str(each.op).lower()
            for each in parents
        )
        assert rated == (selector.name in COUNTERS) or counted, selector.name


@pytest.mark.parametrize("target", TARGETS, ids=ident)
def test_names_and_labels_are_those_of_the_reference(target: boards.Target) -> None:
    for selector, _ in selectors(parsed(target)):
        if selector.name is None:
            continue
        assert selector.name in names.METRIC_OF
        for matcher in selector.matchers.matchers:
            allowed = names.LABELS.get(selector.name, frozenset()) | EXTRA_LABELS
            assert matcher.name in allowed, (selector.name, matcher.name)
            # 1 and 1.0 are the same bucket, told differently by different ways of feeding.
            assert matcher.name != "le"


@pytest.mark.parametrize("panel", PANELS, ids=ident)
def test_histograms(panel: tuple[str, dict[str, Any]]) -> None:
    """target-histogram-rule: quantiles and heat maps keep `le`."""
    for target in panel[1]["targets"]:
        expr = target.get("expr", "")
        if "histogram_quantile" in expr or panel[1]["type"] == "heatmap":
            assert "by (le" in expr and "_bucket{" in expr
        if panel[1]["type"] == "heatmap":
            assert target["format"] == "heatmap"
            assert panel[1]["options"]["yAxis"]["unit"] == "s"


def test_exemplars_are_asked_for_where_there_are_some() -> None:
    asked = {
        name
        for target in TARGETS
        if target.target.get("exemplar") and target.panel["type"] == "timeseries"
        for name in names.METRIC_OF
        if f"{name}{{" in target.expr
    }
    assert asked == {
        "tracesock_connect_duration_seconds_bucket",
        "dns_lookup_duration_seconds_bucket",
    }


def test_links_lead_to_boards_that_are_there() -> None:
    uids = {board["uid"] for board in BOARDS.values()}
    for _, panel in PANELS:
        for override in panel["fieldConfig"]["overrides"]:
            for change in override["properties"]:
                for link in change["value"] if change["id"] == "links" else ():
                    assert link["url"].split("?")[0].removeprefix("/d/") in uids


def test_every_metric_is_on_some_board() -> None:
    shown = {name for target in TARGETS for name in names.METRIC_OF if name in target.expr}
    for metric in semconv.METRICS:
        assert any(name in shown for name in names.series(metric)), metric.name
