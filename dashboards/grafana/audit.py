"""Audit and policy: what was decided, what was denied, whether the records can be trusted."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.grafana.panels import (
    CHOSEN,
    PEER,
    Column,
    add,
    board,
    figure,
    graph,
    log_lines,
    loki_variable,
    peer_variable,
    query,
    rate,
    ratio,
    rows,
    share_dropped,
    to_board,
)

DECISIONS = "tracesock_audit_decisions_total"
RECORDS = "tracesock_telemetry_records_total"
DROPPED = "tracesock_telemetry_dropped_total"
CONNECTS = "tracesock_connect_duration_seconds_count"
LOGS = 'signal="logs"'


def make() -> Dashboard:
    made = board(
        "audit",
        "Audit and policy",
        "Decisions of the egress and ingress policy, and the state of the records of them.",
        peer_variable(CONNECTS, "server_address", "Peer"),
        loki_variable(),
    )
    add(
        made,
        "Now",
        figure("Decisions", "Calls that a policy judged, a second.", "cps", rate(DECISIONS)),
        figure(
            "Denied",
            "Calls that a policy refused, a second.",
            "cps",
            rate(DECISIONS, f'{CHOSEN}, action="deny"'),
            red=0.001,
        ),
        figure(
            "Would be denied",
            "Calls that a policy in report mode would have refused, a second.",
            "cps",
            rate(DECISIONS, f'{CHOSEN}, action="would_deny"'),
        ),
        figure(
            "Share denied",
            "Of the calls that a policy judged.",
            "percentunit",
            ratio(rate(DECISIONS, f'{CHOSEN}, action="deny"'), rate(DECISIONS)),
            red=0.05,
        ),
        figure(
            "Damaged logs",
            "Logs that `tracesock audit verify` found changed, cut or reordered.",
            "short",
            f"count(tracesock_audit_log_intact{{{CHOSEN}}} == 0) or "
            f"0 * count(tracesock_audit_log_intact{{{CHOSEN}}})",
            red=1,
        ),
        figure(
            "Records dropped",
            "Share of the audit's records that a sink could not take.",
            "percentunit",
            share_dropped(f"{CHOSEN}, {LOGS}"),
            red=0.001,
        ),
    )
    add(
        made,
        "Decisions",
        graph(
            "Decisions by action",
            "Calls that a policy judged, a second.",
            "cps",
            query(rate(DECISIONS, CHOSEN, "action"), "{{action}}"),
            stack=True,
        ),
        graph(
            "Denied by rule",
            "Calls that a policy refused, or would have refused, a second. The rule `default` is "
            "what no rule matched.",
            "cps",
            query(
                rate(DECISIONS, f'{CHOSEN}, action=~"deny|would_deny"', "rule, action"),
                "{{rule}} ({{action}})",
            ),
            stack=True,
        ),
        graph(
            "Denied by service",
            "Calls that a policy refused, a second.",
            "cps",
            query(
                rate(DECISIONS, f'{CHOSEN}, action="deny"', "job, instance"),
                "{{job}} {{instance}}",
            ),
        ),
        graph(
            "Denied connects by peer",
            "Attempts to connect that a policy or an audit hook refused, a second: the ten peers "
            "that were tried most.",
            "cps",
            query(
                "topk(10, "
                + rate(CONNECTS, f'{PEER}, error_type="denied"', "server_address")
                + ")",
                "{{server_address}}",
            ),
        ),
        rows(
            "Rules",
            "How often each rule decides.",
            {"rule": "Rule", "action": "Action"},
            Column("Decisions", "cps", rate(DECISIONS, CHOSEN, "rule, action")),
            width=12,
        ),
        rows(
            "Peers that were denied",
            "Destinations of attempts to connect that were refused.",
            {"server_address": "Peer"},
            Column(
                "Denied", "cps", rate(CONNECTS, f'{PEER}, error_type="denied"', "server_address")
            ),
            width=12,
            links={
                "Peer": to_board("peer", "This peer", peer="${__data.fields.Peer:percentencode}")
            },
        ),
    )
    add(
        made,
        "Records",
        graph(
            "Records",
            "Records of the audit that calls have left for its sinks, a second.",
            "cps",
            query(rate(RECORDS, f"{CHOSEN}, {LOGS}", "job, instance"), "{{job}} {{instance}}"),
            width=8,
        ),
        graph(
            "Records by log",
            "Records in each log when it was last verified.",
            "short",
            query(f"max by (log) (tracesock_audit_log_records{{{CHOSEN}}})", "{{log}}"),
            width=8,
        ),
        graph(
            "Age of the verification",
            "Since `tracesock audit verify --textfile` last looked at each log.",
            "s",
            query(
                "time() - max by (log) "
                f"(tracesock_audit_log_verified_timestamp_seconds{{{CHOSEN}}})",
                "{{log}}",
            ),
            width=8,
            limit=7200,
        ),
        log_lines(
            "Denied calls",
            "The records themselves, from Loki.",
            '{service_name=~"$service"} | tracesock_audit_action=~"deny|would_deny" '
            '| line_format "{{.tracesock_audit_event}} {{.network_peer_address}}'
            ":{{.network_peer_port}} {{.server_address}} {{.tracesock_audit_action}} "
            'by rule {{.tracesock_audit_rule}}"',
        ),
    )
    return made
