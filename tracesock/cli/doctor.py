"""`tracesock doctor`: what in this environment tracesock sees, and what goes past it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

import click

from tracesock.dropin import startup


@dataclass(frozen=True)
class Library:
    """A library that talks to the network, or decides who does."""

    name: str
    distributions: tuple[str, ...]  # on PyPI
    modules: tuple[str, ...]  # where a system's package manager has left no metadata
    unseen: str  # what goes past Python's sockets
    seen: str  # what does not
    version: str = ""  # an expression for the native library's version, in `modules[0]`
    objects: str = ""  # a pattern for the names of shared objects in a process's memory


LIBRARIES = (
    Library(
        "uvloop",
        ("uvloop",),
        ("uvloop",),
        "connections, sends and look-ups of its event loop, in libuv",
        "sockets made by the program itself; with asyncio's own loop, everything",
        objects=r"/uvloop/loop\.",
    ),
    Library(
        "gRPC core",
        ("grpcio",),
        ("grpc",),
        "all of gRPC's connections and look-ups, in its C core",
        "nothing of it; opentelemetry-instrumentation-grpc tells of the calls",
        "grpc.__version__",
        r"/cygrpc\.",
    ),
    Library(
        "libpq (psycopg 3)",
        ("psycopg-c", "psycopg-binary", "psycopg"),
        ("psycopg",),
        "connections to PostgreSQL, in libpq: psycopg's pure path calls it as well",
        "nothing of it; pg8000 and asyncpg use Python's sockets",
        "psycopg.pq.version()",
        r"/libpq[-.]",
    ),
    Library(
        "libpq (psycopg2)",
        ("psycopg2", "psycopg2-binary"),
        ("psycopg2",),
        "connections to PostgreSQL, in libpq",
        "nothing of it; pg8000 and asyncpg use Python's sockets",
        "psycopg2.__libpq_version__",
        r"/libpq[-.]",
    ),
    Library(
        "libcurl",
        ("pycurl", "curl_cffi"),
        ("pycurl", "curl_cffi"),
        "connections, TLS and look-ups, in libcurl",
        "sockets that an open-socket callback makes, but not what is sent on them",
        "pycurl.version",
        r"/libcurl[-.]",
    ),
    Library(
        "io_uring",
        ("liburing",),
        ("liburing",),
        "what is submitted to a ring, by any library",
        "sockets on which system calls are made",
        objects=r"/liburing[-.]",
    ),
    Library(
        "MySQL's client library",
        ("mysqlclient", "mysql-connector-python"),
        ("MySQLdb", "_mysql_connector"),
        "connections of mysqlclient and of the connector's C extension",
        "PyMySQL, aiomysql, and the connector with use_pure=True",
        objects=r"/lib(mysqlclient|mariadb)[-.]",
    ),
    Library(
        "librdkafka",
        ("confluent-kafka",),
        ("confluent_kafka",),
        "connections to Kafka, in librdkafka",
        "kafka-python and aiokafka",
        "confluent_kafka.libversion()[0]",
        r"/librdkafka[-.]",
    ),
    Library(
        "libzmq",
        ("pyzmq",),
        ("zmq",),
        "ZeroMQ's connections, in libzmq's own threads",
        "nothing of it",
        "zmq.zmq_version()",
        r"/libzmq[-.]",
    ),
    Library(
        "c-ares",
        ("pycares", "aiodns"),
        ("pycares",),
        "look-ups, as aiohttp makes them where aiodns is installed",
        "the connections; the look-ups too, with aiohttp.ThreadedResolver",
        "pycares.ARES_VERSION",
        r"/_cares\.",
    ),
    Library(
        "gevent",
        ("gevent",),
        ("gevent",),
        "sockets made after monkey.patch_all(), which takes the module's names for its own class",
        "sockets without monkey-patching",
        objects=r"/gevent/",
    ),
    Library(
        "eventlet",
        ("eventlet",),
        ("eventlet",),
        "sockets made after monkey_patch(), over an unpatched copy of the socket module",
        "sockets without monkey-patching",
    ),
    Library(
        "granian",
        ("granian",),
        ("granian",),
        "connections of its clients, in Rust",
        "what the application itself connects to",
        objects=r"/_granian\.",
    ),
    Library(
        "pymssql, pyodbc",
        ("pymssql", "pyodbc"),
        ("pymssql", "pyodbc"),
        "connections to databases, in FreeTDS or an ODBC driver",
        "nothing of it",
        objects=r"/lib(sybdb|odbc)[-.]",
    ),
)
_PROBE_SECONDS = 20  # for the import of one library in a process of its own


@dataclass
class Found:
    """A library that is here."""

    name: str
    versions: dict[str, str]  # of its distributions
    native_version: str | None  # None where it cannot be asked
    unseen: str
    seen: str


@dataclass
class Report:
    """What `tracesock doctor` says."""

    tracesock: str
    python: str
    executable: str
    platform: str
    autoload: bool  # whether Python processes of this environment have tracesock in place
    opentelemetry: dict[str, str]
    io_uring: str
    libraries: list[Found]
    process: dict[str, Any] | None = field(default=None)  # of --pid


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _has_module(name: str) -> bool:
    try:
        return util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _ask(library: Library) -> str | None:
    """The native library's version, from a process of its own: an import may do anything."""
    if not library.version:
        return None
    package = ".".join(library.version.split("(")[0].split(".")[:-1])
    source = f"import {package}; print({library.version})"
    words = [sys.executable, "-c", source]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_PROBE_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _libraries() -> list[Found]:
    found = []
    for library in LIBRARIES:
        versions = {
            name: version
            for name in library.distributions
            if (version := _version(name)) is not None
        }
        module = next(filter(_has_module, library.modules), None)
        if not versions and module is None:
            continue
        native = _ask(library) if module is not None else None
        found.append(Found(library.name, versions, native, library.unseen, library.seen))
    return found


def _io_uring() -> str:
    """What the kernel says of io_uring. See sysctl kernel.io_uring_disabled, Linux 6.6."""
    if sys.platform != "linux":
        return "not on this platform"
    try:
        text = Path("/proc/sys/kernel/io_uring_disabled").read_text(encoding="ascii").strip()
    except OSError:
        return "as the kernel was built: it has no switch"
    meaning = {"0": "allowed", "1": "for privileged processes only", "2": "disabled"}
    return meaning.get(text, f"kernel.io_uring_disabled is {text}")


def _autoload() -> bool:
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return any(entry and os.path.abspath(entry) == startup.DIRECTORY for entry in entries)


def examine_process(pid: int, root: str = "/proc") -> dict[str, Any]:
    """Which of the libraries a running process has loaded, and whether it has tracesock.

    Reads /proc/PID/maps, see proc(5). Raises OSError: the process is not there, or is another
    user's.
    """
    text = Path(root, str(pid), "maps").read_text(encoding="utf-8", errors="replace")
    paths = sorted({line.split(maxsplit=5)[5] for line in text.splitlines() if line.count("/")})
    loaded = {}
    for library in LIBRARIES:
        matching = [path for path in paths if library.objects and re.search(library.objects, path)]
        if matching:
            loaded[library.name] = matching
    rings = False
    try:
        for entry in Path(root, str(pid), "fd").iterdir():
            rings = rings or os.readlink(entry) == "anon_inode:[io_uring]"
    except OSError:
        pass  # descriptors that come and go
    return {
        "pid": pid,
        "tracesock": any("/tracesock/_native." in path for path in paths),
        "loaded": loaded,
        "uses_io_uring": rings,
    }


def examine(pid: int | None = None) -> Report:
    """Look at this interpreter's environment, and at the process `pid` where one is named."""
    from tracesock import __version__

    names = sorted(
        {
            name
            for distribution in metadata.distributions()
            if (name := distribution.metadata["Name"]) and name.startswith("opentelemetry-")
        }
    )
    return Report(
        tracesock=__version__,
        python=platform.python_version(),
        executable=sys.executable,
        platform=platform.platform(),
        autoload=_autoload(),
        opentelemetry={name: _version(name) or "" for name in names},
        io_uring=_io_uring(),
        libraries=_libraries(),
        process=examine_process(pid) if pid is not None else None,
    )


def _print(report: Report) -> None:
    head = partial(click.style, bold=True)
    say = click.echo
    say(f"{head('tracesock')} {report.tracesock} on Python {report.python}, {report.platform}")
    say(f"  {report.executable}")
    if report.autoload:
        say("  in place in every Python process of this environment (PYTHONPATH)")
    telemetry = report.opentelemetry.get("opentelemetry-sdk")
    exporter = report.opentelemetry.get("opentelemetry-exporter-otlp-proto-http")
    say(
        f"  OpenTelemetry SDK {telemetry or 'is not installed'}; OTLP exporter "
        f"{exporter or 'is not installed: pip install tracesock[otlp]'}"
    )
    say(f"  io_uring: {report.io_uring}")
    say("")
    if report.libraries:
        say(head("Not seen in this environment, or not whole:"))
    else:
        say(head("No library that is known to go past Python's sockets is installed here."))
    for found in report.libraries:
        versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
        native = f" (library {found.native_version})" if found.native_version else ""
        say(f"  {click.style(found.name, fg='yellow')}: {versions or 'version unknown'}{native}")
        say(f"    not seen: {found.unseen}")
        say(f"    seen:     {found.seen}")
    if report.process is not None:
        process = report.process
        say("")
        state = "has tracesock" if process["tracesock"] else "has no tracesock"
        say(head(f"Process {process['pid']} {state}"))
        for name, paths in process["loaded"].items():
            shown = ", ".join(path if path.isprintable() else repr(path) for path in paths)
            say(f"  {click.style(name, fg='yellow')} is loaded: {shown}")
        if process["uses_io_uring"]:
            say(f"  {click.style('io_uring', fg='yellow')}: it has a ring open")
        if not process["loaded"] and not process["uses_io_uring"]:
            say("  none of these libraries is loaded")


@click.command(short_help="Name what here goes past Python's sockets.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--pid",
    type=click.IntRange(min=1),
    metavar="PID",
    help="Look at a running process as well: which of the libraries it has loaded. Linux only.",
)
def doctor(as_json: bool, pid: int | None) -> None:
    """Name what in this environment goes past Python's sockets, and so is not seen.

    Libraries of C and Rust make their own system calls. Their versions are shown, and for each
    what is not seen and what is. See the page "What tracesock does not see" of the documentation.
    """
    try:
        report = examine(pid)
    except OSError as error:
        raise click.ClickException(f"process {pid}: {error.strerror}") from None
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        _print(report)
