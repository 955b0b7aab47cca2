"""The OTLP/HTTP endpoints `/v1/traces`, `/v1/metrics` and `/v1/logs`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tracesock.dashboard import otlp
from tracesock.dashboard.otlp import JSON, PROTOBUF, Refused, Signal
from tracesock.dashboard.store import Store

# Decoding above these sizes is done in a thread, to keep pages answering.
_THREAD_ABOVE = {PROTOBUF: 1_000_000, JSON: 32_000}
# Bytes of bodies being read at the same time, all requests together.
_READING_LIMIT = 128 * 1024 * 1024
_BODY_TIMEOUT = 30.0
# A sender that is still writing must get to read the answer: closing at once would reset it.
_DRAIN_BYTES = 256 * 1024 * 1024
_DRAIN_TIMEOUT = 5.0


class Receiver:
    """Reads, decodes and hands requests to the store; answers when they are stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reading = 0

    def routes(self) -> list[Route]:
        """The routes to mount."""
        return [
            Route(f"/v1/{signal.value}", self._endpoint(signal), methods=["POST"])
            for signal in Signal
        ]

    def _endpoint(self, signal: Signal) -> Any:
        async def export(request: Request) -> Response:
            return await self._export(signal, request)

        return export

    async def _export(self, signal: Signal, request: Request) -> Response:
        encoding = JSON
        incoming = _Incoming(request)
        try:
            encoding = otlp.content_type(request.headers.get("content-type", ""))
            body = await self._read(request, incoming)
            if len(body) > _THREAD_ABOVE[encoding]:
                message = await anyio.to_thread.run_sync(otlp.decode, signal, encoding, body)
            else:
                message = otlp.decode(signal, encoding, body)
            records = otlp.count_records(signal, message)
            if records > self._store.limits.records:
                raise Refused(
                    413,
                    "too_many_records",
                    f"{records} records in one request; at most {self._store.limits.records}"
                    " are taken: send smaller batches",
                )
            rejected = 0
            if records:
                stored = self._store.submit(signal, message, records, body)
                rejected = await asyncio.wrap_future(stored)
        except Refused as refused:
            self._store.refused(f"refused_{refused.reason}")
            await incoming.drain()
            headers = {"retry-after": str(refused.retry_after)} if refused.retry_after else None
            return Response(
                otlp.failure(encoding, refused), refused.status, headers, media_type=encoding
            )
        except ClientDisconnect:
            return Response(status_code=400)
        note = f"{rejected} records without a valid id or name were rejected" if rejected else ""
        return Response(otlp.success(signal, encoding, rejected, note), media_type=encoding)

    async def _read(self, request: Request, incoming: _Incoming) -> bytes:
        limit = self._store.limits.body
        decompressor = otlp.Decompressor(request.headers.get("content-encoding", ""), limit)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise Refused(
                413,
                "too_large",
                f"the request is larger than {limit} bytes: send smaller batches",
            )
        held = 0
        try:
            async with asyncio.timeout(_BODY_TIMEOUT):
                async for chunk in incoming.chunks():
                    held += len(chunk)
                    self._reading += len(chunk)
                    if self._reading > _READING_LIMIT:
                        raise Refused(
                            429,
                            "overloaded",
                            "too many large requests at the same time: send again later",
                            retry_after=1,
                        )
                    decompressor.feed(chunk)
        except TimeoutError:
            raise Refused(
                400, "slow", f"the body did not arrive within {_BODY_TIMEOUT:.0f} s"
            ) from None
        finally:
            self._reading -= held
        return decompressor.finish()


class _Incoming:
    """The body of a request as it arrives."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ended = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """What was not read yet. Raises ClientDisconnect when the sender hangs up."""
        while not self._ended:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                self._ended = True
                raise ClientDisconnect
            self._ended = not message.get("more_body", False)
            yield message.get("body", b"")

    async def drain(self) -> None:
        """Reads and drops the rest of a refused body, within limits."""
        left = _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT):
                async for chunk in self.chunks():
                    left -= len(chunk)
                    if left < 0:
                        return
        except (TimeoutError, ClientDisconnect):
            pass
