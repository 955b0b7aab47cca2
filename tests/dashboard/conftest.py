"""A running dashboard, and a browser to look at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .serving import Served, serve

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A fresh dashboard."""
    running = serve(tmp_path / "dashboard.sqlite3")
    yield running
    running.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """A function that starts dashboards with other settings."""
    running: list[Served] = []

    def begin(**settings: Any) -> Served:
        database = settings.pop("database", tmp_path / f"{len(running)}.sqlite3")
        running.append(serve(database, **settings))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


# For a module, not longer: while it runs, playwright's event loop is the main thread's, and no
# other test could run one there.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium by playwright; the test is skipped where one of them is missing."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing: pip install playwright"
    )
    path = next(
        (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
    )
    if path is None:
        pytest.skip("Chromium is missing: apt install chromium")
    # Its launcher script asks the environment; nothing of ours belongs there.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=FLAGS, env=environment, timeout=120_000
        )
        yield browser
        browser.close()
