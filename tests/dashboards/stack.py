"""Prometheus in processes of the check's own, fed both ways: by scrape, and by remote write."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "dashboards" / "prometheus").glob("*.rules.yml"))
# Neither a proxy nor tracesock is between the check and what it started.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Unavailable(Exception):
    """A part could not be started; the text says what it said."""


_held: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody else gets while this process lives: not even as the port of a connection,
    of which the load makes as many as there are ports. A server can listen on it that allows its
    address to be used again (SO_REUSEADDR), as those of Go and http.server do."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    port: int = held.getsockname()[1]
    return port


def missing() -> str:
    """What is to be installed; empty where everything is there."""
    names = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{', '.join(names)} (Debian: apt install prometheus)" if names else ""


def compressed_rules(folder: Path, window: float) -> list[Path]:
    """The rules with `window` seconds in place of their 5 minutes: time goes faster here."""
    made = []
    for path in RULES:
        text = path.read_text()
        assert "[5m]" in text or path.name.startswith("alerts")
        made.append(folder / path.name)
        made[-1].write_text(text.replace("[5m]", f"[{window:g}s]"))
    return made


def configuration(
    targets: dict[str, int],
    *,
    interval: float,
    rules: Sequence[Path],
    remote: int | None = None,
) -> str:
    """A prometheus.yml: jobs with the port of each, and where to write on to."""
    document: dict[str, Any] = {
        "global": {
            "scrape_interval": f"{interval:g}s",
            "scrape_timeout": f"{interval:g}s",
            "evaluation_interval": f"{interval:g}s",
        },
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {
                "job_name": job,
                # The verification of audit logs names job and instance itself.
                "honor_labels": job == "audit-logs",
                "metrics_path": "/audit.prom" if job == "audit-logs" else "/metrics",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            }
            for job, port in targets.items()
        ],
    }
    if remote is not None:
        document["remote_write"] = [
            {
                "url": f"http://127.0.0.1:{remote}/api/v1/write",
                "queue_config": {"batch_send_deadline": "1s"},
                # Both servers evaluate the rules here: what one records is not the other's.
                "write_relabel_configs": [
                    {"source_labels": ["__name__"], "regex": ".+:.+|ALERTS.*", "action": "drop"}
                ],
            }
        ]
    return json.dumps(document)  # which is YAML as well


class Prometheus:
    """One server, which also takes what is written to it."""

    def __init__(self, folder: Path, name: str, configured: str) -> None:
        self.port = 0
        self.name = name
        self._folder = folder / name
        self._folder.mkdir()
        self._config = self._folder / "prometheus.yml"
        self._config.write_text(configured)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, port: int | None = None) -> None:
        """Raises Unavailable, with what it said."""
        self.port = port or free_port()
        command = [
            "prometheus",
            f"--config.file={self._config}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
            f"--storage.tsdb.path={self._folder / 'data'}",
            "--web.enable-remote-write-receiver",
            "--enable-feature=exemplar-storage",
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if _open(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).status == 200:
                    return
            time.sleep(0.1)
        raise Unavailable(f"{self.name}: {(self._folder / 'log').read_text()[-2000:]}")

    def said(self) -> str:
        """The end of its log."""
        return (self._folder / "log").read_text()[-500:]

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def get(self, path: str, **parameters: Any) -> Any:
        """The `data` of an answer of the HTTP API; raises ValueError with Prometheus's own text."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        if parameters:
            url += "?" + urllib.parse.urlencode(parameters, doseq=True)
        try:
            with _open(url, timeout=60) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", str(error))) from None
        return document["data"]

    def range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(
            "query_range", query=expr, start=start, end=end, step=step
        )["result"]
        return found

    def instant(self, expr: str, when: float) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=expr, time=when)["result"]
        return found

    def label_values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        found: list[str] = self.get(
            f"label/{label}/values", **{"match[]": selector, "start": start, "end": end}
        )
        return found
