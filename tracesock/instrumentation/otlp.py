"""OTLP out of this process: posted over HTTP, or written to a file of JSON lines.

What is sent are the requests of `_native.OtlpEncoder`. The rules are those of
https://opentelemetry.io/docs/specs/otlp/#otlphttp (what is sent again, and when),
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ (the OTEL_EXPORTER_OTLP_ variables) and
https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/ (the file).

Nothing here raises while it exports: what was not delivered is in the result, for the caller to
count, and in the log, once until something is delivered again. No proxy is used.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import email.utils
import gzip
import http.client
import io
import logging
import math
import os
import random
import re
import selectors
import socket
import ssl
import threading
import time
import urllib.parse
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.util.re import parse_env_headers

from tracesock import _native
from tracesock.instrumentation.config import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    Request = bytes | bytearray | memoryview

_log = logging.getLogger(__name__)

_DEFAULT_ENDPOINT = "http://localhost:4318"
_TRACES_PATH = "v1/traces"
_DEFAULT_TIMEOUT = 10.0
_PROTOCOL = "http/protobuf"
_MEDIA_TYPE = "application/x-protobuf"
_COMPRESSIONS = ("none", "gzip")
_RETRYABLE = frozenset({429, 502, 503, 504})
_FIRST_WAIT = 1.0  # seconds; each further wait is twice as long
_JITTER = 0.2
_LONGEST_ANSWER = 64 * 1024  # bytes of a response's body that are read
_LONGEST_MESSAGE = 200  # bytes of the receiver's message that are logged
# Set by the exporter, whatever is asked for.
_OWN_HEADERS = frozenset(
    {"content-type", "content-encoding", "content-length", "transfer-encoding"}
)
# RFC 9110: a token; visible characters, space and tab.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclasses.dataclass(frozen=True, slots=True)
class ExportResult:
    """What became of a request."""

    delivered: bool
    """Whether the receiver took it."""
    rejected: int = 0
    """Spans in it that the receiver rejected although it took the request."""
    reason: str = ""
    """Why it was not delivered: `status 400`, `shutdown`, or an exception's class name."""


class _Exporter:
    """What all exporters do alike: suppression, no exception, one complaint, fork."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._complaints: set[str] = set()
        self._exporting = threading.Lock()  # one request at a time
        self._stopping = threading.Event()
        _exporters.add(self)

    def export(self, request: Request) -> ExportResult:
        """Deliver a request; returns when it was, or when it never will be."""
        with self._exporting:
            # The exporter's own calls are not the program's.
            context = otel_context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True)
            context = otel_context.set_value("suppress_instrumentation", True, context)
            token = otel_context.attach(context)
            try:
                if self._stopping.is_set():
                    result = ExportResult(False, reason="shutdown")
                else:
                    result = self._deliver(request)
            except Exception as error:
                self._complain("failed", _described(error))
                result = ExportResult(False, reason=type(error).__name__)
            finally:
                otel_context.detach(token)
                if self._stopping.is_set():
                    self._close()
        return result

    def shutdown(self) -> None:
        """Deliver nothing more; what another thread is delivering ends now, undelivered.

        Only a thread that waits for the system's look-up of a host cannot be woken; it ends by
        itself, and shutdown returns after a second.
        """
        self._stopping.set()
        for _ in range(20):
            # Again, for a thread that was about to wait and had not begun.
            self._interrupt()
            if self._exporting.acquire(timeout=0.05):
                try:
                    self._close()
                finally:
                    self._exporting.release()
                return

    def _deliver(self, request: Request) -> ExportResult:
        raise NotImplementedError

    def _interrupt(self) -> None:
        """Wake a thread that delivers."""

    def _close(self) -> None:
        """Give the descriptors back; called by the thread that holds `_exporting`."""

    def after_fork(self) -> None:
        """In the child: the locks may be held by threads that are not here."""
        self._exporting = threading.Lock()
        stopping, self._stopping = self._stopping, threading.Event()
        if stopping.is_set():
            self._stopping.set()

    def _complain(self, kind: str, what: str) -> None:
        """Log `what`, unless something of its kind was logged since the last success."""
        if kind not in self._complaints:
            self._complaints.add(kind)
            _log.warning(
                "OTLP export to %s %s: %s (logged once until one succeeds)",
                self._target,
                kind,
                what,
            )

    def _content(self) -> None:
        self._complaints.clear()


_exporters: weakref.WeakSet[_Exporter] = weakref.WeakSet()


def _after_fork() -> None:
    for exporter in list(_exporters):
        exporter.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _TimedReader(io.RawIOBase):
    """What arrives at a socket, as a file whose reads end at the socket's deadline."""

    def __init__(self, sock: _TimedSocket, raw: socket.SocketIO) -> None:
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.limit_wait()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """A connected socket as http.client uses it, all of whose operations end at one deadline.

    The timeout of a plain one starts anew with each byte that a slow peer sends.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.deadline = 0.0  # of time.monotonic

    def limit_wait(self) -> None:
        self._sock.settimeout(_left(self.deadline))

    def sendall(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        while view:
            self.limit_wait()
            view = view[self._sock.send(view) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self, self._sock.makefile("rb", buffering=0)))

    def close(self) -> None:
        self._sock.close()


class _Connection(http.client.HTTPConnection):
    """One that is connected already, and does not connect again by itself."""

    auto_open = 0

    def __init__(self, host: str, port: int, default_port: int, sock: socket.socket) -> None:
        # The header Host has a port that is not the scheme's.
        self.default_port = default_port
        super().__init__(host, port)
        self.timed = _TimedSocket(sock)
        self.sock = self.timed


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for the export is over")
    return left


class OtlpHttpExporter(_Exporter):
    """Posts requests to an OTLP/HTTP receiver, over one connection that is kept.

    What is not given comes from the environment: OTEL_EXPORTER_OTLP_TRACES_ and its name, or
    OTEL_EXPORTER_OTLP_ and its name, where an empty variable counts as none.

    endpoint: the whole URL (http or https), with the path. The general variable's gets v1/traces
    appended. Default http://localhost:4318/v1/traces. A user and password in it are sent as Basic
    authorization.
    headers: sent with each request, besides those of OTEL_EXPORTER_OTLP_HEADERS.
    timeout: seconds for a request with all its repetitions; default 10. (As the SDK reads the
    variable; the specification has milliseconds.) The system's look-up of the host's name alone may
    take longer.
    compression: none or gzip; default none.
    certificate: path of the PEM certificates to trust instead of the system's.
    client_certificate, client_key: paths, PEM, for a receiver that asks for a certificate.

    Raises ConfigError for a value that is none, which it names, and for a protocol
    (OTEL_EXPORTER_OTLP_PROTOCOL) other than http/protobuf.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: str | None = None,
        certificate: str | None = None,
        client_certificate: str | None = None,
        client_key: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        settings = _Environment(environment)
        settings.check_protocol()
        name, url = settings.endpoint(endpoint)
        parts = _url_parts(name, url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        self._timeout = settings.timeout(timeout)
        self._compress = settings.compression(compression) == "gzip"
        self._headers = {
            "user-agent": f"tracesock/{_native.__version__}",
            **_authorization(parts),
            **settings.headers(headers),
            "content-type": _MEDIA_TYPE,
        }
        if self._compress:
            self._headers["content-encoding"] = "gzip"
        self._tls = (
            settings.tls(certificate, client_certificate, client_key)
            if parts.scheme == "https"
            else None
        )
        self._connection: _Connection | None = None
        self._open_lock = threading.Lock()
        self._opened: socket.socket | None = None
        shown = f"[{self._host}]" if ":" in self._host else self._host
        super().__init__(f"{parts.scheme}://{shown}:{self._port}{parts.path}")

    def after_fork(self) -> None:
        super().after_fork()
        self._open_lock = threading.Lock()
        self._close()  # the connection is the parent's

    def _deliver(self, request: Request) -> ExportResult:
        deadline = time.monotonic() + self._timeout
        # The fastest level: the program has better uses for its processors.
        body = gzip.compress(request, 1, mtime=0) if self._compress else request
        wait = _FIRST_WAIT
        while True:
            pause = wait * random.uniform(1 - _JITTER, 1 + _JITTER)
            wait *= 2
            try:
                response, answer = self._post(body, deadline)
            except ssl.SSLCertVerificationError:
                raise  # will not become right by trying again
            except OSError as error:
                what, reason = _described(error), type(error).__name__
            else:
                if 200 <= response.status < 300:
                    return self._taken(answer)
                what, reason = _refusal(response.status, answer), f"status {response.status}"
                if response.status not in _RETRYABLE:
                    self._complain("refused", what)
                    return ExportResult(False, reason=reason)
                # Never sooner than by the back-off: a receiver may ask for no wait, for ever.
                pause = max(pause, _retry_after(response.headers.get("retry-after")))
            if self._stopping.is_set():
                return ExportResult(False, reason="shutdown")
            if time.monotonic() + pause >= deadline:
                self._complain("failed", what)
                return ExportResult(False, reason=reason)
            if self._stopping.wait(pause):
                return ExportResult(False, reason="shutdown")

    def _taken(self, answer: bytes) -> ExportResult:
        rejected, message = _partial_success(answer)
        if rejected or message:
            self._complain("partly rejected", f"{rejected} spans, {_shown(message)}")
        else:
            self._content()
        return ExportResult(True, rejected)

    def _post(self, body: Request, deadline: float) -> tuple[http.client.HTTPResponse, bytes]:
        """One attempt; a second one at once when the kept connection proves to be of no use."""
        kept = self._connection
        if kept is not None and self._is_quiet():
            try:
                return self._post_over(kept, body, deadline)
            except (ConnectionError, ssl.SSLError, http.client.BadStatusLine):
                if self._stopping.is_set():
                    raise
        return self._post_over(self._connect(deadline), body, deadline)

    def _is_quiet(self) -> bool:
        """Whether nothing has come over the kept connection since the last answer, not even its
        end: what came unasked would be taken for the next answer."""
        if self._opened is None:
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self._opened, selectors.EVENT_READ)
            return not selector.select(0)

    def _post_over(
        self, connection: _Connection, body: Request, deadline: float
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection.timed.deadline = deadline
        try:
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            try:
                answer = response.read(_LONGEST_ANSWER)
            except (OSError, http.client.HTTPException):
                answer = b""  # the status says all that matters
        except BaseException:
            self._close()
            raise
        if connection.sock is None or not response.isclosed():
            self._close()  # it was the last on this connection, or there is more than was read
        if response.headers.get_content_type() != _MEDIA_TYPE:
            answer = b""
        return response, answer

    def _connect(self, deadline: float) -> _Connection:
        self._close()
        default_port = 80 if self._tls is None else 443
        try:
            sock = self._open(deadline)
        except BaseException:
            self._close()
            raise
        self._connection = _Connection(self._host, self._port, default_port, sock)
        return self._connection

    def _open(self, deadline: float) -> socket.socket:
        """A connected socket, over TLS for https; each address of the host is tried."""
        failure: OSError | None = None
        addresses = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        for family, kind, proto, _, address in addresses:
            sock = socket.socket(family, kind, proto)
            try:
                self._watch(sock)
                sock.settimeout(_left(deadline))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is None:
                    return sock
                sock.settimeout(_left(deadline))
                return self._tls.wrap_socket(sock, server_hostname=self._host)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure or OSError(f"{self._host} has no address")

    def _watch(self, sock: socket.socket) -> None:
        """Let shutdown wake whoever waits on `sock`: by a descriptor of its own, because that of
        the socket moves into the TLS socket, and may be closed and given to another meanwhile."""
        with self._open_lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = sock.dup()
        if self._stopping.is_set():
            raise ConnectionAbortedError("shut down")

    def _interrupt(self) -> None:
        with self._open_lock:
            if self._opened is not None:
                try:
                    self._opened.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # not connected, or no more

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        with self._open_lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()


class OtlpFileExporter(_Exporter):
    """Appends each request to a file, as one line of JSON.

    Several processes may write to the same file: each line is one write at its end. Raises OSError
    when the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o666
        )
        self._torn = False  # the file ends in a part of a line
        super().__init__(os.fspath(path))

    def _deliver(self, request: Request) -> ExportResult:
        line = _native.otlp_json(bytes(request)) + b"\n"
        left = memoryview(b"\n" + line if self._torn else line)
        whole = len(left)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            self._torn = self._torn or len(left) < whole
            raise
        self._torn = False
        self._content()
        return ExportResult(True)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def encode_resource(resource: Resource) -> bytes:
    """The resource as `_native.OtlpEncoder` wants it: an encoded Resource of opentelemetry-proto.

    An attribute that OTLP cannot hold is left out and logged, as by the SDK's exporter.
    """
    encoded = []
    for key, value in resource.attributes.items():
        try:
            encoded.append(_native.otlp_resource_attribute(key, value))
        except (TypeError, ValueError) as error:
            _log.warning("a resource attribute is left out: %s", error)
    return b"".join(encoded)


class _Environment:
    """The OTEL_EXPORTER_OTLP_ variables."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def _find(self, name: str) -> tuple[str, str]:
        """The variable that says it, and what it says: the traces' own before the general."""
        for variable in (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
            value = self._variables.get(variable, "").strip()
            if value:
                return variable, value
        return "", ""

    def check_protocol(self) -> None:
        variable, protocol = self._find("PROTOCOL")
        if protocol and protocol.lower() != _PROTOCOL:
            raise ConfigError(
                f"{variable} is {protocol!r}: tracesock's own exporter speaks {_PROTOCOL} only; "
                "set TRACESOCK_EXPORT=sdk to use the exporter that the SDK has for it"
            )

    def endpoint(self, argument: str | None) -> tuple[str, str]:
        if argument is not None:
            return "endpoint", argument
        variable, url = self._find("ENDPOINT")
        if variable == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":
            return variable, url
        base = url or _DEFAULT_ENDPOINT
        return variable, f"{base.removesuffix('/')}/{_TRACES_PATH}"

    def timeout(self, argument: float | None) -> float:
        name, value = ("timeout", argument) if argument is not None else self._find("TIMEOUT")
        try:
            seconds = float(value) if value != "" else _DEFAULT_TIMEOUT
        except (TypeError, ValueError):
            seconds = math.nan
        if 0 < seconds <= threading.TIMEOUT_MAX:
            return seconds
        self._refuse(name, value, "it must be a number of seconds, more than 0", argument)
        return _DEFAULT_TIMEOUT

    def compression(self, argument: str | None) -> str:
        name, value = ("compression", argument) if argument else self._find("COMPRESSION")
        if not value or value.lower() in _COMPRESSIONS:
            return value.lower()
        self._refuse(name, value, f"it must be one of {', '.join(_COMPRESSIONS)}", argument)
        return "none"

    @staticmethod
    def _refuse(name: str, value: object, wanted: str, argument: object) -> None:
        """The specification wants a warning for a variable, and the default."""
        if argument is not None:
            raise ConfigError(f"{name} is {value!r}: {wanted}")
        _log.warning("%s is %r, which is ignored: %s", name, value, wanted)

    def headers(self, argument: Mapping[str, str] | None) -> dict[str, str]:
        variable, text = self._find("HEADERS")
        named = {
            key: (variable, value) for key, value in parse_env_headers(text, liberal=True).items()
        }
        for key, value in (argument or {}).items():
            named[str(key).lower()] = ("headers", value)
        for key, (name, value) in named.items():
            # Values are credentials as often as not: none is shown.
            if not _HEADER_NAME.fullmatch(key):
                raise ConfigError(f"{name}: {key!r} cannot be the name of a header")
            if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigError(
                    f"{name}: the value of {key!r} must be text of Latin-1 without control "
                    "characters"
                )
        return {key: value for key, (_, value) in named.items() if key not in _OWN_HEADERS}

    def tls(
        self, certificate: str | None, client_certificate: str | None, client_key: str | None
    ) -> ssl.SSLContext:
        name, trusted = self._path("certificate", certificate)
        try:
            context = ssl.create_default_context(cafile=trusted or None)
        except OSError as error:
            raise ConfigError(f"{name} is {trusted!r}: {_described(error)}") from error
        name, own = self._path("client_certificate", client_certificate)
        key_name, key = self._path("client_key", client_key)
        if own:
            try:
                context.load_cert_chain(own, key or None)
            except OSError as error:
                both = f"{name} is {own!r}" + (f", {key_name} is {key!r}" if key else "")
                raise ConfigError(f"{both}: {_described(error)}") from error
        elif key:
            raise ConfigError(f"{key_name} is {key!r}, but no client_certificate is given")
        return context

    def _path(self, name: str, argument: str | None) -> tuple[str, str]:
        return (name, argument) if argument is not None else self._find(name.upper())


def _url_parts(name: str, url: str) -> urllib.parse.SplitResult:
    problem = "it must be http:// or https://, a host, and a path"
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        # What would end the request's line, or begin another header.
        usable = usable and url.isascii() and url.isprintable() and " " not in url
    except (ValueError, TypeError, AttributeError):
        usable = False
    if not usable:
        # Without what may be a credential.
        shown = re.sub(r"//.*@|\?.*", "…", url) if isinstance(url, str) else url
        raise ConfigError(f"{name} is {shown!r}: {problem}")
    return parts


def _authorization(parts: urllib.parse.SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {credentials}"}


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _shown(message: bytes) -> str:
    """A peer's words for the log: short, on one line."""
    return ascii(message[:_LONGEST_MESSAGE].decode(errors="replace"))


def _retry_after(value: str | None) -> float:
    """Seconds to wait by a Retry-After header, a number or a date (RFC 9110, 10.2.3)."""
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:18])
    try:
        date = email.utils.parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.UTC)
        return date.timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _refusal(status: int, answer: bytes) -> str:
    """The status, and the message of the google.rpc.Status that comes with it."""
    message = dict(_fields(answer)).get(2)
    what = f"status {status}"
    return f"{what}, {_shown(message)}" if isinstance(message, bytes) and message else what


def _partial_success(answer: bytes) -> tuple[int, bytes]:
    """Rejected spans and the message of an ExportTraceServiceResponse."""
    inner = dict(_fields(answer)).get(1)
    fields = dict(_fields(inner)) if isinstance(inner, bytes) else {}
    rejected, message = fields.get(1), fields.get(2)
    count = rejected if isinstance(rejected, int) and rejected < 1 << 63 else 0
    return count, message if isinstance(message, bytes) else b""


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The numbers and byte strings of a protobuf message, as far as it is one."""
    at = 0

    def number() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise IndexError

    try:
        while at < len(message):
            key = number()
            match key & 7:
                case 0:
                    yield key >> 3, number()
                case 1:
                    at += 8
                case 2:
                    size = number()
                    value = message[at : at + size]
                    at += size
                    if len(value) == size:
                        yield key >> 3, value
                case 5:
                    at += 4
                case _:
                    return
    except IndexError:
        return
