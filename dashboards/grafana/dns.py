"""DNS: which names are looked up, how long that takes, and what fails."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.grafana.panels import (
    CHOSEN,
    NAME,
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
    to_board,
)

LOOKUP = "dns_lookup_duration_seconds"
FAILED = 'error_type!=""'


def make() -> Dashboard:
    made = board(
        "dns",
        "DNS",
        "Look-ups of names: rate, failures and durations. An address in place of a name asks "
        "nobody and is no look-up.",
        peer_variable(f"{LOOKUP}_count", "dns_question_name", "Name"),
    )
    asked = rate(f"{LOOKUP}_count", NAME)
    failed = rate(f"{LOOKUP}_count", f"{NAME}, {FAILED}")
    by_name = rate(f"{LOOKUP}_count", NAME, "dns_question_name")
    add(
        made,
        "Now",
        figure("Look-ups", "Look-ups of names, a second.", "cps", asked),
        figure(
            "Failed look-ups",
            "Share of the look-ups that ended with an error.",
            "percentunit",
            ratio(failed, asked),
            red=0.05,
        ),
        figure(
            "Look-up p99",
            "99 of 100 look-ups took no longer.",
            "s",
            quantile(0.99, LOOKUP, NAME),
            red=0.5,
        ),
        figure(
            "Time in look-ups",
            "Seconds a second that threads waited for look-ups, all instances together.",
            "s",
            rate(f"{LOOKUP}_sum", NAME),
        ),
        figure(
            "Names",
            "Distinct names that were looked up; later ones than the cap share one value.",
            "short",
            f"count(count by (dns_question_name) ({LOOKUP}_count{{{NAME}}}))",
            red=200,
        ),
        figure(
            "Look-ups a connect",
            "Near 1: nothing caches between the program and the resolver. getaddrinfo(3) does not.",
            "none",
            ratio(rate(f"{LOOKUP}_count"), rate("tracesock_connect_duration_seconds_count")),
        ),
    )
    add(
        made,
        "Durations and failures",
        heat_map(
            "Look-up durations",
            "How long look-ups took, failed ones included. A band at 5 s is a resolver that did "
            "not answer, asked again after the timeout of resolv.conf(5).",
            LOOKUP,
            NAME,
        ),
        percentiles(
            "Look-up percentiles",
            "How long look-ups took, failed ones included. The diamonds lead to traces.",
            LOOKUP,
            NAME,
            exemplars=True,
        ),
        graph(
            "Look-ups by outcome",
            "Look-ups, a second: host_not_found is an answer, try_again is the lack of one.",
            "cps",
            query(
                rate(f"{LOOKUP}_count", f'{NAME}, error_type=""'),
                "success",
            ),
            query(rate(f"{LOOKUP}_count", f"{NAME}, {FAILED}", "error_type"), "{{error_type}}"),
            stack=True,
        ),
        graph(
            "Failed look-ups by name",
            "The ten names whose look-ups fail most.",
            "cps",
            query(
                "topk(10, "
                + rate(f"{LOOKUP}_count", f"{NAME}, {FAILED}", "dns_question_name")
                + ")",
                "{{dns_question_name}}",
            ),
        ),
    )
    add(
        made,
        "Names",
        rows(
            "Names in use",
            "Each name: how often it is asked for, how often that fails, how long it takes.",
            {"dns_question_name": "Name"},
            Column("Look-ups", "cps", by_name),
            Column(
                "Failed",
                "percentunit",
                f"({rate(f'{LOOKUP}_count', f'{NAME}, {FAILED}', 'dns_question_name')} or 0 * "
                f"{by_name}) / {by_name}",
            ),
            Column("p50", "s", quantile(0.5, LOOKUP, NAME, "dns_question_name")),
            Column("p99", "s", quantile(0.99, LOOKUP, NAME, "dns_question_name")),
            Column("Waited", "s", rate(f"{LOOKUP}_sum", NAME, "dns_question_name")),
            links={
                "Name": to_board("peer", "As a peer", peer="${__data.fields.Name:percentencode}")
            },
        ),
        graph(
            "Look-ups by instance",
            "Look-ups, a second.",
            "cps",
            query(rate(f"{LOOKUP}_count", CHOSEN, "job, instance"), "{{job}} {{instance}}"),
            width=24,
        ),
    )
    return made
