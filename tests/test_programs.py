"""Whole programs: the documentation's four echo programs, and programs that forget to close."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import re
import socket as stock
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Where tracesock is, and what these tests' own process was given.
PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

# The steps of the examples of docs.python.org's socket page, in their order and with their calls.
IPV4_SERVER = """\
import socket

HOST = ''
PORT = 50007
with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
    s.bind((HOST, PORT))
    s.listen(1)
    conn, addr = s.accept()
    with conn:
        print('Connected by', addr)
        while True:
            data = conn.recv(1024)
            if not data: break
            conn.sendall(data)
"""
IPV4_CLIENT = """\
import socket

HOST = 'localhost'
PORT = 50007
with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
    s.connect((HOST, PORT))
    s.sendall(b'Hello, world')
    data = s.recv(1024)
print('Received', repr(data))
"""
DUAL_SERVER = """\
import socket
import sys

HOST = None
PORT = 50007
s = None
for res in socket.getaddrinfo(HOST, PORT, socket.AF_UNSPEC,
                              socket.SOCK_STREAM, 0, socket.AI_PASSIVE):
    af, socktype, proto, canonname, sa = res
    try:
        s = socket.socket(af, socktype, proto)
    except OSError as msg:
        s = None
        continue
    try:
        s.bind(sa)
        s.listen(1)
    except OSError as msg:
        s.close()
        s = None
        continue
    break
if s is None:
    print('could not open socket')
    sys.exit(1)
conn, addr = s.accept()
with conn:
    print('Connected by', addr)
    while True:
        data = conn.recv(1024)
        if not data: break
        conn.send(data)
"""
DUAL_CLIENT = """\
import socket
import sys

HOST = 'localhost'
PORT = 50007
s = None
for res in socket.getaddrinfo(HOST, PORT, socket.AF_UNSPEC, socket.SOCK_STREAM):
    af, socktype, proto, canonname, sa = res
    try:
        s = socket.socket(af, socktype, proto)
    except OSError as msg:
        s = None
        continue
    try:
        s.connect(sa)
    except OSError as msg:
        s.close()
        s = None
        continue
    break
if s is None:
    print('could not open socket')
    sys.exit(1)
with s:
    s.sendall(b'Hello, world')
    data = s.recv(1024)
print('Received', repr(data))
"""


def environment() -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "OTEL_"))}
    return {**kept, "PYTHONPATH": PATH}


def start(path: pathlib.Path, program: str, port: int) -> subprocess.Popen[str]:
    """Starts a program whose only changes are its import and, so that it is free, its port."""
    assert program.count("import socket\n") == 1 and program.count("50007") == 1
    changed = program.replace("import socket\n", "import tracesock as socket\n")
    path.write_text(changed.replace("50007", str(port)))
    return subprocess.Popen(
        # The documented servers leave their listening socket to the end of the process.
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", str(path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    """A port that is free for both families, and that the kernel gives to nobody meanwhile:
    it chooses from 32768 on, ip(7)."""
    dual = stock.has_dualstack_ipv6()
    family = stock.AF_INET6 if dual else stock.AF_INET
    for port in random.sample(range(20000, 32768), 100):
        with (
            contextlib.suppress(OSError),
            stock.create_server(("", port), family=family, dualstack_ipv6=dual),
        ):
            return port
    raise AssertionError("no port is free")


PAIRS = {
    "ipv4": (IPV4_SERVER, IPV4_CLIENT),
    "dual": (DUAL_SERVER, DUAL_CLIENT),
    "ipv4 server, dual client": (IPV4_SERVER, DUAL_CLIENT),
    "dual server, ipv4 client": (DUAL_SERVER, IPV4_CLIENT),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_echo_programs_of_the_documentation(pair: str, tmp_path: pathlib.Path) -> None:
    port = free_port()
    server = start(tmp_path / "server.py", PAIRS[pair][0], port)
    try:
        deadline = time.monotonic() + 60
        while True:  # until the server listens, a client is refused
            client = start(tmp_path / "client.py", PAIRS[pair][1], port)
            said, errors = client.communicate(timeout=60)
            if client.returncode == 0 or time.monotonic() > deadline or server.poll() is not None:
                break
            assert "could not open socket" in said or "ConnectionRefusedError" in errors, errors
        assert (said, errors) == ("Received b'Hello, world'\n", "")
        said, errors = server.communicate(timeout=60)
        assert re.fullmatch(r"Connected by \('127\.0\.0\.1', \d+\)\n", said)
        assert (server.returncode, errors) == (0, "")
    finally:
        server.kill()
        server.wait()


def test_the_dual_stack_client_says_that_nobody_listens(tmp_path: pathlib.Path) -> None:
    client = start(tmp_path / "client.py", DUAL_CLIENT, free_port())
    said, errors = client.communicate(timeout=60)
    assert (client.returncode, said, errors) == (1, "could not open socket\n", "")


# --- what is not closed --------------------------------------------------------------------------

# Each is run by both modules, in a process of its own, where every warning and every exception
# that Python can only tell is an outcome.
FORGETFUL = {
    "forgotten": "make()",
    "in a cycle": "class Own(socket.socket): pass\ns = Own(); s.cycle = s; del s; gc.collect()",
    "bound": "make().bind(('127.0.0.1', 0))",
    "of a pair": "a, b = socket.socketpair(); a.close(); del a, b",
    "accepted": (
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(server.getsockname())\n"
        "server.accept()\n"
        "client.close(); server.close()"
    ),
    "duplicate": "s = make(); s.dup(); s.close()",
    "from a descriptor": "s = make(); socket.fromfd(s.fileno(), s.family, s.type); s.close()",
    "file closed, socket not": "s = make(); f = s.makefile('rb'); f.close(); del s, f",
    "subclass": (
        "class Own(socket.socket):\n"
        "    def __repr__(self): return f'<Own {self.fileno() >= 0}>'\n"
        "Own(socket.AF_INET)"
    ),
    "an exception is being handled": (
        "def fail():\n"
        "    s = make()\n"
        "    raise LookupError('kept')\n"
        "try: fail()\n"
        "except LookupError as error: error.__traceback__ = None; print(repr(error))"
    ),
    "at the end of the interpreter": "left = make()",
    "closed": "make().close()",
    "closed twice": "s = make(); s.close(); s.close()",
    "detached": "s = make(); os.close(s.detach())",
    "with": "with make(): pass",
    "file closed last": "s = make(); f = s.makefile(); s.close(); f.close()",
    "closed by close()": "s = make(); socket.close(s.detach())",
    "not made": "try: socket.socket(-5)\nexcept OSError as error: print(error.errno)",
    "without __init__": "socket.socket.__new__(socket.socket)",
}

WARN = """\
import gc, os, socket as stock, sys
import {module} as socket

def make():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

before = len(os.listdir("/proc/self/fd"))
{statements}
if "left" not in globals():
    gc.collect()
    print("left open:", len(os.listdir("/proc/self/fd")) - before)
"""


def told(module: str, statements: str, action: str) -> tuple[str, str]:
    """What a program wrote to its two outputs, without the numbers that differ by chance."""
    done = subprocess.run(
        [sys.executable, "-W", action, "-c", WARN.format(module=module, statements=statements)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    errors = re.sub(r"fd=\d+|0x[0-9a-f]+|(?<=', )\d+(?=\))", "-", done.stderr)
    return done.stdout, errors.replace("tracesock.socket", "socket.socket")


@pytest.mark.parametrize("action", ["always", "error"])
@pytest.mark.parametrize("name", FORGETFUL)
def test_resource_warning(name: str, action: str) -> None:
    """The warning, its text, and that the descriptor is closed: as with the stock module."""
    said, errors = told("tracesock", FORGETFUL[name], action)
    assert (said, errors) == told("socket", FORGETFUL[name], action)
    warned = "ResourceWarning: unclosed <" in errors
    ignored = "Exception ignored" in errors
    forgets = list(FORGETFUL).index(name) < list(FORGETFUL).index("closed")
    assert (warned, ignored) == (forgets, forgets and action == "error")
    if name != "at the end of the interpreter":
        assert said.endswith("left open: 0\n")


def test_the_warning_names_where_the_socket_was_made() -> None:
    program = "import tracesock as socket\ndef make():\n    return socket.socket()\nmake()\n"
    done = subprocess.run(
        [sys.executable, "-X", "tracemalloc=5", "-W", "always", "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "ResourceWarning: unclosed <" in done.stderr
    assert "Object allocated at" in done.stderr


BURSTS = """import resource, sys, threading
import tracesock as socket

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def receive(server, received, end):
    for size in (1, BURST):
        received.append(len(server.recv(1 << 20)) == size)
        server.send(b"x")
    end.wait()

BURST = 150_000
end, received = threading.Event(), []
pairs = [socket.socketpair() for _ in range(100)]
threads = [threading.Thread(target=receive, args=(two, received, end)) for _, two in pairs]
for thread in threads:
    thread.start()
for one, _ in pairs:
    one.send(b"x")
    one.recv(1)
before = resident()
for one, _ in pairs:
    one.send(bytes(BURST))
    one.recv(1)
print(all(received), len(received), (resident() - before) >> 20)
end.set()
for thread in threads:
    thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc: Linux")
def test_a_thread_keeps_nothing_of_a_burst() -> None:
    environment = {**os.environ, "PYTHONPATH": PATH, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BURSTS], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    whole, receives, mebibytes = done.stdout.split()
    assert (whole, receives) == ("True", "200")
    assert int(mebibytes) < 7  # of the 14 that came
