"""An asyncio echo server and its clients in one loop, with 1, 100 and 5,000 connections.

    .venv/bin/python -m tests.bench.echo [--quick] [--json] [--only TEXT] [--rounds N]

The streams of asyncio over sockets of each module; a burst is one message to each connection and
its echo. The loop is never idle, so that its processor time is what counts, whoever else is busy
here. The limit of open files is raised as far as it goes.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator
from typing import Any

from tests.bench import harness
from tests.bench.harness import Case, Row, Skipped

MESSAGE = b"m" * 64


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._write = transport.write

    def data_received(self, data: bytes) -> None:
        self._write(data)


class _Client(asyncio.Protocol):
    """Counts down the connections that have not had their echo yet."""

    left = 0
    done: asyncio.Future[None]

    def connection_made(self, transport: Any) -> None:
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        _Client.left -= len(data)
        if _Client.left == 0:
            _Client.done.set_result(None)


def _raise_limit(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        if hard != resource.RLIM_INFINITY and hard < files:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
            except (ValueError, OSError):
                raise Skipped(f"at most {hard} open files here, {files} are needed") from None
        else:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def echo(count: int, messages: int) -> harness.Make:
    """`count` connections; a burst is `messages` rounds over all of them."""

    def make(module: Any) -> Case:
        _raise_limit((2 if count > 1000 else 4) * count + 200)
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        clients: list[_Client] = []
        transports: list[Any] = []

        async def start() -> Any:
            listener = module.create_server(("127.0.0.1", 0), backlog=1024)
            server = await loop.create_server(_Echo, sock=listener)
            for number in range(count):
                # Not all from one address, or the ports of the loopback address run out.
                sock = module.socket()
                sock.bind((f"127.0.0.{1 + number % 100}", 0))
                sock.setblocking(False)
                await loop.sock_connect(sock, listener.getsockname())
                transport, client = await loop.create_connection(_Client, sock=sock)
                transports.append(transport)
                clients.append(client)
            return server

        server = loop.run_until_complete(start())

        async def burst() -> float:
            begun = time.thread_time()
            for _ in range(messages):
                _Client.done = loop.create_future()
                _Client.left = count * len(MESSAGE)
                for client in clients:
                    client.write(MESSAGE)
                await _Client.done
            return time.thread_time() - begun

        async def stop() -> None:
            for transport in transports:
                transport.abort()
            server.close()
            while len(asyncio.all_tasks(loop)) > 1:
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)

        def end() -> None:
            loop.run_until_complete(stop())
            loop.close()

        return Case(
            "",
            {},
            calls=count * messages,
            seconds=lambda: loop.run_until_complete(burst()),
            close=[end],
        )

    return make


def rows(quick: bool) -> Iterator[Row]:
    """1, 100 and 5,000 connections."""
    yield harness.against_stock("asyncio echo, 1 connection", echo(1, 20), None, 30, min)
    yield harness.against_stock("asyncio echo, 100 connections", echo(100, 1), None, 20, min)
    if not quick:
        yield harness.against_stock(
            "asyncio echo, 5,000 connections", echo(5000, 1), 0.97, 4, min, apart=True
        )


if __name__ == "__main__":
    harness.main(__doc__, rows, rounds=5, quick_rounds=2)
