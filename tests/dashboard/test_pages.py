"""The screens' content, as HTML: what they show of what came, and empty states."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from html import unescape
from urllib.parse import quote

import pytest

from .make import SECOND, Metrics, Spans, decision, log_request, snapshot, span_id, trace_id
from .serving import DATA, Served, wait_until

SCREENS = ("/", "/traces", "/peers", "/dns", "/audit", "/health")


def text_of(page: str) -> str:
    """What a reader sees: tags away, white space as one blank."""
    body = page[page.index("<main") : page.index("</main>")].replace("<wbr>", "")
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def shown(served: Served, path: str) -> str:
    status, _, page = served.get(path)
    assert status == 200, path
    return text_of(page)


def appears(served: Served, path: str, part: str) -> None:
    """The histograms may follow the spans by a moment."""
    assert wait_until(lambda: part in shown(served, path)), shown(served, path)


@pytest.mark.parametrize("path", SCREENS)
def test_an_empty_dashboard_says_what_to_run(served: Served, path: str) -> None:
    text = shown(served, path)
    if path == "/audit":
        assert "tracesock run --policy egress.toml" in text
    else:
        assert "tracesock run your_program.py" in text
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{served.port}" in text


@pytest.mark.parametrize("path", SCREENS)
def test_every_screen_has_what_a_screen_reader_needs(served: Served, path: str) -> None:
    fill(served)
    page = served.get(path)[2]
    assert '<html lang="en">' in page
    assert page.count("<h1>") == 1
    assert page.count('aria-current="page"') == 1
    for control in re.findall(r"<(?:input|select)[^>]*>", page):
        if 'type="hidden"' in control:
            continue
        identity = re.search(r' id="([^"]+)"', control)
        assert identity, control
        assert f'<label for="{identity[1]}">' in page, control
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        assert "<caption" in table
        assert 'scope="col"' in table
    for drawing in re.findall(r"<svg[^>]*>", page):
        assert re.search(r'aria-hidden="true"|role="(img|group)"|viewBox="0 0 1000', drawing) or (
            'width="1"' in drawing
        ), drawing
    identities = re.findall(r' id="([^"]*)"', page)
    assert len(identities) == len(set(identities))


# Of a connection that is open however late the page is read, and about as old then.
LASTING = {"tracesock__connections__interval": 3600.0, "tracesock__connection__age": 7201.0}


def fill(served: Served) -> None:
    made = Spans("shop").add("GET /cart", trace=1, span=1, duration_ms=40, kind=2)
    made.add(
        "socket connection_setup db.example:5432",
        trace=1,
        span=2,
        parent=1,
        duration_ms=12,
        server__address="db.example",
        server__port=5432,
    )
    made.lookup("db.example", trace=1, span=3, parent=2, dns__answers=["192.0.2.1"])
    made.connect("db.example", 5432, trace=1, span=4, parent=2, start_ms=2, duration_ms=9)
    made.connect("bad.example", 99, trace=2, span=5, error="connection_refused")
    made.lookup("gone.example", trace=3, span=6, error="host_not_found", duration_ms=8)
    served.post("traces", made.body)
    served.post(
        "logs",
        log_request(
            "tracesock.connections.snapshot",
            [
                snapshot("c1", trace=1, span=4, **LASTING),
                snapshot("c2", server__address="db.example", **LASTING),
            ],
        ),
    )
    served.post(
        "logs",
        log_request(
            "tracesock.audit.decision",
            [
                decision(1, "allow", trace=1),
                decision(2, "deny", tracesock__audit__outcome="PermissionError"),
                decision(3, "would-deny"),
            ],
        ),
    )
    served.post(
        "logs",
        log_request(
            "tracesock.leak",
            [
                {
                    "tracesock.connection.id": "9",
                    "tracesock.leak.kind": "close_wait",
                    "tracesock.connection.age": 600.0,
                    "server.address": "leaky.example",
                    "code.stacktrace": '  File "/srv/app.py", line 12, in open\n    connect()\n',
                }
            ],
        ),
    )
    served.post(
        "metrics",
        Metrics()
        .gauge("process.unix.file_descriptor.count", 900)
        .gauge("tracesock.descriptor.limit", 1024)
        .gauge("tracesock.listen.queue.length", 5, network__local__address="0.0.0.0")
        .gauge("tracesock.listen.queue.limit", 128, network__local__address="0.0.0.0")
        .gauge(
            "tracesock.ephemeral_port.count",
            20000,
            network__peer__address="192.0.2.1",
            network__peer__port=5432,
        )
        .gauge("tracesock.ephemeral_port.limit", 28232)
        .counter("tracesock.telemetry.dropped", 7, signal="traces", reason="queue_full")
        .body,
    )
    assert wait_until(lambda: not served.dashboard.store._ingest.unsettled)


def test_connections(served: Served) -> None:
    fill(served)
    text = shown(served, "/")
    for part in (
        "Open 2 connections now",
        "Failed a minute 2",
        "Dropped telemetry 7",
        "192.0.2.7:443 shop · 77",
        "api.example:443 established 2 h 2.10 ms",
        "2.10 ms",
        "2.05 kB",
        "4.10 kB",
        "Last attempts",
        "connection_refused",
        "host_not_found",
    ):
        assert part in text, part
    page = served.get("/")[2]
    assert f"/traces/{trace_id(1).hex()}?span={span_id(4).hex()}" in page
    assert "c2" not in shown(served, "/?q=api.example")
    assert "No connections match the filter" in shown(served, "/?q=nobody")
    detail = re.search(r'href="(/\?open=[^"]+)"', page)
    assert detail
    assert "Local 10.0.0.2:50123" in shown(served, unescape(detail[1]))


def test_sorting_connections(served: Served) -> None:
    records = [
        snapshot(f"c{i}", network__peer__port=1000 + i, tracesock__tcp__rtt=rtt)
        for i, rtt in enumerate((0.003, 0.001, 0.002))
    ]
    records.append(snapshot("none", network__peer__port=1003))
    del records[-1]["tracesock.tcp.rtt"]
    served.post("logs", log_request("tracesock.connections.snapshot", records))

    def order(query: str) -> list[str]:
        return re.findall(r"192\.0\.2\.7:(\d+)</a>", served.get(f"/?{query}")[2])

    assert order("sort=rtt&dir=asc") == ["1001", "1002", "1000", "1003"]
    assert order("sort=rtt&dir=desc") == ["1000", "1002", "1001", "1003"]
    assert order("sort=peer&dir=asc") == ["1000", "1001", "1002", "1003"]
    page = served.get("/?sort=rtt&dir=asc")[2]
    assert re.search(r'aria-sort="ascending"[^>]*><a href="[^"]*dir=desc', page)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"GET /cart", "socket connect 192.0.2.1:99", "DNS lookup gone.example"}),
        ("error=any", {"socket connect 192.0.2.1:99", "DNS lookup gone.example"}),
        ("error=none", {"GET /cart"}),
        ("error=host_not_found", {"DNS lookup gone.example"}),
        ("peer=db.example:5432", {"GET /cart"}),
        ("peer=db.example", {"GET /cart"}),
        ("peer=gone.example", {"DNS lookup gone.example"}),
        ("min=20ms", {"GET /cart"}),
        ("max=5ms", {"socket connect 192.0.2.1:99"}),
        ("q=refused", {"socket connect 192.0.2.1:99"}),
        ("q=DB.EXAMPLE", {"GET /cart"}),
        ("q=%25", set()),
        ("service=shop", {"GET /cart", "socket connect 192.0.2.1:99", "DNS lookup gone.example"}),
        ("service=nobody", set()),
        ("range=5m&error=any", {"socket connect 192.0.2.1:99", "DNS lookup gone.example"}),
        ("to=2001-01-01T00:00:00Z", set()),
        (f"q={trace_id(2).hex()}", {"socket connect 192.0.2.1:99"}),
        ("q=0000000000", {"GET /cart", "socket connect 192.0.2.1:99", "DNS lookup gone.example"}),
    ],
)
def test_traces_by_filter(filled: Served, query: str, found: set[str]) -> None:
    page = filled.get(f"/traces?{query}")[2]
    assert set(re.findall(r'class="row-link">([^<]+)</a>', page)) == found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> object:
    from .serving import serve

    running = serve(tmp_path_factory.mktemp("filled") / "s.sqlite3")
    fill(running)
    yield running
    running.stop()


def test_pages_of_traces(served: Served) -> None:
    made = Spans()
    for i in range(120):
        made.add(f"work {i}", trace=i + 1, duration_ms=i + 1)
    served.post("traces", made.body)

    def names(query: str) -> list[str]:
        return re.findall(r'class="row-link">work (\d+)</a>', served.get(f"/traces?{query}")[2])

    first = names("sort=duration")
    assert first == [str(i) for i in range(119, 69, -1)]
    page = served.get("/traces?sort=duration")[2]
    following = re.search(r'href="([^"]+)" class="button" rel="next"', page)
    assert following
    assert names(unescape(following[1]).partition("?")[2])[0] == "69"
    assert names("sort=duration&offset=100") == [str(i) for i in range(19, -1, -1)]
    # The newest to arrive come first without a sort.
    assert names("")[0] == "119"


def test_a_waterfall(filled: Served) -> None:
    address = f"/traces/{trace_id(1).hex()}"
    text = shown(filled, address)
    for part in ("GET /cart", "4 spans", "40.0 ms", "DNS lookup db.example"):
        assert part in text, part
    page = filled.get(address)[2]
    order = re.findall(r'id="s-[0-9a-f]+" class="depth-(\d+)', page)
    assert order == ["0", "1", "2", "2"]
    # The connect begins 2 ms into 40 ms, that is at 5 %, and takes 9 ms.
    assert re.search(r'<rect x="5\.000%" y="7" width="22\.500%"[^>]*op-connect', page)
    side = shown(filled, f"{address}?span={span_id(4).hex()}")
    for part in ("network.peer.address 192.0.2.1", "Peer db.example:5432", "Scope tracesock"):
        assert part in side, part
    within = shown(filled, f"{address}?within=lookup")
    assert "1 of 4 spans match" in within
    zoomed = filled.get(f"{address}?zoom={span_id(4).hex()}")[2]
    assert re.search(r'<rect x="4\.\d+%" y="7" width="90\.\d+%"[^>]*op-connect', zoomed)


def test_markers_and_stalls(served: Served) -> None:
    made = Spans().add(
        "socket send 192.0.2.1:443",
        span=1,
        duration_ms=100,
        error="broken_pipe",
        tracesock__send__stall__duration=0.05,
        tracesock__tcp__retransmits=2,
    )
    served.post("traces", made.body)
    at = made.now + 50_000_000
    record = {"body": "low on patience", "trace": 1, "span": 1, "time": at}
    served.post("logs", log_request("", [record]))
    retransmit = {"trace": 1, "span": 1, "time": at}
    served.post("logs", log_request("tracesock.tcp.retransmit", [retransmit]))
    page = served.get(f"/traces/{trace_id(1).hex()}?span={span_id(1).hex()}")[2]
    assert '<rect x="50.000%" y="7" width="50.000%" height="12" class="bar stall">' in page
    assert page.count('class="marker retransmit"') == 2
    assert re.search(r'x="50\.000%"[^>]*class="marker retransmit"', page)
    assert 'class="marker error"' in page
    assert "stalled for 50.0 ms, 2 retransmits" in text_of(page)
    assert "low on patience" in text_of(page)


def test_a_trace_that_is_not_there(served: Served) -> None:
    status, _, page = served.get("/traces/" + "ab" * 16)
    assert status == 404
    assert "This trace is not stored" in text_of(page)
    for path in ("/traces/xyz", "/traces/" + "ab" * 15, "/traces/" + "AB" * 16, "/nothing"):
        assert served.get(path)[0] == 404, path


def test_another_language_shows_correctly(served: Served) -> None:
    body = (DATA / "javascript_sdk.json").read_bytes()
    assert served.post("traces", body, "application/json")[0] == 200
    spans = [
        span
        for resource in json.loads(body)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    identity = spans[0]["traceId"]
    listed = shown(served, "/traces")
    assert "render /product" in listed
    assert "storefront" in listed
    page = served.get(f"/traces/{identity}")[2]
    text = text_of(page)
    assert f"{len(spans)} spans" in text
    # The root, its two requests, and the server's span below the first.
    depths = re.findall(r'id="s-([0-9a-f]+)" class="depth-(\d+)', page)
    assert [d for _, d in depths] == ["0", "1", "2", "1"]
    root = next(s for s in spans if not s.get("parentSpanId"))
    side = shown(served, f"/traces/{identity}?span={root['spanId']}")
    assert 'page.name product <b>&"1"' in side
    assert "page.items 1, 2, 3" in side
    assert "Scope storefront.pages 3.2.0" in side
    assert "telemetry.sdk.language nodejs" in side
    assert "rendered" in side
    failed = next(s for s in spans if s["status"]["code"] == 2)
    side = shown(served, f"/traces/{identity}?span={failed['spanId']}")
    assert "Message connect ECONNREFUSED 127.0.0.1:1" in side
    assert "Peer 127.0.0.1:1" in side
    appears(served, "/peers?range=all", "storefront localhost:8778")


def test_peers(filled: Served) -> None:
    text = shown(filled, "/peers")
    for part in (
        "Connect latency",
        "shop db.example:5432 connects",
        "connection_refused (connect) 1",
        "host_not_found (look-up) 1",
        "100 % fail",
    ):
        assert part in text, part
    narrowed = shown(filled, "/peers?peer=db.example:5432")
    assert "bad.example" not in narrowed
    assert "Peer db.example:5432" in narrowed
    page = filled.get("/peers?peer=db.example:5432")[2]
    assert '<a href="/audit?peer=db.example%3A5432"' in page


@pytest.mark.parametrize("path", SCREENS)
def test_a_peer_narrows_every_screen(filled: Served, path: str) -> None:
    everything = shown(filled, path)
    nothing = shown(filled, f"{path}?peer={quote('nobody.example:1')}")
    assert "nobody.example:1" in nothing or path == "/traces"
    for part in ("192.0.2.7:443 shop", "GET /cart", "bad.example", "rule-deny", "leaky.example"):
        if part in everything:
            assert part not in nothing, part


def test_names(filled: Served) -> None:
    text = shown(filled, "/dns")
    assert "db.example 1 " in text
    assert "192.0.2.1" in text
    assert "host_not_found 1" in text
    assert "gone.example" not in shown(filled, "/dns?q=db")


def test_audit(filled: Served) -> None:
    text = shown(filled, "/audit")
    for part in ("1 Allow", "1 Deny", "1 Would deny", "✓ intact", "3 records, 1 to 3"):
        assert part in text, part
    assert "✕ Deny" in text
    assert "! Would deny" in text
    only = shown(filled, "/audit?action=deny")
    assert "rule-allow" not in only.partition("Decisions newest first")[2]
    assert "rule-deny" in only
    assert "No decisions match" in shown(filled, "/audit?rule=other")
    assert trace_id(1).hex() in filled.get("/audit")[2]


def test_health(filled: Served) -> None:
    text = shown(filled, "/health")
    for part in (
        "shop process 77 900 of 1 024",
        "0.0.0.0 shop 5 of 128",
        "192.0.2.1:5432 shop 20 000 of 28 232",
        "close wait",
        "/srv/app.py, line 12, in open",
        "Spans 6",
    ):
        assert part in text, part
    page = filled.get("/health")[2].replace("\u202f", " ")
    assert 'aria-label="shop: 900 of 1 024 descriptors, 88 %"' in page
    assert 'class="meter-fill warn"' in page


def test_ports_are_counted_from_snapshots_where_they_are_not_reported(served: Served) -> None:
    records = [snapshot(f"c{i}", network__local__port=50000 + i) for i in range(3)]
    served.post("logs", log_request("tracesock.connections.snapshot", records))
    assert "192.0.2.7:443 shop 3 of 28 232 by Linux's default range" in shown(served, "/health")


def test_addresses_that_cannot_be_read_are_told(filled: Served) -> None:
    text = shown(filled, "/traces?range=soon&min=fast")
    assert "range=soon is none of" in text
    assert "min=fast is not a duration" in text
    assert "GET /cart" in text


def test_figures_for_programs(filled: Served) -> None:
    document = json.loads(filled.get("/api/connections?sort=rtt&limit=1")[2])
    assert document["open"] == 2
    assert len(document["connections"]) == 1
    assert document["connections"][0]["rtt"] == pytest.approx(0.0021)
    status, _, text = filled.get("/api/connections?sort=colour")
    assert status == 400
    assert "sort=colour is none of" in text


def test_old_data_is_offered(served: Served) -> None:
    made = Spans().connect("old.example", 1, span=1)
    for span in made.request.resource_spans[0].scope_spans[0].spans:
        span.start_time_unix_nano -= 5 * 86400 * SECOND
        span.end_time_unix_nano -= 5 * 86400 * SECOND
    served.post("traces", made.body)
    assert wait_until(lambda: not served.dashboard.store._ingest.unsettled)
    text = shown(served, "/peers")
    assert "No peers in this time" in text
    page = served.get("/peers")[2]
    link = re.search(r'href="([^"]+)" class="button">Show all stored', page)
    assert link
    assert "old.example:1" in shown(served, unescape(link[1]))


def test_many_spans_in_one_trace_are_bounded(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracesock.dashboard.pages.trace.MAX_WATERFALL", 50)
    made = Spans().add("root", span=1, duration_ms=500)
    for i in range(99):
        made.add(f"child {i}", span=i + 2, parent=1, start_ms=i)
    served.post("traces", made.body)
    text = shown(served, f"/traces/{trace_id(1).hex()}")
    assert "the first 50 of 100 spans" in text
    assert served.get(f"/traces/{trace_id(1).hex()}")[2].count('<li id="s-') == 50


def test_rendering_is_quick_for_many_connections(start: Callable[..., Served]) -> None:
    served = start()
    records = [snapshot(f"c{i}", network__local__port=i, **LASTING) for i in range(3000)]
    for i in range(0, 3000, 500):
        served.post("logs", log_request("tracesock.connections.snapshot", records[i : i + 500]))
    began = time.process_time()
    text = shown(served, "/")
    assert "Open 3 000 connections now" in text
    assert 100 <= text.count("established") <= 102
    # One page of rows, whatever there is: far from a second of work.
    assert time.process_time() - began < 5


def test_the_edges_are_shown_page_by_page(served: Served) -> None:
    made = Spans("crawler")
    for number in range(130):
        for _ in range(1 + (number < 5)):
            made.connect(f"host-{number:03}.example", 443, trace=number + 1)
    assert served.post("traces", made.body)[0] == 200
    appears(served, "/peers", "130, busiest first")

    def peers(query: str) -> list[str]:
        return re.findall(r'id="e-crawler-(host-\d+)', served.get(f"/peers{query}")[2])

    first, second = peers(""), peers("?offset=100")
    assert first[:5] == [f"host-{number:03}" for number in range(5)]
    assert len(first) == 100 and len(second) == 30
    assert sorted(first + second) == [f"host-{number:03}" for number in range(130)]
    # The map stays that of the busiest.
    assert "the 16 busiest of 130 edges" in shown(served, "/peers?offset=100")
    assert "101\u2013130" in shown(served, "/peers?offset=100")
