"""The web socket: a page names its address and gets its content again whenever that changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect

from tracesock.dashboard.pages import Page

# Ages and rates move without new telemetry.
_TICK: Final = 1.0
# A page is not rendered more often than this part of the time, so a costly one leaves room.
_SHARE: Final = 0.2
_MAX_SOCKETS: Final = 64
_MAX_ADDRESS: Final = 8192
# Seconds in which a page has said what it shows; it does so at once.
FIRST_MESSAGE_TIMEOUT = 10.0


class Live:
    """Serves the web sockets. `changed` may be called from any thread."""

    def __init__(self, render: Callable[[str, str, str], Page | None]) -> None:
        self._render = render
        self._open = 0
        self._waiting: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        # Two threads render at most, however many pages are open.
        self._limiter: anyio.CapacityLimiter | None = None

    def changed(self) -> None:
        """New telemetry was stored."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                pass  # closed between the test and the call

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def endpoint(self, websocket: WebSocket) -> None:
        """One page's socket: the page sends ``{"url": …, "paused": …}``, it is sent content."""
        if self._open >= _MAX_SOCKETS:
            await websocket.close(1013)
            return
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(2)
        self._loop = asyncio.get_running_loop()
        self._open += 1
        wake = asyncio.Event()
        self._waiting.add(wake)
        view = _Wanted()
        try:
            await websocket.accept()
            pusher = asyncio.create_task(self._push(websocket, view, wake))
            try:
                await self._listen(websocket, view, wake)
            finally:
                pusher.cancel()
                await asyncio.gather(pusher, return_exceptions=True)
        except WebSocketDisconnect:
            pass
        finally:
            self._waiting.discard(wake)
            self._open -= 1

    async def _listen(self, websocket: WebSocket, view: _Wanted, wake: asyncio.Event) -> None:
        while True:
            try:
                async with asyncio.timeout(None if view.url else FIRST_MESSAGE_TIMEOUT):
                    message = await websocket.receive()
            except TimeoutError:
                await websocket.close(1008)
                return
            if message["type"] != "websocket.receive":
                return
            try:
                wanted = json.loads(message.get("text") or "")
                url, paused = wanted.get("url", view.url), bool(wanted.get("paused", False))
            except (ValueError, AttributeError, RecursionError):
                await websocket.close(1003)
                return
            if not isinstance(url, str) or len(url) > _MAX_ADDRESS:
                await websocket.close(1003)
                return
            view.serial += url != view.url
            view.url, view.paused = url, paused
            wake.set()

    async def _push(self, websocket: WebSocket, view: _Wanted, wake: asyncio.Event) -> None:
        sent: bytes = b""
        serial = -1
        not_before = 0.0
        host = websocket.headers.get("host", "")
        while True:
            try:
                async with asyncio.timeout(_TICK):
                    await wake.wait()
            except TimeoutError:
                pass
            wake.clear()
            asked = view.serial != serial
            if not view.url or (view.paused and not asked):
                continue
            if not asked and time.monotonic() < not_before:
                # Woken early: wait out the rest, but no longer than for a new address.
                try:
                    async with asyncio.timeout(not_before - time.monotonic()):
                        await view.new(wake)
                except TimeoutError:
                    pass
                asked = view.serial != serial
            if view.paused and not asked:
                continue
            serial = view.serial
            parts = urlsplit(view.url)
            began = time.monotonic()
            page = await anyio.to_thread.run_sync(
                self._render, parts.path, parts.query, host, limiter=self._limiter
            )
            took = time.monotonic() - began
            not_before = time.monotonic() + max(_TICK * 0.9, took / _SHARE)
            if view.serial != serial:
                wake.set()
                continue
            if view.paused and not asked:
                continue
            answer: dict[str, Any] = {"url": view.url}
            if page is None:
                answer["missing"] = True
            else:
                answer |= {"title": page.title, "html": page.body, "section": page.section}
            text = json.dumps(answer)
            digest = blake2b(text.encode(), digest_size=16).digest()
            if digest != sent:
                sent = digest
                await websocket.send_text(text)
            elif asked:
                await websocket.send_text(json.dumps({"url": view.url, "same": True}))


class _Wanted:
    """What a page last asked for."""

    def __init__(self) -> None:
        self.url = ""
        self.paused = False
        self.serial = 0

    async def new(self, wake: asyncio.Event) -> None:
        """Returns when another address is asked for."""
        serial = self.serial
        while self.serial == serial:
            await wake.wait()
            wake.clear()
