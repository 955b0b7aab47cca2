"""Connected sockets for the benchmarks: one end is measured, the other end is stock's."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket as stock
import tempfile
import termios
from typing import Any

Pair = tuple[Any, stock.socket]  # the measured end, the peer


def unix_pair(module: Any) -> Pair:
    """A Unix stream."""
    sock, other = module.socketpair()
    return sock, stock.socket(fileno=other.detach())


def tcp_pair(module: Any) -> Pair:
    """A TCP connection over loopback, without delay; the measured end has connected."""
    with stock.create_server(("127.0.0.1", 0)) as server:
        sock = module.create_connection(server.getsockname())
        peer, _ = server.accept()
    for each in (sock, peer):
        each.setsockopt(stock.IPPROTO_TCP, stock.TCP_NODELAY, 1)
    return sock, peer


def udp_pair(module: Any) -> tuple[Any, stock.socket, Any]:
    """An unconnected UDP socket, its peer, and the peer's address."""
    sock = module.socket(module.AF_INET, module.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    peer = stock.socket(stock.AF_INET, stock.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    for each in (sock, peer):
        each.setsockopt(stock.SOL_SOCKET, stock.SO_RCVBUF, 1 << 20)
    return sock, peer, peer.getsockname()


def unix_datagrams(module: Any) -> tuple[Any, stock.socket, Any]:
    """An unconnected Unix datagram socket, its peer, and the peer's address."""
    directory = tempfile.TemporaryDirectory(prefix="tracesock-bench-")
    path = os.path.join(directory.name, "peer")
    peer = stock.socket(stock.AF_UNIX, stock.SOCK_DGRAM)
    peer.bind(path)
    sock = module.socket(module.AF_UNIX, module.SOCK_DGRAM)
    sock.bind(os.path.join(directory.name, "own"))
    _directories[peer.fileno()] = directory  # until the number is used again
    return sock, peer, path


_directories: dict[int, tempfile.TemporaryDirectory[str]] = {}


def waiting(sock: Any) -> int:
    """The bytes that a receive could have now, FIONREAD."""
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0]


def await_bytes(sock: Any, size: int) -> None:
    """Return when `size` bytes have arrived."""
    while waiting(sock) < size:
        select.select([sock], [], [], 0.01)


def drain(sock: stock.socket) -> None:
    """Read what has arrived."""
    try:
        while sock.recv(1 << 20, stock.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        pass


class Pump:
    """A child process that reads everything from a socket, or writes to it without end."""

    def __init__(self, peer: stock.socket, writes: int = 0) -> None:
        self._pid = os.fork()
        if self._pid == 0:
            try:
                descriptor = peer.fileno()
                os.closerange(3, descriptor)
                os.closerange(descriptor + 1, 1024)
                data = bytes(writes)
                buffer = bytearray(1 << 20)
                while peer.send(data) if writes else peer.recv_into(buffer):
                    pass
            except OSError:
                pass
            finally:
                os._exit(0)
        peer.close()

    def close(self) -> None:
        """Wait for the child; the measured end has been closed before."""
        os.waitpid(self._pid, 0)
