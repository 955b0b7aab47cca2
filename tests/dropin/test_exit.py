"""Daemon threads that are inside a call, or come back from one, when the interpreter ends."""

from __future__ import annotations

import pytest
from support import python

# The interpreter's last part takes half a second: what a module holds goes late, and its end sleeps
# without the interpreter's lock. Threads that come back meanwhile are not let in.
PROGRAM = """
import sys, threading, time
import tracesock
tracesock.install()
import socket, ssl

class Late:
    def __del__(self, sleep=time.sleep, write=sys.__stdout__.write, flush=sys.__stdout__.flush):
        sleep(0.5)
        write("late\\n")
        flush()

sys.modules["late"] = Late()
running = threading.Semaphore(0)

def again(call, *arguments):
    def run():
        running.release()
        while True:
            try:
                call(*arguments)
            except (OSError, TimeoutError):
                pass
    threading.Thread(target=run, daemon=True).start()

left, right = socket.socketpair()
"""

CALLS = {
    "a receive with a timeout": "left.settimeout(0.01); again(left.recv, 1)",
    "a receive into a buffer with a timeout": (
        "left.settimeout(0.01); again(left.recv_into, bytearray(1))"
    ),
    "a receive that is answered": "again(left.recv, 1); again(right.send, b'x')",
    "a send with a timeout": "left.settimeout(0.01); again(left.sendall, bytes(1 << 20))",
    "an accept with a timeout": (
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "server.settimeout(0.01); again(server.accept)"
    ),
    "connects": (
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "address = server.getsockname()\n"
        "again(lambda: socket.create_connection(address, 0.01).close())"
    ),
    "look-ups": (
        "again(socket.getaddrinfo, 'localhost', 80); again(socket.gethostbyname, 'x.invalid')"
    ),
    "datagrams": (
        "peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "peer.bind(('127.0.0.1', 0)); peer.settimeout(0.01)\n"
        "again(peer.recvfrom, 10); again(peer.recvmsg, 10)"
    ),
    "nothing but telemetry": (
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "tracesock.instrument(TracerProvider(), drain_interval=0.01); running.release()"
    ),
    "a receive, with telemetry": (
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "tracesock.instrument(TracerProvider(), drain_interval=0.01)\n"
        "left.settimeout(0.01); again(left.recv, 1)"
    ),
    "a log of the audit": (
        "import tempfile, tracesock.audit\n"
        "tracesock.audit.subscribe(lambda record: None)\n"
        "running.release()"
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_process_ends_as_it_should(call: str) -> None:
    end = "\nrunning.acquire()\ntime.sleep(0.05)\n"
    out = python(PROGRAM + CALLS[call] + end, options=())
    assert out == "late\n"
