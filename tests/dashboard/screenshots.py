"""The screenshots of docs/images, from the demo's own traffic.

    python tests/dashboard/screenshots.py [--wait SECONDS] [--dashboard URL]

Starts `tracesock demo`, waits until its traffic has filled every screen, and takes each screen in
light and dark, at 1400 by 900 and at 390 by 844. Needs Chromium and playwright; where `pngquant` is
installed the pictures get smaller. Their time zone is UTC.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SIZES = {"desktop": (1400, 900), "phone": (390, 844)}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]


@contextmanager
def demo() -> Iterator[str]:
    """The address of the dashboard of a running demo."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "TRACESOCK_"))}
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "tracesock", "demo"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Dashboard:"):
                yield line.split()[1].rstrip("/")
                return
        raise RuntimeError("the demo did not start")
    finally:
        process.terminate()
        process.wait(60)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def telling_trace(base: str) -> tuple[str, str]:
    """A trace through all services with a handshake and a stall, and its stalled send."""
    for path in ("/traces?q=TLS&min=150ms", "/traces?q=TLS", "/traces?q=pay"):
        for identity in re.findall(r'id="t-([0-9a-f]{32})"', fetch(base + path)):
            document = json.loads(fetch(f"{base}/traces/{identity}/otlp.json"))
            spans = [
                span
                for resource in document["resourceSpans"]
                for scope in resource["scopeSpans"]
                for span in scope["spans"]
            ]
            names = " ".join(span["name"] for span in spans)
            stalled = [
                span["spanId"]
                for span in spans
                for each in span.get("attributes", ())
                if each["key"] == "tracesock.send.stall.duration"
                and each["value"].get("doubleValue", 0) > 0.01
            ]
            whole = all(part in names for part in ("GET checkout", "TLS client", "GET /pay"))
            if whole and stalled:
                return identity, stalled[0]
    raise RuntimeError("no trace with a handshake and a stall yet: wait longer")


def take(base: str, directory: Path) -> None:
    """Every screen, in both themes and sizes."""
    trace, span = telling_trace(base)
    screens = {
        "connections": "/",
        "traces": "/traces",
        "waterfall": f"/traces/{trace}",
        "span": f"/traces/{trace}?span={span}",
        "peers": "/peers",
        "dns": "/dns",
        "audit": "/audit",
        "health": "/health",
    }
    directory.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium", args=FLAGS
        )
        for theme in ("light", "dark"):
            for size, (width, height) in SIZES.items():
                context = browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=theme,
                    locale="en-GB",
                    timezone_id="UTC",
                    reduced_motion="reduce",
                )
                for name, path in screens.items():
                    picture(context, base + path, directory / f"{name}-{theme}-{size}.png")
                context.close()
        browser.close()


def picture(context: Any, address: str, path: Path) -> None:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("[data-state=live]")
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    page.close()
    quant = shutil.which("pngquant")
    if quant:
        subprocess.run([quant, "--force", "--ext", ".png", "--quality", "70-95", path], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--wait", type=float, default=150, help="seconds of traffic before")
    parser.add_argument("--dashboard", help="one whose demo runs already")
    parser.add_argument("--directory", type=Path, default=IMAGES)
    options = parser.parse_args()
    if options.dashboard:
        take(options.dashboard.rstrip("/"), options.directory)
    else:
        with demo() as base:
            time.sleep(options.wait)
            take(base, options.directory)
    size = sum(path.stat().st_size for path in options.directory.glob("*.png"))
    print(f"{options.directory}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
