"""Numbers, addresses and HTML as they are read."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracesock.dashboard import format as fmt
from tracesock.dashboard.classify import Op, host_port, op_of, split_host_port
from tracesock.dashboard.markup import Html, escape, h, visible
from tracesock.dashboard.params import Params


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2013"),
        (0, "0.00 ns"),
        (8.4e-7, "840 ns"),
        (1.234e-5, "12.3 µs"),
        (0.00124, "1.24 ms"),
        (0.9996, "1.00 s"),
        (3.02, "3.02 s"),
        (59.4, "59.4 s"),
        (125, "2 m 5 s"),
        (120, "2 m"),
        (3 * 3600 + 120, "3 h 2 m"),
        (86400 * 2, "2 d"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1420, "1.42 kB"), (999_999, "1.00 MB"), (3.1e9, "3.10 GB")],
)
def test_sizes(count: float, text: str) -> None:
    assert fmt.size(count) == text


def test_numbers_rates_and_shares() -> None:
    assert fmt.number(1234567) == "1\u202f234\u202f567"
    assert fmt.number(2.34) == "2.3"
    assert fmt.rate(12) == "12/s"
    assert fmt.rate(0.07) == "4.2/min"
    assert fmt.percent(0) == "0 %"
    assert fmt.percent(0.0004) == "<0.1 %"
    assert fmt.percent(0.024) == "2.4 %"
    assert fmt.percent(0.37) == "37 %"


def test_a_time_that_no_calendar_has_is_empty() -> None:
    assert fmt.iso(0) == "1970-01-01T00:00:00.000Z"
    assert fmt.iso((1 << 63) - 1).startswith("2262-")
    assert fmt.iso(10**30) == ""


@pytest.mark.parametrize(
    ("name", "kind", "op"),
    [
        ("DNS lookup example.org", 1, Op.LOOKUP),
        ("DNS reverse lookup 192.0.2.1", 1, Op.LOOKUP),
        ("socket connect 192.0.2.1:443", 1, Op.CONNECT),
        ("socket connection_setup example.org:443", 1, Op.SETUP),
        ("socket send /run/x.sock", 1, Op.SEND),
        ("TLS client handshake example.org", 1, Op.TLS),
        ("TLS server handshake", 1, Op.TLS),
        ("socket accept", 1, Op.ACCEPT),
        ("GET", 3, Op.CLIENT),
        ("GET /", 2, Op.SERVER),
        ("publish", 4, Op.CLIENT),
        ("consume", 5, Op.SERVER),
        ("compute", 1, Op.OTHER),
        ("", 0, Op.OTHER),
    ],
)
def test_what_a_span_is_about(name: str, kind: int, op: Op) -> None:
    assert op_of(name, kind) is op


@pytest.mark.parametrize(
    ("host", "port"),
    [("example.org", 443), ("192.0.2.1", 0), ("2001:db8::1", 443), ("/run/x.sock", 0)],
)
def test_peers_come_apart_again(host: str, port: int) -> None:
    assert split_host_port(host_port(host, port)) == (host, port)


@given(st.text())
def test_no_peer_text_breaks_the_split(text: str) -> None:
    host, port = split_host_port(text)
    assert isinstance(host, str)
    assert port >= 0


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text())
def test_no_text_becomes_markup(text: str) -> None:
    parser = _Texts()
    parser.feed(h("p", text, title=text))
    parser.close()
    assert parser.tags == ["p"]
    # The parser makes CR to LF, as HTML says.
    assert parser.text == visible(text)
    assert parser.attributes == [("title", visible(text))]


@given(st.text())
def test_nothing_deceiving_is_left(text: str) -> None:
    for char in visible(text):
        assert char in "\t\n" or not re.match(
            r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", char
        )


def test_what_deceives_is_shown_by_its_code() -> None:
    assert visible("evil\u202emoc.elgoog") == "evil⟨U+202E⟩moc.elgoog"
    assert visible("a\x1b[31m\x00b") == "a⟨U+001B⟩[31m⟨U+0000⟩b"
    assert visible("Grüße, 世界") == "Grüße, 世界"


def test_html_stays_and_values_of_attributes() -> None:
    inner = h("b", "x & y")
    assert inner == "<b>x &amp; y</b>"
    assert h("i", inner, None, 3, [escape("<"), "'"]) == ("<i><b>x &amp; y</b>3&lt;&#x27;</i>")
    assert h("input", value='"', disabled=True, hidden=False, for_="a", data_x=1) == (
        '<input value="&quot;" disabled for="a" data-x="1">'
    )
    assert isinstance(h("br"), Html)


def test_parameters_that_cannot_be_read_are_named() -> None:
    params = Params("/traces", "range=soon&min=fast&offset=x&from=yesterday&sort=up")
    params.filter(10**18, "all")
    assert params.duration("min") is None
    assert params.integer("offset", 0, 10) == 0
    assert params.choice("sort", ("a", "b"), "a") == "a"
    text = "; ".join(params.problems)
    for part in ("range=soon", "min=fast", "offset=x", "from=yesterday", "sort=up"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250", 0.25), ("250ms", 0.25), ("1.5s", 1.5), ("2m", 120), ("10us", 1e-5), ("3 h", 10800)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert Params("/", f"min={text}").duration("min") == pytest.approx(seconds)


@given(st.text(max_size=200))
def test_no_query_raises(query: str) -> None:
    params = Params("/traces", query)
    params.filter(10**18, "1h")
    for name in ("min", "max"):
        params.duration(name)
    params.link(x="y")


def test_links_keep_what_screens_share() -> None:
    params = Params("/traces", "service=a%26b&peer=h%3A1&error=any&offset=50&token=secret")
    assert params.link(error=None) == "/traces?service=a%26b&peer=h%3A1"
    assert params.to("/peers") == "/peers?service=a%26b&peer=h%3A1"
    assert "secret" not in params.link()


def test_windows_of_time() -> None:
    now = 1_800_000_000 * 10**9
    assert Params("/", "range=5m").filter(now, "1h").window.start == now - 300 * 10**9
    assert Params("/", "").filter(now, "all").window.start is None
    chosen = Params("/", "from=1800000000000&to=2027-01-15T08:00:01Z").filter(now, "all").window
    assert chosen.start == 1_800_000_000 * 10**9
    assert chosen.end == 1_800_000_001 * 10**9
