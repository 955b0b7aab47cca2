"""The kinds of panels, queries and variables that the dashboards are made of."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import heatmap, logs, loki, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = dashboard.DataSourceRef(type_val="prometheus", uid="${prometheus_datasource}")
LOKI = dashboard.DataSourceRef(type_val="loki", uid="${loki_datasource}")
TAG = "tracesock"

# Every query is of the services, jobs and instances that are chosen. A job is the service's name,
# after its namespace where it has one, so a service is in several jobs at times.
CHOSEN = 'job=~"$job", job=~"(.+/)?($service)", instance=~"$instance"'
PEER = f'{CHOSEN}, server_address=~"$peer"'
NAME = f'{CHOSEN}, dns_question_name=~"$peer"'

RATE = "$__rate_interval"
WIDTH = 24


def rate(series: str, matchers: str = CHOSEN, by: str = "") -> str:
    """Per second, summed over all but the labels `by`."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({series}{{{matchers}}}[{RATE}]))"


def quantile(share: float, histogram: str, matchers: str = CHOSEN, by: str = "") -> str:
    """Of the observations of a histogram, of which `histogram` is the name without _bucket."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', matchers, labels)})"


def ratio(part: str, whole: str) -> str:
    return f"{part} / {whole}"


def share_dropped(matchers: str) -> str:
    """Of the records; what is dropped late, or by several sinks, can be more than was just made."""
    dropped = rate("tracesock_telemetry_dropped_total", matchers)
    made = rate("tracesock_telemetry_records_total", matchers)
    return f"clamp_max(({dropped} or 0 * {made}) / {made}, 1)"


# --- queries ------------------------------------------------------------------------------------


def query(expr: str, legend: str = "__auto", *, exemplars: bool = False) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(PROMETHEUS)
        .expr(expr)
        .range()
        .legend_format(legend)
        .exemplar(exemplars)
    )


def _instant(expr: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(PROMETHEUS)
        .expr(expr)
        .instant()
        .format(PromQueryFormat.TABLE)
    )


# --- panels -------------------------------------------------------------------------------------


def _lettered(panel: Any, queries: list[prometheus.Dataquery]) -> Any:
    for index, each in enumerate(queries):
        panel.with_target(each.ref_id(chr(ord("A") + index)))
    return panel


def figure(
    title: str, description: str, unit: str, expr: str, *, red: float | None = None, width: int = 4
) -> Any:
    """One number, with its course behind it; red from `red` up."""
    steps = [dashboard.Threshold(value=None, color="green")]
    if red is not None:
        steps.append(dashboard.Threshold(value=red, color="red"))
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .height(4)
        .span(width)
        .no_value("0")
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(
            dashboards.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)
        )
    )
    return _lettered(panel, [query(expr)])


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: prometheus.Dataquery,
    width: int = 12,
    stack: bool = False,
    limit: float | None = None,
) -> Any:
    """Lines over time, the largest first in the legend; a red line at `limit`."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .height(8)
        .span(width)
        .line_width(1)
        .fill_opacity(30 if stack else 10)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max"])
            .sort_by("Max")
            .sort_desc(True)
        )
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    if stack:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if limit is not None:
        panel.thresholds(
            dashboards.ThresholdsConfig()
            .mode(dashboard.ThresholdsMode.ABSOLUTE)
            .steps(
                [
                    dashboard.Threshold(value=None, color="green"),
                    dashboard.Threshold(value=limit, color="red"),
                ]
            )
        ).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(
                common.GraphThresholdsStyleMode.DASHED
            )
        )
    return _lettered(panel, list(queries))


def percentiles(
    title: str,
    description: str,
    histogram: str,
    matchers: str = CHOSEN,
    *,
    exemplars: bool = False,
    width: int = 12,
) -> Any:
    """The median, the 90th and the 99th percentile of a duration."""
    return graph(
        title,
        description,
        "s",
        *(
            query(quantile(share, histogram, matchers), name, exemplars=exemplars)
            for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
        ),
        width=width,
    )


def heat_map(
    title: str, description: str, histogram: str, matchers: str = CHOSEN, *, width: int = 12
) -> Any:
    """How many observations fell into which bucket of a duration, per second."""
    panel = (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit("cps")
        .height(8)
        .span(width)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit("s").axis_placement(common.AxisPlacement.LEFT))
        .color(
            heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
        )
        .cell_gap(1)
    )
    expr = rate(f"{histogram}_bucket", matchers, "le")
    return _lettered(panel, [query(expr, "{{le}}", exemplars=True).format(PromQueryFormat.HEATMAP)])


class Column:
    """A column of a table: its heading, unit and expression."""

    def __init__(self, heading: str, unit: str, expr: str) -> None:
        self.heading, self.unit, self.expr = heading, unit, expr


def rows(
    title: str,
    description: str,
    keys: dict[str, str],
    *columns: Column,
    width: int = 24,
    links: dict[str, dashboards.DashboardLink] | None = None,
) -> Any:
    """A table of what is true now: `keys` are the labels that name a row, with their headings."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit("short")
        .height(9)
        .span(width)
        .sort_by(
            [common_builders.TableSortByFieldState().display_name(columns[0].heading).desc(True)]
        )
    )
    _lettered(panel, [_instant(each.expr) for each in columns])
    names = [chr(ord("A") + index) for index in range(len(columns))]
    # One query alone is not merged, so its column has no letter.
    fields = ["Value"] if len(columns) == 1 else [f"Value #{name}" for name in names]
    panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        dashboard.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate(["Time", *keys, *fields])},
                "renameByName": keys
                | {field: each.heading for field, each in zip(fields, columns, strict=True)},
            },
        )
    )
    for each in columns:
        panel.override_by_name(
            each.heading, [dashboard.DynamicConfigValue(id_val="unit", value=each.unit)]
        )
    for heading, link in (links or {}).items():
        panel.override_by_name(
            heading, [dashboard.DynamicConfigValue(id_val="links", value=[link.build()])]
        )
    return panel


def log_lines(title: str, description: str, expr: str) -> Any:
    """Lines of Loki's."""
    return (
        logs.Panel()
        .title(title)
        .description(description)
        .datasource(LOKI)
        .unit("none")
        .height(10)
        .span(WIDTH)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(common.LogsSortOrder.DESCENDING)
        .dedup_strategy(common.LogsDedupStrategy.NONE)
        .with_target(loki.Dataquery().datasource(LOKI).expr(expr).ref_id("A"))
    )


# --- variables ----------------------------------------------------------------------------------

_ALL = dashboard.VariableOption(selected=True, text="All", value="$__all")


def _source(kind: str, label: str) -> dashboards.DatasourceVariable:
    return dashboards.DatasourceVariable(f"{kind}_datasource").label(label).type(kind)


def _values(name: str, label: str, description: str, query: str) -> dashboards.QueryVariable:
    return (
        dashboards.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(PROMETHEUS)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )


def _many(variable: dashboards.QueryVariable, everything: str) -> dashboards.QueryVariable:
    return variable.multi(True).include_all(True).all_value(everything).current(_ALL)


# What every instrumented process has.
_PRESENT = "tracesock_ephemeral_port_limit"


def scope_variables() -> list[Any]:
    """Data source, service, job, instance."""
    return [
        _source("prometheus", "Prometheus data source"),
        _many(
            _values(
                "service",
                "Service",
                "service.name, without the namespace",
                f"label_values({_PRESENT}, job)",
            ).regex("/^(?:.*\\/)?(.+)$/"),
            ".+",
        ),
        _many(
            _values(
                "job",
                "Job",
                "service.namespace/service.name, or the job of a scrape",
                f'label_values({_PRESENT}{{job=~"(.+/)?($service)"}}, job)',
            ),
            ".+",
        ),
        _many(
            _values(
                "instance",
                "Instance",
                "service.instance.id, or the address that was scraped",
                f'label_values({_PRESENT}{{job=~"$job", job=~"(.+/)?($service)"}}, instance)',
            ),
            ".+",
        ),
    ]


def peer_variable(series: str, label: str, heading: str, *, one: bool = False) -> Any:
    """The destination: values of `label` that `series` has. All includes what has no name."""
    made = _values(
        "peer",
        heading,
        f"{label.replace('_', '.')}",
        f"label_values({series}{{{CHOSEN}}}, {label})",
    )
    return made.multi(False).include_all(False) if one else _many(made, ".*")


# --- dashboards ---------------------------------------------------------------------------------


def board(uid: str, title: str, description: str, *variables: Any) -> dashboards.Dashboard:
    made = (
        dashboards.Dashboard(f"tracesock / {title}")
        .uid(f"tracesock-{uid}")
        .description(description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboards.DashboardLink("tracesock")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in (*scope_variables(), *variables):
        made.with_variable(variable)
    return made


def loki_variable() -> Any:
    return _source("loki", "Loki data source")


def add(made: dashboards.Dashboard, row: str, *panels: Any) -> None:
    """A row and its panels, left to right."""
    made.with_row(dashboards.Row(row))
    for panel in panels:
        made.with_panel(panel)


def to_board(uid: str, title: str, **variables: str) -> dashboards.DashboardLink:
    """A link to another dashboard, which keeps the choice of services and the time."""
    kept = "${__url_time_range}&${prometheus_datasource:queryparam}&${service:queryparam}"
    chosen = "".join(f"&var-{name}={value}" for name, value in variables.items())
    return dashboards.DashboardLink(title).url(f"/d/tracesock-{uid}?{kept}{chosen}")
