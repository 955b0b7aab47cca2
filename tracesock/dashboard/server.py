"""The dashboard as one process: store, receiver, pages and web socket behind one guard."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from tracesock.dashboard import DEFAULT_PORT, OTLP_PORT, export, pages
from tracesock.dashboard import format as fmt
from tracesock.dashboard.live import Live
from tracesock.dashboard.markup import h
from tracesock.dashboard.otlp import Limits
from tracesock.dashboard.pages import Page, View
from tracesock.dashboard.pages.connections import SORTS, sort_connections
from tracesock.dashboard.pages.shell import Info
from tracesock.dashboard.params import Params
from tracesock.dashboard.protocol import BoundedProtocol
from tracesock.dashboard.queries import Queries
from tracesock.dashboard.receiver import Receiver
from tracesock.dashboard.rows import Connection, Filter
from tracesock.dashboard.security import Access, Guard
from tracesock.dashboard.store import Retention, Store

_STATIC: Final = Path(__file__).parent / "static"
_SEND_BUFFER: Final = 256 * 1024
_STATIC_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class PortInUse(Exception):
    """The port asked for is taken; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a dashboard is run.

    port: 0 takes a free one. otlp_port: a second port for OTLP alone, left out where it is taken;
    None for no second one. token: needed for a host beyond loopback.
    """

    database: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    otlp_port: int | None = OTLP_PORT
    retention: Retention = field(default_factory=Retention)
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    allowed_hosts: frozenset[str] = frozenset()


class Dashboard:
    """A store and the application in front of it.

    Raises StoreError and PortInUse on construction; `run` serves until it is stopped.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        access = Access(settings.host, settings.token, settings.allowed_hosts)
        self.sockets = [_listen(settings.host, settings.port)]
        self.port: int = self.sockets[0].getsockname()[1]
        self.otlp_port: int | None = None
        if settings.otlp_port is not None and settings.otlp_port != self.port:
            try:
                self.sockets.append(_listen(settings.host, settings.otlp_port))
                self.otlp_port = self.sockets[1].getsockname()[1]
            except PortInUse:
                pass
        try:
            self.store = Store(settings.database, settings.retention, settings.limits)
        except BaseException:
            self._close_sockets()
            raise
        self.live = Live(self.render)
        self._started = time.time_ns()
        self._server: uvicorn.Server | None = None
        self.app = Guard(self._application(), access, [self.otlp_port] if self.otlp_port else [])

    @property
    def url(self) -> str:
        """The address to open, without a token."""
        return f"http://{_authority(self.settings.host, self.port)}/"

    def _close_sockets(self) -> None:
        for sock in self.sockets:
            sock.close()

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serves until SIGINT, SIGTERM or `stop`. What was received by then is stored."""
        self.store.on_commit(self.live.changed)
        self.store.start()
        config = uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            http=BoundedProtocol,
            ws="wsproto",
            ws_max_size=16 * 1024,
            ws_per_message_deflate=False,
            lifespan="off",
            loop="asyncio",
            limit_concurrency=512,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
        )
        logging.getLogger("uvicorn.error").addFilter(_only_trouble)
        self._server = _Server(config, ready)
        try:
            self._server.run(sockets=self.sockets)
        finally:
            self.store.close()
            self._close_sockets()

    def stop(self) -> None:
        """Ends `run`, from any thread."""
        if self._server is not None:
            self._server.should_exit = True

    # -- pages ---------------------------------------------------------------------------------

    def info(self, host: str) -> Info:
        return Info(
            version=_version(),
            endpoint=f"http://{host}",
            database=str(self.settings.database),
            retention_age=self.settings.retention.age,
            retention_size=self.settings.retention.size,
            recovery=self.store.recovery.describe(),
            started_ns=self._started,
        )

    def render(self, path: str, query: str, host: str) -> Page | None:
        """The page at a path; None where there is none. Runs in a worker thread."""
        params = Params(path, query)
        info = self.info(host)
        try:
            with self.store.read() as db:
                return pages.render(View(params, Queries(db), info))
        except sqlite3.OperationalError as error:
            return _trouble(params, error)

    def _application(self) -> Starlette:
        routes: list[Any] = [
            *(Route(screen.path, self._page) for screen in pages.SCREENS),
            Route("/traces/{trace_id}", self._page),
            Route("/traces/{trace_id}/otlp.json", self._otlp_json),
            Route("/traces/{trace_id}/perfetto.json", self._perfetto),
            Route("/api/connections", self._connections),
            Route("/api/status", self._status),
            Route("/static/{name}", _static),
            Route("/favicon.ico", _favicon),
            WebSocketRoute("/live", self.live.endpoint),
            *Receiver(self.store).routes(),
        ]
        return Starlette(routes=routes, exception_handlers={404: self._not_found})

    async def _page(self, request: Request) -> Response:
        page = await anyio.to_thread.run_sync(
            self.render, request.url.path, request.url.query, _host(request)
        )
        if page is None:
            return self._missing(request)
        return self._document(request, page)

    def _document(self, request: Request, page: Page) -> Response:
        params = Params(request.url.path, request.url.query)
        return HTMLResponse(
            pages.document(page, pages.SCREENS, params, self.info(_host(request))), page.status
        )

    def _missing(self, request: Request) -> Response:
        body = h(
            "div",
            h("h1", "No such page"),
            h("p", "There is nothing at this address.", class_="muted"),
            h("p", h("a", "Connections", href="/", class_="button")),
            class_="empty",
        )
        return self._document(request, Page("No such page", body, "", 404))

    async def _not_found(self, request: Request, _: Exception) -> Response:
        if request.url.path.startswith("/v1/"):
            return Response(
                "OTLP is taken at /v1/traces, /v1/metrics and /v1/logs.\n",
                404,
                media_type="text/plain",
            )
        return self._missing(request)

    async def _otlp_json(self, request: Request) -> Response:
        return await self._download(request, "otlp.json", self._export_otlp)

    async def _perfetto(self, request: Request) -> Response:
        return await self._download(request, "perfetto.json", self._export_perfetto)

    def _export_otlp(self, trace_id: str) -> str | None:
        with self.store.read(30) as db:
            rows = Queries(db).raw_trace(trace_id)
        return export.otlp_json(rows) if rows else None

    def _export_perfetto(self, trace_id: str) -> str | None:
        with self.store.read(30) as db:
            trace = Queries(db).trace(trace_id, limit=1_000_000)
        return export.chrome_trace(trace) if trace and trace.spans else None

    async def _download(
        self, request: Request, name: str, make: Callable[[str], str | None]
    ) -> Response:
        trace_id = request.path_params["trace_id"]
        if re.fullmatch(r"[0-9a-f]{32}", trace_id) is None:
            return self._missing(request)
        text = await anyio.to_thread.run_sync(make, trace_id)
        if text is None:
            return self._missing(request)
        headers = {"content-disposition": f'attachment; filename="trace-{trace_id}.{name}"'}
        return Response(text, headers=headers, media_type="application/json")

    # -- figures for programs ------------------------------------------------------------------

    async def _connections(self, request: Request) -> Response:
        """What `tracesock top` shows. Parameters: service, peer, q, sort, dir, limit."""
        params = Params(request.url.path, request.url.query)
        sort = params.choice("sort", list(SORTS), "age")
        descending = params.choice("dir", ("asc", "desc"), "desc") == "desc"
        limit = params.integer("limit", 200, 10_000)
        if params.problems:
            return JSONResponse({"error": "; ".join(params.problems)}, 400)
        filters = Filter(params.text("service"), params.text("peer"))
        document = await anyio.to_thread.run_sync(
            self._connections_document, filters, params.text("q"), sort, descending, limit
        )
        return JSONResponse(document)

    def _connections_document(
        self, filters: Filter, text: str, sort: str, descending: bool, limit: int
    ) -> dict[str, Any]:
        with self.store.read() as db:
            return connections_document(Queries(db), filters, text, sort, descending, limit)

    async def _status(self, request: Request) -> Response:
        return JSONResponse(await anyio.to_thread.run_sync(self._status_document))

    def _status_document(self) -> dict[str, Any]:
        with self.store.read() as db:
            queries = Queries(db)
            recovery = self.store.recovery
            return {
                "version": _version(),
                "database": str(self.settings.database),
                "bytes": self.store.size(),
                "intake": queries.intake(),
                "recovery": {
                    "clean": recovery.clean,
                    "lost_spans": recovery.spans,
                    "lost_points": recovery.points,
                    "lost_logs": recovery.logs,
                },
                "otlp_port": self.otlp_port,
            }


def connections_document(
    queries: Queries, filters: Filter, text: str, sort: str, descending: bool, limit: int
) -> dict[str, Any]:
    """Open connections and the key figures: durations in seconds, sizes in bytes."""
    rows = sort_connections(queries.connections(filters, text, live_only=True), sort, descending)
    tiles = queries.tiles(filters)
    return {
        "time": fmt.iso(queries.now),
        "open": tiles.open,
        "failed_per_minute": round(tiles.failed_minute),
        "lookup_p95": tiles.lookup.percentile(0.95),
        "connect_p95": tiles.connect.percentile(0.95),
        "stalls": round(tiles.stalls),
        "dropped_telemetry": round(tiles.dropped),
        "connections": [_connection(c) for c in rows[:limit]],
    }


def _connection(c: Connection) -> dict[str, Any]:
    return {
        "id": c.connection_id,
        "service": c.service,
        "pid": c.pid,
        "peer": c.address or c.peer,
        "host": c.host,
        "local": c.local,
        "direction": c.direction,
        "transport": c.transport,
        "state": c.state,
        "age": c.age,
        "rtt": c.rtt,
        "sent": c.sent,
        "received": c.received,
        "retransmits": c.retransmits,
        "queued": c.queued,
        "trace_id": c.trace_id,
        "span_id": c.span_id,
    }


class _Server(uvicorn.Server):
    """uvicorn, telling when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, without raising the signal again at the end: the store is still open."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None and not self.should_exit:
            self._ready()


def _only_trouble(record: logging.LogRecord) -> bool:
    """uvicorn logs an ended web socket or an invalid request as a line for each: too much here."""
    return record.levelno >= logging.ERROR


def _trouble(params: Params, error: Exception) -> Page:
    slow = "interrupted" in str(error)
    body = h(
        "div",
        h("h1", "This took too long" if slow else "The database could not be read"),
        h(
            "p",
            "The query was stopped after five seconds. A shorter time or a service in the filter"
            " makes it faster."
            if slow
            else str(error),
            class_="muted",
        ),
        h("p", h("a", "Try again", href=params.link(), class_="button")),
        class_="empty",
    )
    return Page("Trouble", body, params.path, 503)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortInUse, naming the port, where it is taken."""
    bare = host.strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PortInUse(f"--host {host}: {error.strerror or error}") from None
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by every connection: what one that reads nothing can take of the kernel.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        sock.bind(address)
        sock.listen(256)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use: stop what listens there, or choose another with"
                " --port"
            ) from None
        raise PortInUse(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return sock


def _authority(host: str, port: int) -> str:
    """How a browser on this machine reaches a bound host."""
    bare = host.strip("[]")
    if bare == "0.0.0.0":
        bare = "127.0.0.1"
    elif bare == "::":
        bare = "::1"
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def _host(request: Request) -> str:
    # The guard has let it pass: it names this dashboard.
    return request.headers.get("host", "")


async def _static(request: Request) -> Response:
    path = _STATIC / request.path_params["name"]
    media_type = _STATIC_TYPES.get(path.suffix)
    if media_type is None or path.parent != _STATIC or not path.is_file():
        return Response("Not found\n", 404, media_type="text/plain")
    # Always asked again, answered with 304 while it is the same.
    return FileResponse(path, media_type=media_type, headers={"cache-control": "no-cache"})


async def _favicon(_: Request) -> Response:
    return FileResponse(_STATIC / "icon.svg", media_type="image/svg+xml")


def _version() -> str:
    try:
        return metadata.version("tracesock")
    except metadata.PackageNotFoundError:
        return "0"


def default_database() -> Path:
    """`$XDG_STATE_HOME/tracesock/dashboard.sqlite3`, by default under `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME") or ""
    root = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return root / "tracesock" / "dashboard.sqlite3"


__all__: Sequence[str] = (
    "Dashboard",
    "PortInUse",
    "Settings",
    "connections_document",
    "default_database",
)
