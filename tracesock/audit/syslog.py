"""Records to a syslog server: RFC 5424 over UDP (RFC 5426), TCP (RFC 6587) or a Unix socket.

The sockets are the standard library's: what carries the records of a policy is not judged by it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from tracesock import _native
from tracesock._stock import module as stock
from tracesock.audit.chain import Chain, Key, tip_fields
from tracesock.audit.formats import FORMATS
from tracesock.audit.logfile import process_details
from tracesock.audit.records import Record, note_record, timestamp

_FACILITY: Final = 13  # log audit
_WARNING, _INFO = 4, 6
_TIMEOUT: Final = 5.0
_LONGEST_DATAGRAM: Final = 65_000
_NOT_PRINTABLE: Final = re.compile(r"[^\x21-\x7e]")


def _name(text: str, longest: int) -> str:
    """A field of the header: printable ASCII without spaces, "-" for none."""
    return _NOT_PRINTABLE.sub("_", text)[:longest] or "-"


class SyslogSink:
    """Sends records to a syslog server, each line of the chain the text of a message.

    `address`: udp://HOST[:PORT], tcp://HOST[:PORT] (port 514 where none is given) or
    unix:///dev/log. `format` as of a log file. `key` signs the tips. A datagram that was handed to
    the system counts as delivered. Raises ValueError for another address.
    """

    def __init__(self, address: str, *, format: str = "jsonl", key: Key | None = None) -> None:
        if format not in FORMATS:
            raise ValueError(f"format: one of {', '.join(FORMATS)}, not {format!r}")
        parts = urlsplit(address)
        if parts.scheme in ("udp", "tcp") and parts.hostname and not parts.path:
            self._to: Any = (parts.hostname, parts.port or 514)
        elif parts.scheme == "unix" and parts.path and not parts.netloc:
            self._to = parts.path
        else:
            raise ValueError(f"not udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH: {address!r}")
        self.address = address
        self._scheme = parts.scheme
        self._form = FORMATS[format]
        self._key = key
        self._chain = Chain("")
        self._socket: Any = None
        self._source = ""
        self._sent = 0  # records of the batch that are sent already
        # The rest of a stream's write that was cut short, and the chain after it.
        self._pending: tuple[bytes, Chain] | None = None

    def __repr__(self) -> str:
        return f"<syslog {self.address}>"

    def open(self, source: str) -> None:
        """Connects, and sends the first record: raises OSError."""
        self._source = source
        self._chain = Chain(secrets.token_hex(16))
        begun = note_record("begin", source, {"chain": self._chain.id, "version": 1})
        self.write([begun, note_record("open", source, process_details())])

    def _connect(self) -> Any:
        if self._scheme == "unix":
            for kind in (stock.SOCK_DGRAM, stock.SOCK_STREAM):
                sock = stock.socket(stock.AF_UNIX, kind)
                sock.settimeout(_TIMEOUT)
                try:
                    sock.connect(self._to)
                except OSError:
                    sock.close()
                    if kind == stock.SOCK_STREAM:
                        raise
                else:
                    return sock
        if self._scheme == "tcp":
            return stock.create_connection(self._to, _TIMEOUT)
        host, port = self._to
        found = stock.getaddrinfo(host, port, 0, stock.SOCK_DGRAM)
        sock = stock.socket(*found[0][:3])
        sock.connect(found[0][4])
        return sock

    def _message(self, record: Record, line: bytes) -> bytes:
        severity = _WARNING if record.action in ("deny", "would_deny") else _INFO
        # Microseconds are the finest that RFC 5424 allows.
        when = timestamp(record.time)[:26] + "Z"
        host = _name(platform.node(), 255)
        kind = _name(record.event.removeprefix("tracesock."), 32)
        version = _native.__version__
        head = (
            f"<{_FACILITY * 8 + severity}>1 {when} {host} tracesock {record.pid or os.getpid()}"
            f' {kind} [origin software="tracesock" swVersion="{version}"] '
        )
        return head.encode() + line

    def write(self, records: Sequence[Record]) -> None:
        """Sends the records; raises OSError when that fails, and goes on from there next time."""
        try:
            if self._socket is None:
                self._socket = self._connect()
            if self._socket.type == stock.SOCK_STREAM:
                self._write_stream(records)
            else:
                # After a failure the same records come again: some of them were sent.
                for record in records[self._sent :]:
                    chain = self._chain.copy()
                    message = self._message(record, chain.append(self._form, record)[:-1])
                    self._socket.send(message[:_LONGEST_DATAGRAM])
                    self._chain = chain
                    self._sent += 1
                self._sent = 0
        except OSError:
            self._disconnect()
            raise

    def _write_stream(self, records: Sequence[Record]) -> None:
        if self._pending is None:
            chain = self._chain.copy()
            framed = []
            for record in records:
                message = self._message(record, chain.append(self._form, record)[:-1])
                # Octet counting: a record with a line end in it would still be one message.
                framed.append(b"%d %b" % (len(message), message))
            self._pending = (b"".join(framed), chain)
        data, chain = self._pending
        # A server that is not there any more has got an unknown part: sent again as a whole, for
        # a record that comes twice can be told by its number, and one that is missing cannot.
        self._socket.sendall(data)
        self._chain = chain
        self._pending = None

    def _disconnect(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def idle(self) -> None:
        """Nothing is due."""

    def close(self, totals: dict[str, int]) -> None:
        """Sends the last record and disconnects."""
        tip = tip_fields(self._chain, self._key)
        deadline = time.monotonic() + _TIMEOUT
        ending = [note_record("close", self._source, {"totals": totals, **tip})]
        try:
            while True:
                try:
                    self.write(ending)
                    return
                except OSError:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(0.1)
        finally:
            self._disconnect()

    def abandon(self) -> None:
        """Closes the inherited descriptor."""
        self._disconnect()
        self._pending = None
