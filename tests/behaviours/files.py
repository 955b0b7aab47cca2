"""makefile(), SocketIO and sendfile()."""

from __future__ import annotations

import io
import os
import socket as stock
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.behaviours import Failing, Index, attempt, behaviour, shown, streams, unraisable


def closed(stream: Any) -> object:
    if isinstance(stream, io.IOBase):
        stream.close()
    return stream if isinstance(stream, Exception) else type(stream).__name__


@behaviour
def modes(socket: Any) -> Iterator[object]:
    for mode in (
        "r",
        "w",
        "rw",
        "wr",
        "b",
        "rb",
        "br",
        "wb",
        "bw",
        "rwb",
        "rbw",
        "brw",
        "",
        "rr",
        "bb",
        "a",
        "x",
        "r+",
        "rt",
        "t",
        "U",
        "rU",
        "R",
        " r",
        "ab",
        "r\0",
        "é",
        None,
        5,
        b"r",
        ["r"],
        ("r", "w"),
        {"r"},
        [],
        [1],
        object,
    ):
        for buffering in (None, -1, 0, 1, 2, 8192, -5, True, Index(16), 2**31, 2**70, 1.5, "1"):
            sock = socket.socket()
            stream = attempt(sock.makefile, mode, buffering)
            if not isinstance(stream, Exception):
                yield (
                    mode if not isinstance(mode, type) else 0,
                    shown(buffering),
                    type(stream).__name__,
                )
                yield getattr(stream, "mode", None), stream.readable(), stream.writable()
                yield stream.seekable(), sock._io_refs, stream.closed, stream.isatty()
                stream.close()
            else:
                yield shown(mode), shown(buffering), stream
            yield sock._io_refs, sock._closed, sock.fileno() >= 0
            sock.close()
            yield sock.fileno()


@behaviour
def arguments(socket: Any) -> Iterator[object]:
    for given in (
        {"encoding": "latin-1"},
        {"encoding": "nonsense"},
        {"encoding": "utf-8", "errors": "strict", "newline": "\n"},
        {"errors": "nonsense"},
        {"newline": "x"},
        {"newline": 5},
        {"encoding": 5},
        {"encoding": None, "errors": None, "newline": None},
        {"encoding": "locale"},
        {"mode": "w", "buffering": 10},
        {"mode": "rb", "encoding": "utf-8"},
        {"mode": "rb", "buffering": 0, "errors": "x"},
        {"nonsense": 1},
    ):
        with socket.socket() as sock:
            stream = attempt(sock.makefile, **given)
            yield (
                shown(given),
                stream
                if isinstance(stream, Exception)
                else (
                    stream.encoding if isinstance(stream, io.TextIOWrapper) else None,
                    getattr(stream, "errors", None),
                    getattr(stream, "newlines", None),
                ),
            )
            closed(stream)
            del stream
            yield sock._io_refs
    with socket.socket() as sock:
        yield attempt(sock.makefile, "r", None, "utf-8")
        yield attempt(sock.makefile, "r", mode="r")


@behaviour
def of_a_class_that_borrows_the_methods(socket: Any) -> Iterator[object]:
    """urllib3's class over pyOpenSSL and eventlet's are no sockets, and make their streams so."""

    class Borrower:
        makefile = socket.socket.makefile
        _decref_socketios = socket.socket._decref_socketios
        close = socket.socket.close

        def __init__(self, sock: Any) -> None:
            self.sock = sock
            self._io_refs = 0
            self._closed = False

        def recv_into(self, buffer: Any) -> int:
            count: int = self.sock.recv_into(buffer)
            return count

        def _real_close(self) -> None:
            self.sock.close()

    one, two = socket.socketpair()
    with two:
        borrower = Borrower(one)
        two.send(b"a line\n")
        with borrower.makefile("rb") as first, borrower.makefile() as second:
            yield borrower._io_refs, first.readline()
            borrower.close()
            yield borrower._closed, one.fileno() >= 0
            second.close()
            yield borrower._io_refs, one.fileno() >= 0
        yield borrower._io_refs, one.fileno()
    with socket.socket() as sock, unraisable():
        without = Borrower(sock)
        del without._io_refs, without._closed
        for method in (without.makefile, without._decref_socketios, without.close):
            yield attempt(method)


@behaviour
def of_a_closed_socket(socket: Any) -> Iterator[object]:
    sock = socket.socket()
    sock.close()
    stream = attempt(sock.makefile, "rwb", 0)
    yield type(stream).__name__, sock._io_refs, sock._closed
    yield attempt(stream.read, 1), attempt(stream.write, b"x"), attempt(stream.fileno), stream.name
    yield attempt(stream.close), sock._io_refs
    text = sock.makefile()
    yield attempt(text.read), attempt(text.close)


@behaviour
def the_socket_stays_open_for_its_streams(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    first, second = one.makefile("rb"), one.makefile("wb")
    yield one._io_refs
    one.close()
    yield one._closed, one.fileno() >= 0, shown(one)
    yield two.send(b"hello\nworld"), first.readline(), second.write(b"answer"), second.flush()
    yield two.recv(100), attempt(one.recv, 5, stock.MSG_DONTWAIT), attempt(one.send, b"x")
    first.close()
    yield one.fileno() >= 0, one._io_refs
    first.close()
    yield one.fileno() >= 0, one._io_refs
    second.close()
    yield one.fileno(), one._io_refs, attempt(one.recv, 1)
    yield attempt(first.read), attempt(second.write, b"x"), attempt(first.readline)
    two.close()
    one, two = socket.socketpair()
    stream = one.makefile("rb")
    with one:
        pass
    yield one.fileno() >= 0
    del stream
    yield one.fileno()
    two.close()
    one, two = socket.socketpair()
    stream = one.makefile("rwb", 0)
    fd = one.detach()
    yield attempt(stream.read, 1), attempt(stream.write, b"x"), attempt(stream.fileno), stream.name
    yield attempt(stream.close), os.close(fd), one._io_refs
    two.close()
    one, two = socket.socketpair()
    stream = one.makefile("rwb", 0)
    one._real_close()
    yield attempt(stream.read, 1), attempt(stream.write, b"x")
    stream.close()
    one.close()
    two.close()


@behaviour
def text_and_lines(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    with one, two:
        with (
            one.makefile("w", encoding="utf-8", newline="\n") as writer,
            two.makefile("r", encoding="utf-8") as reader,
        ):
            yield writer.write("åäö\nzwei\r\ndrei"), writer.flush()
            yield reader.readline(), reader.readline(), writer.close(), one.shutdown(1)
            yield reader.read(), reader.read(), attempt(writer.write, "x")
            yield reader.fileno() == two.fileno(), reader.name == two.fileno(), reader.mode
            yield attempt(reader.seek, 0), attempt(reader.tell), attempt(reader.truncate)
        yield attempt(reader.readline), reader.closed
    one, two = socket.socketpair()
    with one, two, one.makefile("rwb") as both, two.makefile("rwb") as other:
        yield both.write(b"x" * 5), both.flush(), other.read(5), attempt(other.seek, 0)
        yield other.write(b"line1\nline2\n"), other.flush(), both.readline(), both.peek(1)[:5]
        yield both.read1(100), attempt(both.fileno), attempt(getattr, both, "name")
        one.shutdown(1)
        yield other.read(), list(other)


@behaviour
def socket_io(socket: Any) -> Iterator[object]:
    for mode in ("r", "w", "rw", "rb", "wb", "rwb", "wr", "b", "", "a", "br", None, 5, b"r", ["r"]):
        one, two = socket.socketpair()
        with one, two:
            one.settimeout(0)
            two.send(b"abc")
            made = attempt(socket.SocketIO, one, mode)
            if isinstance(made, Exception):
                yield shown(mode), made
                continue
            one._io_refs += 1
            yield mode, made.mode, made.readable(), made.writable(), made.seekable()
            yield made.name == one.fileno(), made.fileno() == one.fileno(), made.closed
            buffer = bytearray(2)
            yield (
                attempt(made.readinto, buffer),
                buffer,
                attempt(made.read, 1),
                attempt(made.read, 1),
            )
            yield attempt(made.readall), attempt(made.readline), attempt(made.write, b"xyz")
            yield attempt(made.write, "x"), attempt(made.write, None), attempt(made.readinto, b"x")
            yield attempt(made.readinto, 5), attempt(made.writelines, [b"a", b"b"])
            yield attempt(made.seek, 0), attempt(made.tell), attempt(made.truncate), made.isatty()
            yield attempt(made.flush), shown(attempt(repr, made)), one._io_refs
            yield attempt(made.detach) if hasattr(made, "detach") else None
            yield made.close(), made.close(), made.closed, made.name, one._io_refs
            yield attempt(made.readable), attempt(made.writable), attempt(made.seekable)
            yield attempt(made.readinto, buffer), attempt(made.write, b"x"), attempt(made.fileno)
            yield attempt(made.read, 1), attempt(made.flush), attempt(made.__enter__), made.mode
            yield made._sock
    for given in ((), (1,), (1, 2, 3), (None, "r"), (5, "r"), (object(), "rw")):
        made = attempt(socket.SocketIO, *given)
        yield made if isinstance(made, Exception) else type(made).__name__
        if not isinstance(made, Exception):
            yield attempt(made.read, 1), attempt(made.readable), attempt(made.fileno)
            yield attempt(made.close), made.closed
        del made


@behaviour
def streams_of_a_non_blocking_socket(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    with one, two:
        one.setblocking(False)
        raw = one.makefile("rwb", 0)
        yield raw.read(1), raw.readinto(bytearray(3)), raw.readall(), attempt(raw.readline)
        while raw.write(bytes(100000)) is not None:
            pass
        yield raw.write(b"x")
        reader = one.makefile("rb")
        yield (
            attempt(reader.read, 5),
            attempt(reader.read),
            attempt(reader.readline),
            attempt(reader.peek),
        )
        writer = one.makefile("wb", 10)
        yield attempt(writer.write, bytes(20)), attempt(writer.flush), attempt(writer.close)
        text = one.makefile("r")
        yield attempt(text.read, 1), attempt(text.readline)
        for stream in (raw, reader, text):
            attempt(stream.close)


@behaviour
def a_timeout_ends_reading(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    with one, two:
        one.settimeout(0.01)
        raw = one.makefile("rwb", 0)
        yield attempt(raw.read, 1), raw._timeout_occurred
        two.send(b"abc")
        yield attempt(raw.read, 1), attempt(raw.readinto, bytearray(1)), one.recv(10)
        yield raw.write(b"x"), two.recv(1), attempt(raw.readall)
        raw.close()
        reader = one.makefile("rb")
        two.send(b"ab")
        yield attempt(reader.read, 5), attempt(reader.read, 1)
        reader.close()
        writer = one.makefile("wb", 0)
        yield attempt(lambda: [writer.write(bytes(100000)) for _ in range(100)])
        writer.close()


@behaviour
def stream_attributes(socket: Any) -> Iterator[object]:
    with socket.socket() as sock:
        raw = sock.makefile("rb", 0)
        raw.foo = 1
        yield raw.foo, attempt(setattr, raw, "name", 1), attempt(setattr, raw, "mode", 1)
        yield (
            sorted(set(vars(raw)) - {"foo"}),
            raw._sock is sock,
            raw._mode,
            raw._reading,
            raw._writing,
        )
        yield raw.raw if hasattr(raw, "raw") else None
        raw.close()
        buffered = sock.makefile("rb")
        yield (
            type(buffered.raw).__name__,
            buffered.raw._sock is sock,
            buffered.mode,
            buffered.name >= 0,
        )
        yield attempt(buffered.detach) is not None, sock._io_refs
        text = sock.makefile("rw")
        yield (
            type(text.buffer).__name__,
            text.mode,
            text.line_buffering,
            text.name if hasattr(text, "name") else None,
        )
        text.close()


@behaviour
def sending_files(socket: Any, path: str) -> Iterator[object]:
    import threading

    with open(f"{path}/data", "wb") as file:
        file.write(bytes(range(256)) * 300)
    size = 256 * 300

    def received(server: Any, into: bytearray) -> threading.Thread:
        def read() -> None:
            while data := server.recv(1 << 16):
                into.extend(data)

        thread = threading.Thread(target=read)
        thread.start()
        return thread

    for offset, count in (
        (0, None),
        (0, 10),
        (0, size),
        (0, size + 100),
        (5, None),
        (5, 10),
        (size, None),
        (size + 5, None),
        (size - 1, 5),
        (0, 1),
    ):
        for how in ("plain", "memory", "small", "timeout"):
            with streams(socket) as (client, server), open(f"{path}/data", "rb") as file:
                into = bytearray()
                reader = received(server, into)
                if how == "timeout":
                    client.settimeout(20)
                source: Any = io.BytesIO(file.read()) if how == "memory" else file
                if how == "memory":
                    source.seek(0)
                if how == "small":
                    file.seek(3)
                yield (
                    how,
                    offset,
                    count,
                    attempt(client.sendfile, source, offset, count),
                    source.tell(),
                )
                client.shutdown(1)
                reader.join()
                yield (
                    len(into),
                    bytes(into) == (bytes(range(256)) * 300)[offset:][:count][: len(into)],
                )


@behaviour
def refused_files(socket: Any, path: str) -> Iterator[object]:
    with open(f"{path}/data", "wb") as file:
        file.write(b"0123456789")
    one, two = socket.socketpair()
    with one, two:
        two.settimeout(0)
        for count in (0, -1, 1.5, "1", True, False, None, Index(3), 1j):
            with open(f"{path}/data", "rb") as file:
                yield shown(count), attempt(one.sendfile, file, 0, count), file.tell()
                yield attempt(two.recv, 100)
        for offset in (-1, 1.5, "1", 2**63, 2**80, True, Index(2), -100):
            with open(f"{path}/data", "rb") as file:
                yield shown(offset), attempt(one.sendfile, file, offset), file.tell()
                yield attempt(two.recv, 100)
            memory = io.BytesIO(b"0123456789")
            yield shown(offset), attempt(one.sendfile, memory, offset), memory.tell()
            yield attempt(two.recv, 100)
        with open(f"{path}/data") as text:
            yield attempt(one.sendfile, text)
        with open(f"{path}/data", "rb") as file:
            yield attempt(one.sendfile, file, count=3), attempt(one.sendfile, file=file, offset=2)
            yield (
                attempt(two.recv, 100),
                attempt(one.sendfile),
                attempt(one.sendfile, file, 0, 1, 2),
            )
            one.setblocking(False)
            yield attempt(one.sendfile, file), attempt(one._sendfile_use_send, file)
            yield attempt(one.sendfile, io.BytesIO(b"x")), attempt(one.sendfile, io.BytesIO(b""))
            one.setblocking(True)
        with open(f"{path}/data", "rb") as closed_file:
            pass
        yield attempt(one.sendfile, closed_file)
        with open(os.devnull, "rb") as empty:
            yield attempt(one.sendfile, empty)
        for thing in (None, 5, "x", b"x", object(), io.StringIO("abc"), io.BytesIO(b""), [b"x"]):
            yield shown(thing)[:12], attempt(one.sendfile, thing)
        yield attempt(two.recv, 100)

        class Odd:
            def __init__(self, number: Any) -> None:
                self.number = number

            def fileno(self) -> Any:
                if isinstance(self.number, Exception):
                    raise self.number
                return self.number

            def read(self, size: int) -> bytes:
                return b""

        for number in (
            -1,
            99999,
            "x",
            None,
            1.5,
            OSError("no"),
            AttributeError("no"),
            io.UnsupportedOperation("no"),
            ValueError("v"),
        ):
            yield shown(number), attempt(one.sendfile, Odd(number))
    for kind in (stock.SOCK_DGRAM, stock.SOCK_SEQPACKET, stock.SOCK_RAW):
        fd = stock.socketpair()
        fd[1].close()
        with (
            socket.socket(stock.AF_UNIX, kind, 0, fd[0].detach()) as sock,
            open(f"{path}/data", "rb") as file,
        ):
            yield kind, attempt(sock.sendfile, file)
    sock = socket.socket()
    sock.close()
    with open(f"{path}/data", "rb") as file:
        yield attempt(sock.sendfile, file), file.tell()
        with socket.socket() as sock:
            yield attempt(sock.sendfile, file), file.tell()
    one, two = socket.socketpair()
    two.close()
    with one, open(f"{path}/data", "rb") as file:
        yield attempt(one.sendfile, file), file.tell(), attempt(one.sendfile, io.BytesIO(b"x"))


@behaviour
def files_that_are_not_regular(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    with one, two:
        two.settimeout(0)
        read, write = os.pipe()
        os.write(write, b"through a pipe")
        os.close(write)
        with open(read, "rb") as pipe:
            yield attempt(one.sendfile, pipe), attempt(two.recv, 100)
        with open("/proc/self/comm", "rb") as proc:
            yield attempt(one.sendfile, proc, 0, 3), attempt(two.recv, 100)
        with open("/dev/zero", "rb") as zero:
            yield attempt(one.sendfile, zero, 0, 5), attempt(two.recv, 100)
        with tempfile.SpooledTemporaryFile() as spooled:
            spooled.write(b"spooled")
            spooled.seek(0)
            yield attempt(one.sendfile, spooled), attempt(two.recv, 100)
        other, peer = socket.socketpair()
        with other, peer:
            peer.send(b"from a socket")
            peer.close()
            with other.makefile("rb") as stream:
                yield attempt(one.sendfile, stream), attempt(two.recv, 100)


@behaviour
def a_file_over_a_slow_socket(socket: Any, path: str) -> Iterator[object]:
    with open(f"{path}/data", "wb") as file:
        file.truncate(30_000_000)
    for name in ("_sendfile_use_sendfile", "_sendfile_use_send"):
        one, two = socket.socketpair()
        with one, two, open(f"{path}/data", "rb") as file:
            one.settimeout(0.05)
            yield name, attempt(getattr(one, name), file), 0 < file.tell() < 30_000_000
    yield Failing().__repr__()
