"""Starting dashboards and talking to them."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracesock.dashboard.server import Dashboard, Settings

DATA = Path(__file__).parent / "data"


@dataclass
class Served:
    """A dashboard that runs in a thread of this process."""

    dashboard: Dashboard
    thread: threading.Thread

    @property
    def port(self) -> int:
        return self.dashboard.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of a GET."""
        status, answered, body = self.request("GET", path, headers=headers)
        return status, answered, body.decode()

    def post(
        self, signal: str, body: bytes, content_type: str = "application/x-protobuf", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to an OTLP request."""
        return self.request(
            "POST", f"/v1/{signal}", body, {"content-type": content_type, **headers}
        )

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Any = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.putrequest(method, path, skip_host="host" in (headers or {}))
            for name, value in (headers or {}).items():
                connection.putheader(name.replace("_", "-"), value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return (
                response.status,
                {k.lower(): v for k, v in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/api/status") as response:
            document: dict[str, Any] = json.load(response)
        return document

    def stop(self) -> None:
        self.dashboard.stop()
        self.thread.join(100)
        assert not self.thread.is_alive(), "the dashboard did not end"


def serve(database: Path, **settings: Any) -> Served:
    """Starts a dashboard on a free port and returns once it answers."""
    settings.setdefault("otlp_port", None)
    dashboard = Dashboard(Settings(database, port=0, **settings))
    ready = threading.Event()
    thread = threading.Thread(target=dashboard.run, args=(ready.set,), daemon=True)
    thread.start()
    assert ready.wait(100), "the dashboard did not start"
    return Served(dashboard, thread)


def wait_until(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits for a true value of `check` and returns it."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.02)
