"""Overview: rate, errors and durations of the sockets of one or many services."""

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

CONNECT = "tracesock_connect_duration_seconds"
LOOKUP = "dns_lookup_duration_seconds"
STALL = "tracesock_send_stall_duration_seconds"
FAILED = 'error_type!=""'


def make() -> Dashboard:
    made = board(
        "overview",
        "Overview",
        "Connects, look-ups, bytes, stalls and retransmits of the sockets of a service.",
        peer_variable(f"{CONNECT}_count", "server_address", "Peer"),
    )
    attempts = rate(f"{CONNECT}_count", PEER)
    failures = rate(f"{CONNECT}_count", f"{PEER}, {FAILED}")
    add(
        made,
        "Now",
        figure(
            "Connects",
            "Attempts to connect that waited for the other side, a second.",
            "cps",
            attempts,
        ),
        figure(
            "Failed connects",
            "Share of the attempts to connect that ended with an error.",
            "percentunit",
            ratio(failures, attempts),
            red=0.05,
        ),
        figure(
            "Connect p99",
            "99 of 100 attempts to connect took no longer.",
            "s",
            quantile(0.99, CONNECT, PEER),
            red=1,
        ),
        figure(
            "Look-up p99",
            "99 of 100 look-ups of a name took no longer.",
            "s",
            quantile(0.99, LOOKUP),
            red=0.5,
        ),
        figure(
            "Open connections",
            "Established connections of the instances now.",
            "short",
            f'sum(tracesock_connection_count{{{CHOSEN}, network_connection_state="established"}})',
        ),
        figure(
            "Denied by policy",
            "Calls that the egress or ingress policy refused, a second.",
            "cps",
            rate("tracesock_audit_decisions_total", f'{CHOSEN}, action="deny"'),
            red=0.001,
        ),
    )
    add(
        made,
        "Connect",
        graph(
            "Connects by transport",
            "Attempts to connect, a second.",
            "cps",
            query(rate(f"{CONNECT}_count", PEER, "network_transport"), "{{network_transport}}"),
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
            "How long attempts to connect took, failed ones included. Bands at 1, 3, 7 and 15 s "
            "are SYNs that were sent again.",
            CONNECT,
            PEER,
        ),
        percentiles(
            "Connect percentiles",
            "How long attempts to connect took, failed ones included. The diamonds are connects: "
            "they lead to their trace.",
            CONNECT,
            PEER,
            exemplars=True,
        ),
    )
    add(
        made,
        "Look-ups",
        heat_map(
            "Look-up durations",
            "How long look-ups of names took, failed ones included.",
            LOOKUP,
        ),
        percentiles(
            "Look-up percentiles",
            "How long look-ups of names took, failed ones included. The diamonds lead to traces.",
            LOOKUP,
            exemplars=True,
        ),
    )
    add(
        made,
        "Transfer",
        graph(
            "Bytes",
            "Bytes that sends and receives moved, a second.",
            "Bps",
            query(
                rate("tracesock_io_bytes_total", PEER, "network_io_direction"),
                "{{network_io_direction}}",
            ),
            width=8,
        ),
        percentiles(
            "Send percentiles",
            "How long a send call took, with what it waited.",
            "tracesock_send_duration_seconds",
            PEER,
            width=8,
        ),
        percentiles(
            "First byte percentiles",
            "From an established connection to the first byte received on it.",
            "tracesock_first_byte_duration_seconds",
            PEER,
            width=8,
        ),
        graph(
            "Time stalled in sends",
            "Seconds a second that send calls waited, all instances together: for the peer's "
            "window (receiver), or for room in the own send buffer (sndbuf).",
            "s",
            query(rate(f"{STALL}_sum", PEER, "cause"), "{{cause}}"),
            width=8,
            stack=True,
        ),
        percentiles(
            "Stall percentiles",
            "How long a send that had to wait did so.",
            STALL,
            PEER,
            width=8,
        ),
        graph(
            "Segments sent again",
            "TCP segments that were retransmitted, a second; told when a connection closes.",
            "cps",
            query(
                rate("tracesock_tcp_retransmits_total", CHOSEN, "network_transport"),
                "{{network_transport}}",
            ),
            width=8,
        ),
    )
    add(
        made,
        "Connections",
        graph(
            "Connections by state",
            "Open sockets of the instances by their TCP state. close_wait that grows is a leak: "
            "the peer has hung up and the program has not closed.",
            "short",
            query(
                f"sum by (network_connection_state) (tracesock_connection_count{{{CHOSEN}}})",
                "{{network_connection_state}}",
            ),
            width=8,
            stack=True,
        ),
        percentiles(
            "Life of connections",
            "From established to closed.",
            "tracesock_connection_duration_seconds",
            width=8,
        ),
        percentiles(
            "Round-trip times",
            "Smoothed round-trip time of a TCP connection when it closed.",
            "tracesock_tcp_rtt_seconds",
            width=8,
        ),
        graph(
            "Accept queues",
            "How full the queue of connections is that wait to be accepted, by listener. What "
            "finds it full is dropped, and its client tries again after a second.",
            "percentunit",
            query(
                "max by (network_local_address, network_local_port) "
                f"(tracesock_listen_queue_length{{{CHOSEN}}} / "
                f"tracesock_listen_queue_limit{{{CHOSEN}}})",
                "{{network_local_address}}:{{network_local_port}}",
            ),
            limit=0.8,
        ),
        graph(
            "Ephemeral ports",
            "Ports in use towards the destination that uses most, of those there are. At 100 % "
            "connect fails with address_not_available.",
            "percentunit",
            query(
                f"max by (job, instance) (tracesock_ephemeral_port_used{{{CHOSEN}}} / "
                f"tracesock_ephemeral_port_limit{{{CHOSEN}}})",
                "{{instance}}",
            ),
            limit=0.8,
        ),
        rows(
            "Peers",
            "Destinations by name, or by address where no name was looked up.",
            {"server_address": "Peer"},
            Column("Connects", "cps", rate(f"{CONNECT}_count", PEER, "server_address")),
            Column(
                "Failed",
                "percentunit",
                f"({rate(f'{CONNECT}_count', f'{PEER}, {FAILED}', 'server_address')} or 0 * "
                f"{rate(f'{CONNECT}_count', PEER, 'server_address')}) / "
                f"{rate(f'{CONNECT}_count', PEER, 'server_address')}",
            ),
            Column("p99", "s", quantile(0.99, CONNECT, PEER, "server_address")),
            Column("Bytes", "Bps", rate("tracesock_io_bytes_total", PEER, "server_address")),
            Column("Stalled", "s", rate(f"{STALL}_sum", PEER, "server_address")),
            links={
                "Peer": to_board("peer", "This peer", peer="${__data.fields.Peer:percentencode}")
            },
        ),
    )
    return made
