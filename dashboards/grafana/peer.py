"""Peer: one destination."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.grafana.panels import (
    CHOSEN,
    PEER,
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
)

CONNECT = "tracesock_connect_duration_seconds"
LOOKUP = "dns_lookup_duration_seconds"
STALL = "tracesock_send_stall_duration_seconds"
FAILED = 'error_type!=""'
NAMED = f'{CHOSEN}, dns_question_name=~"$peer"'


def make() -> Dashboard:
    made = board(
        "peer",
        "Peer",
        "One destination: how connecting and sending to it went.",
        peer_variable(f"{CONNECT}_count", "server_address", "Peer", one=True),
    )
    attempts = rate(f"{CONNECT}_count", PEER)
    failures = rate(f"{CONNECT}_count", f"{PEER}, {FAILED}")
    add(
        made,
        "Now",
        figure("Connects", "Attempts to connect to it, a second.", "cps", attempts, width=6),
        figure(
            "Failed connects",
            "Share of the attempts to connect to it that ended with an error.",
            "percentunit",
            ratio(failures, attempts),
            red=0.05,
            width=6,
        ),
        figure(
            "Connect p99",
            "99 of 100 attempts to connect to it took no longer.",
            "s",
            quantile(0.99, CONNECT, PEER),
            red=1,
            width=6,
        ),
        figure(
            "Bytes",
            "Bytes that were sent to it and received from it, a second.",
            "Bps",
            rate("tracesock_io_bytes_total", PEER),
            width=6,
        ),
    )
    add(
        made,
        "Connect",
        graph(
            "Connects by instance",
            "Attempts to connect, a second.",
            "cps",
            query(rate(f"{CONNECT}_count", PEER, "job, instance"), "{{job}} {{instance}}"),
        ),
        graph(
            "Failed connects by error",
            "Attempts to connect that ended with an error, a second.",
            "cps",
            query(rate(f"{CONNECT}_count", f"{PEER}, {FAILED}", "error_type"), "{{error_type}}"),
            stack=True,
        ),
        heat_map(
            "Connect durations",
            "How long attempts to connect took, failed ones included.",
            CONNECT,
            PEER,
        ),
        percentiles(
            "Connect percentiles",
            "How long attempts to connect took. The diamonds lead to traces.",
            CONNECT,
            PEER,
            exemplars=True,
        ),
    )
    add(
        made,
        "Look-ups of its name",
        graph(
            "Look-ups",
            "Look-ups of the peer's name, a second, by how they ended.",
            "cps",
            query(rate(f"{LOOKUP}_count", NAMED, "error_type"), "{{error_type}}"),
        ),
        percentiles(
            "Look-up percentiles",
            "How long look-ups of the peer's name took. The diamonds lead to traces.",
            LOOKUP,
            NAMED,
            exemplars=True,
        ),
    )
    add(
        made,
        "Transfer",
        graph(
            "Bytes by direction",
            "Bytes that sends and receives moved, a second.",
            "Bps",
            query(
                rate("tracesock_io_bytes_total", PEER, "network_io_direction"),
                "{{network_io_direction}}",
            ),
        ),
        percentiles(
            "First byte percentiles",
            "From an established connection to the first byte received on it: the peer's own time.",
            "tracesock_first_byte_duration_seconds",
            PEER,
        ),
        percentiles(
            "Send percentiles",
            "How long a send call took, with what it waited.",
            "tracesock_send_duration_seconds",
            PEER,
        ),
        graph(
            "Time stalled in sends",
            "Seconds a second that send calls waited: for the peer's window (receiver), or for "
            "room in the own send buffer (sndbuf).",
            "s",
            query(rate(f"{STALL}_sum", PEER, "cause"), "{{cause}}"),
            stack=True,
        ),
    )
    return made
