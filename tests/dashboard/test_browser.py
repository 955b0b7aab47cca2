"""Every screen in a real browser, fed by the real OpenTelemetry SDK."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tracesock.dashboard.server import Dashboard, Settings

from .make import Spans
from .serving import Served, serve, wait_until
from .traffic import SECOND, Traffic

DESKTOP = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}


SHOWN = "document.documentElement.dataset.shown === location.pathname + location.search"

# A web socket that never opens.
_NEVER_LIVE = """
window.WebSocket = class extends EventTarget {
  static OPEN = 1;
  readyState = 0;
};
"""


def until(page: Any, expression: str) -> None:
    """Waits for a true value. Playwright's own wait evaluates text in the page: not allowed."""
    assert wait_until(lambda: page.evaluate(expression), 40), expression


class Watched:
    """A page that notes what it asked for and what it complained about."""

    def __init__(self, browser: Any, served: Served, **options: Any) -> None:
        options.setdefault("viewport", DESKTOP)
        self.context = browser.new_context(timezone_id="Asia/Kathmandu", locale="en-GB", **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(40_000)
        self.served = served
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.loads = 0
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("load", lambda _: setattr(self, "loads", self.loads + 1))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, path: str) -> Any:
        self.page.goto(self.served.url + path)
        self.page.wait_for_selector("[data-state=live]")
        return self.page

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []
        for url in self.requests:
            assert urllib.parse.urlsplit(url).netloc == f"127.0.0.1:{self.served.port}", url


@pytest.fixture
def watch(chromium: Any) -> Iterator[Callable[..., Watched]]:
    """Pages that are checked, when the test ends, for errors and for foreign requests."""
    opened: list[Watched] = []

    def begin(served: Served, **options: Any) -> Watched:
        opened.append(Watched(chromium, served, **options))
        return opened[-1]

    yield begin
    for each in opened:
        each.close()


@pytest.fixture
def traffic(served: Served) -> Iterator[Traffic]:
    made = Traffic(served.url)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A dashboard that has seen some traffic and gets no more."""
    running = serve(tmp_path_factory.mktemp("busy") / "s.sqlite3")
    made = Traffic(running.url)
    made.history(6)
    made.leak()
    made.tick(3600)
    made.flush()
    made.shutdown()
    assert wait_until(lambda: not running.dashboard.store._ingest.unsettled)
    yield running
    running.stop()


# -- data appears without reload -------------------------------------------------------------------


def test_connections_appear(served: Served, traffic: Traffic, watch: Any) -> None:
    watched = watch(served)
    page = watched.open("/")
    page.get_by_text("Waiting for telemetry").wait_for()
    traffic.request()
    traffic.tick(3600)  # open all the while, however slow the browser is
    traffic.flush()
    page.locator("table.connections, .connections table").get_by_text(
        "10.20.0.15:5432"
    ).first.wait_for()
    page.get_by_text("api.bank.example:443").first.wait_for()
    until(page, "document.querySelector('.tile .figure').innerText === '21'")
    page.locator(".tile", has_text="Connect p95").get_by_text("from").wait_for()
    # The next snapshot changes what is shown.
    # Which of the three services is the first to arrive, chance decides: it has the number 1.
    cell = "[id^='c-'][id$='-4211:10'] td[data-label=Sent]"
    before = page.locator(cell).inner_text()
    traffic.checkout.links[0].sent += 77_000_000
    traffic.tick(3600)
    traffic.flush()
    sent = f'document.querySelector("{cell}").innerText'
    until(page, f"{sent} !== {json.dumps(before)}")
    assert watched.loads == 1


def test_traces_appear_and_their_spans(served: Served, traffic: Traffic, watch: Any) -> None:
    watched = watch(served)
    page = watched.open("/traces")
    page.get_by_text("Waiting for telemetry").wait_for()
    identity = traffic.request()
    traffic.flush()
    page.locator(f"#t-{identity}").wait_for()
    page.locator(f"#t-{identity} .row-link").click()
    page.get_by_role("heading", name="Waterfall").wait_for()
    count = page.locator(".wf-rows > li").count()
    assert count > 5
    # A span of another service comes late to the open page.
    late = Spans("archive").add("late work", trace=int(identity, 16), span=1, duration_ms=2)
    assert served.post("traces", late.body)[0] == 200
    page.get_by_text("late work").first.wait_for()
    assert page.locator(".wf-rows > li").count() == count + 1
    assert watched.loads == 1


def test_a_trace_may_be_opened_before_it_arrives(served: Served, watch: Any) -> None:
    context = watch(served)
    context.page.goto(f"{served.url}/traces/{5:032x}")
    context.page.get_by_text("This trace is not stored").wait_for()
    served.post("traces", Spans().add("at last", trace=5).body)
    context.page.get_by_role("heading", name="at last").first.wait_for()
    # The 404 of the document is what the browser tells.
    assert all("404" in text for text in context.complaints)
    context.complaints.clear()


def test_peers_appear(served: Served, traffic: Traffic, watch: Any) -> None:
    watched = watch(served)
    page = watched.open("/peers")
    page.get_by_text("Waiting for telemetry").wait_for()
    traffic.history(2)
    traffic.flush()
    page.locator(".graph .node", has_text="checkout").first.wait_for()
    page.locator(".heat-cells .heat").first.wait_for()
    page.locator(".graph .node", has_text="smtp.mail").first.wait_for()
    assert watched.loads == 1


def test_names_appear(served: Served, traffic: Traffic, watch: Any) -> None:
    watched = watch(served)
    page = watched.open("/dns")
    page.get_by_text("Waiting for telemetry").wait_for()
    traffic.request()
    for _ in range(4):
        traffic.lookup(traffic.catalog, "old-feed.example", None, time.time_ns(), "host_not_found")
    traffic.flush()
    page.get_by_role("link", name="old-feed.example").wait_for()
    page.get_by_text("Repeated negative answers").wait_for()
    assert watched.loads == 1


def test_decisions_appear(served: Served, traffic: Traffic, watch: Any) -> None:
    watched = watch(served)
    page = watched.open("/audit")
    page.get_by_text("No audit decisions yet").wait_for()
    for _ in range(40):
        traffic.decide()
    traffic.flush()
    page.get_by_text("40 records, 1 to 40, every link holds").wait_for()
    for text, mark in (("Allow", "✓"), ("Deny", "✕"), ("Would deny", "!")):
        page.locator(".decision .badge", has_text=f"{mark} {text}").first.wait_for()
    # One that is missing is seen at once.
    traffic.sequence += 1
    traffic.decide()
    traffic.flush()
    page.get_by_text("✕ broken").wait_for()
    page.get_by_text("1 missing").wait_for()
    assert watched.loads == 1


def test_health_appears(served: Served, traffic: Traffic, watch: Any) -> None:
    watched = watch(served)
    page = watched.open("/health")
    page.get_by_text("Waiting for telemetry").wait_for()
    traffic.tick()
    traffic.leak()
    traffic.flush()
    page.get_by_text("19\u202f800 of 28\u202f232").wait_for()
    page.get_by_text("close wait", exact=True).wait_for()
    page.get_by_text("never closed", exact=True).wait_for()
    page.locator(".uses", has_text="process 4211").get_by_text("of 1\u202f024").first.wait_for()
    assert served.post("traces", b"\xff")[0] == 400
    page.get_by_text("malformed (400)").wait_for()
    assert watched.loads == 1


# -- using it --------------------------------------------------------------------------------------


def test_links_filters_and_back_without_loading(busy: Served, watch: Any) -> None:
    watched = watch(busy)
    page = watched.open("/traces")
    rows = page.locator("tbody tr")
    everything = rows.count()
    page.fill("#f-q", "import feed")
    until(page, "location.search === '?q=import+feed'")
    until(page, SHOWN)
    assert 0 < rows.count() < everything
    assert page.evaluate("document.activeElement.id") == "f-q"
    assert page.input_value("#f-q") == "import feed"
    page.fill("#f-q", "")
    until(page, "location.search === ''")
    page.select_option("#f-error", "any")
    until(page, "location.search === '?error=any'")
    failed = "document.querySelectorAll('td[data-label=Errors] .badge').length"
    until(page, f"document.querySelectorAll('tbody tr').length === {failed}")
    page.select_option("#f-service", "catalog")
    until(page, "location.search.includes('service=catalog')")
    # The service goes along to another screen.
    page.get_by_role("navigation", name="Screens").get_by_text("Peers").click()
    page.get_by_role("heading", name="Peers", exact=True).wait_for()
    assert page.evaluate("location.pathname + location.search") == "/peers?service=catalog"
    assert page.input_value("#f-service") == "catalog"
    page.go_back()
    page.get_by_role("heading", name="Traces").first.wait_for()
    assert page.input_value("#f-error") == "any"
    assert watched.loads == 1


def test_a_click_on_the_map_narrows_all_screens(busy: Served, watch: Any) -> None:
    watched = watch(busy)
    page = watched.open("/peers?range=all")
    page.locator(".graph .node", has_text="api.bank").click()
    until(page, "new URLSearchParams(location.search).get('peer') === 'api.bank.example:443'")
    page.locator(".chip", has_text="api.bank.example:443").wait_for()
    for screen in ("Connections", "Traces", "DNS", "Audit", "Health"):
        page.get_by_role("navigation", name="Screens").get_by_text(screen).click()
        page.get_by_role("heading", name=screen, exact=True).first.wait_for()
        assert "peer=api.bank.example%3A443" in page.url
        assert "feed.partner.example" not in page.locator("main").inner_text()
    page.locator(".chip", has_text="api.bank").click()
    until(page, "!location.search.includes('peer')")
    assert watched.loads == 1


def test_deep_links_show_the_same(busy: Served, watch: Any) -> None:
    page = watch(busy).open("/audit?action=deny&rule=metadata&range=all")
    assert page.input_value("#f-action") == "deny"
    assert page.input_value("#f-range") == "all"
    assert page.locator(".decision").count() == page.locator(".decision.deny").count() > 0
    page = watch(busy).open("/?sort=rtt&dir=asc&state=close_wait")
    assert page.locator("tbody tr.gone, tbody tr").first.inner_text().count("close_wait") == 1


def test_a_span_by_mouse_and_by_keys(busy: Served, watch: Any) -> None:
    page = watch(busy).open("/traces?q=%2Fcheckout")
    page.locator(".row-link").first.click()
    page.get_by_role("heading", name="Waterfall").wait_for()
    rows = page.locator(".wf-rows > li")
    count = rows.count()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('li').dataset.depth") == "0"
    page.keyboard.press("ArrowLeft")
    assert page.locator(".wf-rows > li:visible").count() == 1
    page.keyboard.press("ArrowRight")
    assert page.locator(".wf-rows > li:visible").count() == count
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#details").wait_for()
    assert "span=" in page.url
    page.get_by_role("link", name="Zoom to this span").click()
    page.get_by_role("link", name="Whole trace").wait_for()
    page.keyboard.press("Escape")
    until(page, "!location.search.includes('span=')")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "f-within"
    page.keyboard.type("lookup")
    until(page, "document.querySelectorAll('.wf-rows .dim').length > 0")
    # Folding is not undone by an update.
    page.keyboard.press("Escape")
    page.locator(".fold").first.click()
    assert wait_until(lambda: page.locator(".wf-rows > li:visible").count() == 1)


def test_an_update_takes_nothing_from_who_types(busy: Served, watch: Any) -> None:
    page = watch(busy).open("/traces?q=%2Fcheckout")
    page.locator(".row-link").first.click()
    page.get_by_role("heading", name="Waterfall").wait_for()
    page.locator(".wf-rows a").nth(1).click()
    page.get_by_role("link", name="Zoom to this span").click()
    page.get_by_role("link", name="Whole trace").wait_for()
    page.focus("#f-within")
    page.keyboard.type("look")
    until(page, "location.search.includes('within=look')")
    # The form loses a hidden field while its search has the focus.
    page.evaluate("document.querySelector('[data-role=close]').click()")
    until(page, "!location.search.includes('span=')")
    until(page, SHOWN)
    assert page.evaluate("document.activeElement.id") == "f-within"
    page.keyboard.type("up")
    assert page.input_value("#f-within") == "lookup"
    until(page, "location.search.includes('within=lookup')")


def test_keys_lead_to_screens_and_tell_about_themselves(busy: Served, watch: Any) -> None:
    watched = watch(busy)
    page = watched.open("/")
    for key, path in (("2", "/traces"), ("3", "/peers"), ("6", "/health"), ("1", "/")):
        page.keyboard.press(key)
        until(page, f"location.pathname === '{path}'")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")


def test_the_first_stop_leads_past_the_navigation_also_before_the_page_is_live(
    busy: Served, watch: Any
) -> None:
    watched = watch(busy)
    page = watched.page
    page.add_init_script(_NEVER_LIVE)
    page.goto(busy.url + "/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    until(page, "location.hash === '#main'")
    # A document that were loaded anew would begin at its top, and ask once more.
    page.wait_for_timeout(500)
    until(page, "document.activeElement.id === 'main'")
    assert watched.loads == 1


def test_pausing_holds_the_page_still(served: Served, traffic: Traffic, watch: Any) -> None:
    page = watch(served).open("/traces")
    traffic.request()
    traffic.flush()
    page.locator(".row-link").first.wait_for()
    page.keyboard.press("p")
    page.get_by_role("button", name="Paused").wait_for()
    identity = traffic.request()
    traffic.flush()
    # Nothing is pushed while paused; an address that is asked for is answered all the same.
    page.wait_for_timeout(1500)
    assert page.locator(f"#t-{identity}").count() == 0
    page.keyboard.press("p")
    page.locator(f"#t-{identity}").wait_for()


def test_the_theme_is_chosen_and_kept(busy: Served, watch: Any) -> None:
    watched = watch(busy, color_scheme="light")
    page = watched.open("/")

    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor"))

    light = background()
    page.keyboard.press("t")
    page.keyboard.press("t")
    page.get_by_text("Dark", exact=True).wait_for()
    dark = background()
    assert dark != light
    page.reload()
    page.wait_for_selector("[data-state=live]")
    assert background() == dark
    page.keyboard.press("t")
    assert wait_until(lambda: background() == light)


def test_times_are_in_the_viewers_zone(served: Served, watch: Any) -> None:
    made = Spans().add("work", trace=3, span=9)
    served.post("traces", made.body)
    page = watch(served).open(f"/traces/{3:032x}?span={9:016x}")
    shown = page.locator(".facts time").first.inner_text()
    # Kathmandu is 5:45 ahead of UTC, whatever the machine's zone is.
    local = time.gmtime(made.now / SECOND + 5 * 3600 + 45 * 60)
    assert time.strftime("%H:%M:%S", local) in shown
    assert "5:45" in shown
    page.goto(f"{served.url}/traces")
    # With the day before it, where midnight has come there meanwhile.
    assert time.strftime("%H:%M:%S", local) in page.locator("td time").first.inner_text()


def test_it_comes_back_when_the_dashboard_does(
    tmp_path: Path, chromium: Any, start: Callable[..., Served]
) -> None:
    served = start(database=tmp_path / "s.sqlite3")
    served.post("traces", Spans().add("before", trace=1).body)
    watched = Watched(chromium, served)
    page = watched.open("/traces")
    port = served.port
    served.stop()
    page.get_by_role("button", name="Offline").wait_for()
    again = Dashboard(Settings(tmp_path / "s.sqlite3", port=port, otlp_port=None))
    thread = threading.Thread(target=again.run, daemon=True)
    thread.start()
    page.get_by_role("button", name="Live").wait_for()
    Served(again, thread).post("traces", Spans().add("afterwards", trace=2).body)
    page.get_by_text("afterwards").first.wait_for()
    again.stop()
    thread.join(20)
    watched.context.close()


def test_downloads(busy: Served, watch: Any, tmp_path: Path) -> None:
    page = watch(busy).open("/traces?q=%2Fcheckout")
    page.locator(".row-link").first.click()
    for name in ("OTLP JSON", "Perfetto"):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        document = json.loads(path.read_text())
        assert "resourceSpans" in document or "traceEvents" in document


def test_without_scripts_it_is_read_all_the_same(busy: Served, watch: Any) -> None:
    watched = watch(busy, java_script_enabled=False)
    page = watched.page
    page.goto(f"{busy.url}/traces?error=any")
    assert page.locator("tbody tr").count() > 0
    page.locator(".row-link").first.click()
    page.get_by_role("heading", name="Waterfall").wait_for()
    page.goto(f"{busy.url}/traces")
    page.fill("#f-q", "feed")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**q=feed**")


# -- how it looks ----------------------------------------------------------------------------------


def screens(busy: Served) -> list[str]:
    """Every screen, a trace, and a span of it."""
    listed = busy.get("/traces?q=%2Fcheckout&error=any")[2]
    found = re.search(r'id="t-([0-9a-f]{32})"', listed)
    assert found
    trace = f"/traces/{found[1]}"
    span = re.search(r'id="s-([0-9a-f]{16})" class="[^"]*failed', busy.get(trace)[2])
    assert span
    all_screens = ["/", "/traces", "/peers", "/dns", "/audit", "/health"]
    return [*all_screens, trace, f"{trace}?span={span[1]}", "/nothing"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_lies_outside_the_window(busy: Served, watch: Any, size: dict[str, int]) -> None:
    watched = watch(busy, viewport=size)
    for path in screens(busy):
        page = watched.open(path)
        wider = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wider <= 0, path
        # What is clicked has room, or is text in a line (WCAG 2.2, 2.5.8).
        small = page.evaluate(
            "[...document.querySelectorAll('button, nav a, .button, input, select')]"
            ".filter(e => e.offsetParent && getComputedStyle(e).visibility === 'visible')"
            ".map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect()])"
            ".filter(([, r]) => r.width > 0 && (r.height < 20 || r.width < 20)).map(([t]) => t)"
        )
        assert small == [], path
    watched.complaints = [c for c in watched.complaints if "404" not in c]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(busy: Served, watch: Any, scheme: str) -> None:
    """WCAG 2.2, 1.4.3 (AA): 4.5, and 3 for large text, against what lies behind the text."""
    watched = watch(busy, color_scheme=scheme)
    for path in screens(busy):
        page = watched.open(path)
        assert page.evaluate(_CONTRAST) == [], path
    watched.complaints = [c for c in watched.complaints if "404" not in c]


_CONTRAST = """
() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => {
    const a = top[3] / 255;
    return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a)).concat(255);
  };
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color[3]) layers.unshift(color);
      if (color[3] === 255) break;
    }
    return layers.reduce((below, top) => over(top, below), [255, 255, 255, 255]);
  };
  const light = (color) => {
    const [r, g, b] = color.map((c) => {
      c /= 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const poor = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    if (element.closest("noscript, title, option, .skip, .sr, script")) continue;
    const style = getComputedStyle(element);
    if (style.visibility !== "visible") continue;
    const svg = element.closest("svg");
    const color = rgba(svg ? style.fill : style.color);
    const back = behind(svg ? svg.parentElement : element);
    if (svg && element.closest(".node")) continue;
    const [a, b] = [light(over(color, back)), light(back)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) {
      const text = walker.currentNode.data.trim().slice(0, 30);
      poor.add(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 60)}: ${text}`);
    }
  }
  return [...poor];
}
"""
