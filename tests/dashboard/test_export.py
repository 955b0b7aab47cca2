"""Traces as files."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tracesock.dashboard.export import _lanes
from tracesock.dashboard.otlp import JSON, Signal, decode
from tracesock.dashboard.queries import tree_order
from tracesock.dashboard.rows import SpanRow

from .make import Spans, log_request, span_id, trace_id
from .serving import DATA, Served

ADDRESS = f"/traces/{trace_id(1).hex()}"


def row(identity: int, start: int, end: int) -> SpanRow:
    made: Any = SpanRow.__new__(SpanRow)
    made.span_id, made.parent_id, made.start, made.end = str(identity), "", start, end
    return made  # type: ignore[no-any-return]


def test_otlp_json_is_what_came(served: Served) -> None:
    made = Spans("front").add("a", span=1, duration_ms=30).connect("h.example", 1, span=2, parent=1)
    made.request.resource_spans[0].scope_spans[0].schema_url = "https://example.org/schema"
    other = Spans("back", scope="other").add("b", span=3, parent=2, kind=2)
    served.post("traces", made.body)
    served.post("traces", other.body)
    status, headers, text = served.get(f"{ADDRESS}/otlp.json")
    assert status == 200
    assert headers["content-disposition"].startswith("attachment")
    again = decode(Signal.TRACES, JSON, text.encode())
    assert list(again.resource_spans) == [
        made.request.resource_spans[0],
        other.request.resource_spans[0],
    ]
    # Another receiver takes the file as it is.
    assert served.post("traces", text.encode(), JSON)[0] == 200


def test_another_languages_trace_comes_back(served: Served) -> None:
    body = (DATA / "javascript_sdk.json").read_bytes()
    served.post("traces", body, JSON)
    identity = json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"]
    text = served.get(f"/traces/{identity}/otlp.json")[2]

    def spans(document: str | bytes) -> dict[str, Any]:
        return {
            s.span_id.hex(): s
            for r in decode(
                Signal.TRACES, JSON, document.encode() if isinstance(document, str) else document
            ).resource_spans
            for scope in r.scope_spans
            for s in scope.spans
        }

    assert spans(text.encode()) == spans(body)


def test_chrome_trace(served: Served) -> None:
    made = Spans("front").add("a", span=1, duration_ms=30)
    made.connect("h.example", 1, span=2, parent=1, start_ms=5, duration_ms=10, error="timed_out")
    made.connect("h.example", 1, span=3, parent=1, start_ms=8, duration_ms=10)
    served.post("traces", made.body)
    served.post("traces", Spans("back").add("b", span=4, parent=2, start_ms=6).body)
    note = {"body": "note", "trace": 1, "span": 2, "time": made.now + 7_000_000}
    served.post("logs", log_request("", [note]))
    document = json.loads(served.get(f"{ADDRESS}/perfetto.json")[2])
    events = document["traceEvents"]
    complete = {e["args"]["span_id"]: e for e in events if e["ph"] == "X"}
    assert len(complete) == 4
    second = complete[span_id(2).hex()]
    assert (second["ts"], second["dur"]) == (5000, 10000)
    assert second["args"]["error"] == "timed_out"
    assert second["args"]["server.address"] == "h.example"
    # The two attempts overlap without nesting: two tracks.
    assert second["tid"] != complete[span_id(3).hex()]["tid"]
    assert second["tid"] == complete[span_id(1).hex()]["tid"]
    processes = {e["args"]["name"]: e["pid"] for e in events if e["name"] == "process_name"}
    assert set(processes) == {"front", "back"}
    assert complete[span_id(4).hex()]["pid"] == processes["back"]
    instant = next(e for e in events if e["ph"] == "i")
    assert (instant["name"], instant["ts"], instant["tid"]) == ("note", 7000, second["tid"])


def test_no_such_trace(served: Served) -> None:
    for name in ("otlp.json", "perfetto.json"):
        assert served.get(f"/traces/{'ab' * 16}/{name}")[0] == 404
        assert served.get(f"/traces/nonsense/{name}")[0] == 404


times = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=25)


@settings(deadline=None)
@given(times)
def test_what_shares_a_track_nests_or_follows(spans: list[tuple[int, int]]) -> None:
    rows = [row(i, start, start + length) for i, (start, length) in enumerate(spans)]
    placed = list(_lanes(rows))
    assert len(placed) == len(rows)
    for (a, lane_a), (b, lane_b) in combinations(placed, 2):
        if lane_a == lane_b:
            apart = a.end <= b.start or b.end <= a.start
            inside = (a.start <= b.start and b.end <= a.end) or (
                b.start <= a.start and a.end <= b.end
            )
            assert apart or inside


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
def test_the_walk_meets_each_span_once(links: list[tuple[int, int]]) -> None:
    rows = []
    for identity, parent in links:
        made = row(identity, identity, identity + 1)
        made.parent_id = "" if parent == 0 else str(parent)
        made.depth, made.children, made.orphan = 0, 0, False
        rows.append(made)
    walked = [s.span_id for s in tree_order(rows)]
    assert sorted(walked) == sorted({s.span_id for s in rows})
