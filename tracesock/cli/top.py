"""`tracesock top`: the connections table in a terminal."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tracesock.dashboard import DEFAULT_PORT

DEFAULT_DASHBOARD = f"http://127.0.0.1:{DEFAULT_PORT}"
SORTS = ("age", "rtt", "sent", "received", "retransmits", "queued", "peer", "host", "state")
_Document = dict[str, Any]
_TONES = {"established": "green", "close_wait": "yellow", "syn_sent": "yellow"}


@click.command()
@click.option(
    "--dashboard",
    "address",
    default=DEFAULT_DASHBOARD,
    show_default=True,
    metavar="URL",
    help="The dashboard to ask.",
)
@click.option(
    "--otlp",
    metavar="FILE",
    default=None,
    help="Read OTLP instead: a file of OTLP JSON lines (as the Collector's file exporter writes"
    " them), or - for standard input.",
)
@click.option(
    "--listen",
    type=click.IntRange(1, 65535),
    default=None,
    metavar="PORT",
    help="Receive OTLP/HTTP on this port of 127.0.0.1 instead; no dashboard is needed.",
)
@click.option("--service", default="", help="Show only this service.")
@click.option("--peer", default="", help="Show only this peer, HOST or HOST:PORT.")
@click.option("--filter", "text", default="", help="Show only rows that contain this text.")
@click.option("--sort", type=click.Choice(SORTS), default="age", show_default=True)
@click.option("--reverse", is_flag=True, help="Smallest first.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between updates.",
)
@click.option(
    "--token",
    envvar="TRACESOCK_DASHBOARD_TOKEN",
    default=None,
    help="The dashboard's token, where it has one.",
)
@click.option("--once", is_flag=True, help="Print the table once and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document for each update.")
def top(
    address: str,
    otlp: str | None,
    listen: int | None,
    service: str,
    peer: str,
    text: str,
    sort: str,
    reverse: bool,
    interval: float,
    token: str | None,
    once: bool,
    as_json: bool,
) -> None:
    """Show open connections, live, as a table: peer, state, age, RTT, bytes, queue, trace.

    Asks a running dashboard; with --otlp or --listen it takes the OTLP stream itself. In JSON,
    durations are seconds and sizes bytes. Ends with Ctrl-C.
    """
    if otlp is not None and listen is not None:
        raise click.UsageError("--otlp and --listen are two sources: give one of them")
    query = {
        "service": service,
        "peer": peer,
        "q": text,
        "sort": sort,
        "dir": "asc" if reverse else "desc",
    }
    with contextlib.ExitStack() as stack:
        if otlp is not None:
            read = stack.enter_context(_stream(otlp, query, once))
        elif listen is not None:
            read = stack.enter_context(_receiver(listen, query, once))
        else:
            read = _asking(address, query, token)
        try:
            _show(read, interval, once, as_json)
        except KeyboardInterrupt:
            pass


def _show(read: Callable[[], _Document], interval: float, once: bool, as_json: bool) -> None:
    if as_json:
        while True:
            click.echo(json.dumps(read()))
            if once:
                return
            time.sleep(interval)
    console = Console()
    if once:
        if not console.is_terminal:
            # In a pipe or file there is no width to fit into.
            console = Console(width=max(console.width, 160))
        console.print(_table(read(), None))
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(_table(read(), console.height - 5), refresh=True)
            time.sleep(interval)


def _table(document: _Document, height: int | None) -> Group:
    from tracesock.dashboard import format as fmt

    rows = document["connections"]
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for title in ("PEER", "HOST", "STATE"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for title in ("AGE", "RTT", "SENT", "RECEIVED", "RETR", "QUEUED"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("SERVICE", "PID", "TRACE"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    shown = rows if height is None else rows[: max(1, height)]
    for row in shown:
        state = row["state"]
        table.add_row(
            _plain(row["peer"]),
            _plain(row["host"]),
            Text(_visible(state), style=_TONES.get(state, "")),
            fmt.duration(row["age"]),
            fmt.duration(row["rtt"]),
            fmt.size(row["sent"]),
            fmt.size(row["received"]),
            Text(fmt.number(row["retransmits"]), style="yellow" if row["retransmits"] else ""),
            Text(fmt.size(row["queued"]), style="yellow" if (row["queued"] or 0) > 65536 else ""),
            _plain(row["service"]),
            str(row["pid"] or ""),
            row["trace_id"][:16],
        )
    failed = document["failed_per_minute"]
    summary = Text.assemble(
        (f"{document['open']} open", "bold"),
        "   ",
        (f"{fmt.number(failed)} failed a minute", "red" if failed else ""),
        f"   look-up p95 {fmt.duration(document['lookup_p95'])}",
        f"   connect p95 {fmt.duration(document['connect_p95'])}",
        f"   {fmt.number(document['stalls'])} stalls",
    )
    parts: list[Any] = [summary, Text()]
    if rows:
        parts.append(table)
        if len(shown) < len(rows):
            parts.append(Text(f"… {len(rows) - len(shown)} more", style="dim"))
    else:
        parts.append(Text("No open connection is reported.", style="dim"))
    return Group(*parts)


def _plain(text: str) -> Text:
    """Text of unknown origin: no markup, no control sequence."""
    return Text(_visible(text))


def _visible(text: str) -> str:
    from tracesock.dashboard.markup import visible

    return visible(text)


# -- the three sources ---------------------------------------------------------------------------


def _asking(address: str, query: dict[str, str], token: str | None) -> Callable[[], _Document]:
    """Reads from a dashboard over HTTP."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(
            f"{address!r} is not an address such as {DEFAULT_DASHBOARD}", param_hint="--dashboard"
        )
    given = {k: v for k, v in query.items() if v}
    url = f"{parts.scheme}://{parts.netloc}/api/connections?{urlencode(given)}"
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    # A proxy of the environment has no business with a dashboard, which is near.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read() -> _Document:
        try:
            with opener.open(request, timeout=10) as response:
                document = json.load(response)
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise click.ClickException(
                    f"the dashboard at {address} needs its token: give --token, or set"
                    " TRACESOCK_DASHBOARD_TOKEN"
                ) from None
            raise click.ClickException(
                f"{address} answered {error.code} {error.reason}: is it a tracesock dashboard?"
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise click.ClickException(
                f"no dashboard answers at {address} ({reason}): start one with 'tracesock"
                " dashboard', or receive OTLP here with --listen 4318"
            ) from None
        if not isinstance(document, dict) or "connections" not in document:
            raise click.ClickException(f"{address} is not a tracesock dashboard")
        return document

    return read


def _needs_dashboard() -> Any:
    try:
        from tracesock.dashboard import server
    except ImportError as error:
        raise click.ClickException(
            f"reading OTLP needs the package {error.name}: pip install 'tracesock[dashboard]'"
        ) from None
    return server


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A database for the life of this command."""
    directory = Path(tempfile.mkdtemp(prefix="tracesock-top-"))
    try:
        yield directory / "top.sqlite3"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _reader(server: Any, store: Any, query: dict[str, str]) -> Callable[[], _Document]:
    from tracesock.dashboard.queries import Queries
    from tracesock.dashboard.rows import Filter

    def read() -> _Document:
        with store.read() as db:
            document: _Document = server.connections_document(
                Queries(db),
                Filter(query["service"], query["peer"]),
                query["q"],
                query["sort"],
                query["dir"] == "desc",
                10_000,
            )
        return document

    return read


@contextlib.contextmanager
def _stream(name: str, query: dict[str, str], once: bool) -> Iterator[Callable[[], _Document]]:
    """Reads OTLP JSON lines; with `once` to the end of them first, else beside showing."""
    server = _needs_dashboard()
    from tracesock.dashboard.store import Store

    try:
        source: IO[bytes] = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115
    except OSError as error:
        raise click.BadParameter(f"{name}: {error.strerror}", param_hint="--otlp") from None
    with _scratch() as path, source:
        store = Store(path)
        store.start()
        try:
            if once:
                _feed(store, source, name)
            else:
                threading.Thread(target=_feed, args=(store, source, name), daemon=True).start()
            yield _reader(server, store, query)
        finally:
            store.close()


def _feed(store: Any, source: IO[bytes], name: str) -> None:
    """Every line of `source` into the store; a line that is no OTLP is told and left out."""
    from tracesock.dashboard.otlp import JSON, Refused, Signal, count_records, decode

    keys = {
        b'"resourceSpans"': Signal.TRACES,
        b'"resourceMetrics"': Signal.METRICS,
        b'"resourceLogs"': Signal.LOGS,
    }
    for number, line in enumerate(source, 1):
        if not line.strip():
            continue
        signal = next((s for key, s in keys.items() if key in line), None)
        try:
            if signal is None:
                raise Refused(400, "malformed", "the line holds no OTLP request")
            request = decode(signal, JSON, line)
            _submit(store, signal, request, count_records(signal, request), line)
        except Refused as refused:
            click.echo(f"{name}:{number}: {refused.message}", err=True)


def _submit(store: Any, signal: Any, request: Any, records: int, line: bytes) -> None:
    from tracesock.dashboard.otlp import Refused

    while records:
        try:
            store.submit(signal, request, records, line).result()
            return
        except Refused as refused:
            if refused.status != 429:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def _receiver(port: int, query: dict[str, str], once: bool) -> Iterator[Callable[[], _Document]]:
    """Receives OTLP/HTTP; with `once` waits for the first snapshot of connections."""
    server = _needs_dashboard()
    from tracesock.dashboard.store import StoreError

    with _scratch() as path:
        try:
            served = server.Dashboard(server.Settings(path, port=port, otlp_port=None))
        except (server.PortInUse, StoreError) as error:
            raise click.ClickException(str(error).replace("--port", "--listen")) from None
        ready = threading.Event()
        thread = threading.Thread(target=served.run, args=(ready.set,), daemon=True)
        thread.start()
        try:
            ready.wait(10)
            read = _reader(server, served.store, query)
            if once:
                click.echo(f"Waiting for OTLP on 127.0.0.1:{port} …", err=True)
                while not read()["connections"]:
                    time.sleep(0.2)
            yield read
        finally:
            served.stop()
            thread.join(10)
