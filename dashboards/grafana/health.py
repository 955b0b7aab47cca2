"""Telemetry health: whether what the other dashboards show is all there is."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.grafana.panels import (
    CHOSEN,
    Column,
    add,
    board,
    figure,
    graph,
    heat_map,
    peer_variable,
    percentiles,
    quantile,
    query,
    rate,
    ratio,
    rows,
    share_dropped,
)

CONNECTS = "tracesock_connect_duration_seconds_count"
LOOKUPS = "dns_lookup_duration_seconds_count"
IO = "tracesock_io_bytes_total"
RECORDS = "tracesock_telemetry_records_total"
DROPPED = "tracesock_telemetry_dropped_total"
LAG = "tracesock_telemetry_lag_seconds"
OVERFLOW = "tracesock.overflow"
CAP = 200


def make() -> Dashboard:
    made = board(
        "health",
        "Telemetry health",
        "Drops, delay and cardinality of tracesock's own telemetry.",
        peer_variable(CONNECTS, "server_address", "Peer"),
    )
    add(
        made,
        "Now",
        figure(
            "Instances",
            "Processes that report metrics now.",
            "short",
            f"count(tracesock_ephemeral_port_limit{{{CHOSEN}}})",
        ),
        figure("Records", "Records that calls left for delivery, a second.", "cps", rate(RECORDS)),
        figure(
            "Dropped",
            "Share of the records that were not delivered.",
            "percentunit",
            share_dropped(CHOSEN),
            red=0.001,
        ),
        figure(
            "Drain lag p99",
            "99 of 100 deliveries brought no record that was older.",
            "s",
            quantile(0.99, LAG),
            red=10,
        ),
        figure(
            "Peers",
            "Most distinct values of server.address of one instance; later ones share one value.",
            "short",
            f"max(count by (job, instance) (count by (job, instance, server_address) "
            f'({CONNECTS}{{{CHOSEN}, server_address=~"$peer"}})))',
            red=CAP,
        ),
        figure(
            "Series",
            "Series of tracesock's metrics that the instances have.",
            "short",
            f'count({{__name__=~"(tracesock|dns_lookup)_.+", {CHOSEN}}})',
        ),
    )
    add(
        made,
        "Delivery",
        graph(
            "Records by signal",
            "Records that calls left for delivery, a second, the dropped included: traces, and "
            "logs of the audit.",
            "cps",
            query(rate(RECORDS, CHOSEN, "signal"), "{{signal}}"),
        ),
        graph(
            "Dropped by reason",
            "Records and measurements that were not delivered, a second.",
            "cps",
            query(rate(DROPPED, CHOSEN, "signal, reason"), "{{signal}}: {{reason}}"),
            stack=True,
        ),
        heat_map(
            "Drain lag",
            "Age that the oldest record of each delivery may have had. About the drain interval "
            "(1 s) is right; more means that the drain does not get to run.",
            LAG,
        ),
        percentiles("Drain lag percentiles", "The same as percentiles.", LAG),
    )
    add(
        made,
        "Cardinality",
        graph(
            "Distinct values by attribute",
            "Of one instance, the most there are. From the cap on (200, cardinality_limit), later "
            "values share tracesock.overflow.",
            "short",
            query(
                f"max(count by (job, instance) (count by (job, instance, server_address) "
                f"({CONNECTS}{{{CHOSEN}}})))",
                "server.address of connects",
            ),
            query(
                f"max(count by (job, instance) (count by (job, instance, server_address) "
                f"({IO}{{{CHOSEN}}})))",
                "server.address of bytes",
            ),
            query(
                f"max(count by (job, instance) (count by (job, instance, dns_question_name) "
                f"({LOOKUPS}{{{CHOSEN}}})))",
                "dns.question.name",
            ),
            limit=CAP,
        ),
        graph(
            "Share in tracesock.overflow",
            "Of the observations: how much of the traffic the values above the cap are.",
            "percentunit",
            query(
                ratio(
                    rate(CONNECTS, f'{CHOSEN}, server_address="{OVERFLOW}"'),
                    rate(CONNECTS),
                ),
                "server.address of connects",
            ),
            query(
                ratio(
                    rate(LOOKUPS, f'{CHOSEN}, dns_question_name="{OVERFLOW}"'),
                    rate(LOOKUPS),
                ),
                "dns.question.name",
            ),
        ),
        rows(
            "Series by metric",
            "How many series each metric has.",
            {"__name__": "Metric"},
            Column(
                "Series",
                "short",
                f'count by (__name__) ({{__name__=~"(tracesock|dns_lookup)_.+", {CHOSEN}}})',
            ),
            width=12,
        ),
        graph(
            "Series by instance",
            "How many series each instance has.",
            "short",
            query(
                f'count by (job, instance) ({{__name__=~"(tracesock|dns_lookup)_.+", {CHOSEN}}})',
                "{{job}} {{instance}}",
            ),
        ),
    )
    return made
