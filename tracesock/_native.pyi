# Made by ext/stub.py of the extension and ext/signatures.pyi.
import _socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Final, SupportsIndex, TypeAlias, final, overload

from _typeshed import ReadableBuffer, WriteableBuffer

_AddressLike: TypeAlias = Address | tuple[Any, ...] | str | ReadableBuffer
_ControlMessage: TypeAlias = tuple[int, int, bytes]
_ControlItem: TypeAlias = tuple[int, int, ReadableBuffer]
_Message: TypeAlias = ReadableBuffer | tuple[ReadableBuffer, _AddressLike | None]
_Host: TypeAlias = str | bytes | bytearray

def constants(
    windows_build: int = 4294967295, names: dict[str, object] = ...
) -> dict[str, dict[str, int | str]]:
    """The public constants of this platform, as plain values by name, under the name of
    their type: AddressFamily, SocketKind, MsgFlag, AddressInfo, int or str.

    windows_build: the build number of the running Windows; constants that came with
    a later build are left out. No meaning elsewhere.
    names: a dictionary that has most of the names, as the one of `_socket`, which
    spares the work to make them.
    """

@final
class Address:
    """An address, encoded once: accepted wherever an address tuple of the family is, and not
    read again by any call. A host name in it is looked up here. Immutable, hashable, and
    equal to another of the same bytes and protocol. Raises what the socket's own methods
    raise for a wrong address.
    """

    def __init__(self, family: int, address: object | None, proto: int = 0) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __bytes__(self) -> bytes: ...
    def __eq__(self, other: object | None) -> bool: ...
    def __hash__(self) -> int: ...
    def __repr__(self) -> str: ...
    @staticmethod
    def from_bytes(family: int, data: bytes, proto: int = 0) -> Address:
        """The Address of the kernel's bytes, as bytes(address) gives them. Raises ValueError for
        bytes that are no address of the family.
        """

    @property
    def family(self) -> int:
        """The address family, an int."""

    @property
    def proto(self) -> int:
        """The protocol that selects the form, where a family has several."""

    @property
    def address(self) -> object:
        """What a call that returns addresses would return."""

def encode_address(family: int, protocol: int, address: Any, caller: str = "bind") -> bytes:
    """The kernel's form of an address of one family, as bytes."""

def decode_address(protocol: int, data: bytes) -> Any:
    """The caller's form of an address that the kernel gave as bytes."""

class Socket(_socket.socket):
    """The native socket, base of tracesock.socket."""

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: SupportsIndex | None = None
    ) -> None: ...
    def __repr__(self) -> str: ...
    def __del__(self) -> None: ...
    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """Send a bytes-like object: the number of bytes sent, which may be less than the
        number given. See send(2).
        """

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """Send the whole of a bytes-like object, in as many calls as it takes. The timeout
        is the limit for all of them. After an error it is not known how much was sent.
        """

    @overload
    def sendto(self, data: ReadableBuffer, address: _AddressLike, /) -> int: ...
    @overload
    def sendto(self, data: ReadableBuffer, flags: int, address: _AddressLike, /) -> int:
        """Like send(data, flags), with the destination of a datagram."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive at most buffersize bytes; b'' when the peer has ended the stream. See recv(2)."""

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Like recv(), with the sender's address."""

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Like recv(), into a writable buffer; nbytes 0 means its length."""

    def recvfrom_into(
        self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0
    ) -> tuple[int, Any]:
        """Like recv_into(), with the sender's address."""

    def connect(self, address: _AddressLike, /) -> None:
        """Connect to a remote address, in the form of the socket's family. Raises OSError, and
        TimeoutError when the socket's timeout passes. See connect(2).
        """

    def connect_ex(self, address: _AddressLike, /) -> int:
        """Like connect(address), but an error of connect(2) is returned, 0 for none. Other
        errors, of the address or its resolution, are raised.
        """

    def _accept(self) -> tuple[int, Any]:
        """Wait for a connection."""

    def _accept_as(self, cls: Any, /) -> tuple[Any, Any]:
        """Wait for a connection: an object of that class."""

    def _prepare(self, caller: str, arguments: tuple[Any, ...], /) -> Address:
        """The encoded address of a call with one argument."""

    def bind(self, address: _AddressLike, /) -> None:
        """Bind to a local address. See bind(2)."""

    def listen(self, backlog: int = ..., /) -> None:
        """Accept connections. See listen(2)."""

    def shutdown(self, how: int, /) -> None:
        """End one or both directions."""

    def getsockname(self) -> Any:
        """The socket's own address."""

    def getpeername(self) -> Any:
        """The peer's address."""

    @overload
    def getsockopt(self, level: int, optname: int, /) -> int: ...
    @overload
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """A socket option: an int, or bytes when a buffer size is given."""

    @overload
    def setsockopt(self, level: int, optname: int, value: int | ReadableBuffer, /) -> None: ...
    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int, /) -> None:
        """Set a socket option."""

    def settimeout(self, value: float | None, /) -> None:
        """Seconds, 0 for non-blocking, None for blocking."""

    def gettimeout(self) -> float | None: ...
    def setblocking(self, flag: object, /) -> None: ...
    def getblocking(self) -> bool: ...
    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[_ControlMessage], int, Any]:
        """Receive a message with its ancillary data. See recvmsg(2)."""

    def recvmsg_into(
        self, buffers: Iterable[WriteableBuffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[_ControlMessage], int, Any]:
        """Like recvmsg(), scattered into writable buffers."""

    def sendmsg(
        self,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[_ControlItem] = ...,
        flags: int = 0,
        address: _AddressLike | None = None,
        /,
    ) -> int:
        """Send a message gathered from buffers, with ancillary data. See sendmsg(2)."""

    def send_many(
        self, messages: Iterable[_Message], address: _AddressLike | None = None, flags: int = 0
    ) -> int:
        """Send datagrams in as few system calls as it takes: the number that was sent. Each
        message is a bytes-like object, or a pair of one and its own address. An error is
        raised only where it stopped the first; after others were sent, the next call meets
        it. See sendmmsg(2), and docs/reference/batches.md.
        """

    def recv_many(self, count: int, bufsize: int, flags: int = 0) -> list[tuple[bytes, Any]]:
        """Wait for a datagram, and take what has come by then, at most count datagrams of at
        most bufsize bytes. See recvmmsg(2), and docs/reference/batches.md.
        """

    def _sendfile(self, descriptor: int, offset: int, count: int, /) -> int:
        """One sendfile(2), waited for."""

    def sendmsg_afalg(
        self,
        msg: Iterable[ReadableBuffer] = ...,
        *,
        op: int,
        iv: ReadableBuffer = ...,
        assoclen: int = ...,
        flags: int = 0,
    ) -> int:
        """Set operation mode, IV and length of associated data of an AF_ALG socket."""

    def _stream_begins(self) -> None:
        """One more stream of makefile() is open."""

    def _stream_ends(self) -> bool:
        """One less is; whether the socket was to be closed meanwhile."""

    def _may_close(self) -> bool:
        """The socket is to be closed; whether no stream is open."""

    def close(self) -> None:
        """Close the socket."""

    def detach(self) -> int:
        """Close the object without closing the descriptor."""

    def fileno(self) -> int: ...
    @property
    def proto(self) -> int:
        """the socket protocol"""
    _io_refs: int
    _closed: bool

    @property
    def family(self) -> int:
        """the socket family"""

    @property
    def type(self) -> int:
        """the socket type"""

    @property
    def timeout(self) -> float | None:
        """the socket timeout"""

def bind_class(cls: type[Socket]) -> None:
    """Make `cls` the class whose instances need no filled base, with the hot methods its own."""

def fill_all(fill: bool) -> None:
    """Whether sockets that are made from now on have a filled base, whatever their class: for
    callers of the methods of _socket.socket by themselves.
    """

def getdefaulttimeout() -> float | None:
    """The timeout in seconds of new sockets; None: none."""

def setdefaulttimeout(timeout: float | None, /) -> None:
    """Set the timeout in seconds of new sockets; None: none."""

def socketpair(family: int = ..., type: int = ..., proto: int = 0, /) -> tuple[int, int]:
    """See socketpair(2)."""

@final
class Lookup:
    """A look-up whose arguments were read, ready to run."""

    def run(self) -> Any:
        """Do the look-up and return what the function of that name returns.

        Blocks without the interpreter's lock; may be called again, from any thread.
        """

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments of the audit event: tuple."""

def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | SupportsIndex | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> Lookup:
    """Prepare getaddrinfo(3): a Lookup whose run() gives a list of (family, type, proto,
    canonname, sockaddr), family and type as int.
    """

def getnameinfo(sockaddr: tuple[Any, ...], flags: int, /) -> Lookup:
    """Prepare getnameinfo(3): a Lookup whose run() gives (host, port), both str."""

def gethostbyname(hostname: _Host, /) -> Lookup:
    """Prepare a Lookup whose run() gives the host's first IPv4 address as str."""

def gethostbyname_ex(hostname: _Host, /) -> Lookup:
    """Prepare gethostbyname(3): a Lookup whose run() gives (name, aliases, addresses)."""

def gethostbyaddr(ip_address: _Host, /) -> Lookup:
    """Prepare gethostbyaddr(3): a Lookup whose run() gives (name, aliases, addresses)."""

def getservbyname(servicename: str, protocolname: str = ..., /) -> Lookup:
    """Prepare getservbyname(3): a Lookup whose run() gives the port as int."""

def getservbyport(port: int, protocolname: str = ..., /) -> Lookup:
    """Prepare getservbyport(3): a Lookup whose run() gives the service's name as str."""

def gethostname() -> Lookup:
    """Prepare gethostname(2): a Lookup whose run() gives the name as str."""

def sethostname(name: str | bytes | PathLike[str] | PathLike[bytes], /) -> Lookup:
    """Prepare sethostname(2): a Lookup whose run() gives None."""

def getprotobyname(protocolname: str, /) -> int:
    """Return the number (int) of a protocol by its name (str), as in the proto argument of
    socket().

    Raises OSError where there is none. getprotobyname(3).
    """

def if_nameindex() -> list[tuple[int, str]]:
    """Return the network interfaces as a list of (index: int, name: str).

    Raises OSError where the system call fails. if_nameindex(3).
    """

def if_nametoindex(if_name: str | bytes | PathLike[str] | PathLike[bytes], /) -> int:
    """Return the index (int) of the network interface with this name (str, bytes or path-like).

    Raises OSError where there is none. if_nametoindex(3).
    """

def if_indextoname(if_index: SupportsIndex, /) -> str:
    """Return the name (str) of the network interface with this index (int).

    Raises OSError where there is none; OverflowError, and from 3.14 ValueError, for an index
    out of range. if_indextoname(3).
    """

def ntohs(integer: SupportsIndex, /) -> int:
    """Convert a 16-bit unsigned int from network to host byte order.

    Raises OverflowError, and from 3.14 ValueError for a negative int. byteorder(3).
    """

def ntohl(integer: SupportsIndex, /) -> int:
    """Convert a 32-bit unsigned int from network to host byte order.

    Raises OverflowError, and from 3.14 ValueError for a negative int. byteorder(3).
    """

def htons(integer: SupportsIndex, /) -> int:
    """Convert a 16-bit unsigned int from host to network byte order.

    Raises OverflowError, and from 3.14 ValueError for a negative int. byteorder(3).
    """

def htonl(integer: SupportsIndex, /) -> int:
    """Convert a 32-bit unsigned int from host to network byte order.

    Raises OverflowError, and from 3.14 ValueError for a negative int. byteorder(3).
    """

def inet_aton(ip_addr: str, /) -> bytes:
    """Pack an IPv4 address (str, also with fewer than three dots) into 4 bytes.

    Raises OSError where it is none. inet(3).
    """

def inet_ntoa(packed_ip: ReadableBuffer, /) -> str:
    """Return a packed IPv4 address (bytes-like, 4 bytes) as str.

    Raises OSError for another length. inet(3).
    """

def inet_pton(address_family: int, ip_string: str, /) -> bytes:
    """Pack an address of AF_INET or AF_INET6 (str) into 4 or 16 bytes.

    Raises OSError where it is none, or the family another. inet_pton(3).
    """

def inet_ntop(address_family: int, packed_ip: ReadableBuffer, /) -> str:
    """Return a packed address of AF_INET or AF_INET6 (bytes-like) as str.

    Raises ValueError for another family or a wrong length. inet_ntop(3).
    """

def CMSG_LEN(length: SupportsIndex, /) -> int:
    """Return the bytes of a control message with `length` bytes of data, without padding after
    them.

    Raises OverflowError out of range. cmsg(3), RFC 3542 section 20.
    """

def CMSG_SPACE(length: SupportsIndex, /) -> int:
    """Return the bytes that recvmsg() needs for a control message with `length` bytes of data,
    with padding.

    Raises OverflowError out of range. cmsg(3), RFC 3542 section 20.
    """

def close(fd: SupportsIndex, /) -> None:
    """Close a socket's file descriptor (int). Raises OSError; ECONNRESET is ignored. close(2)."""

def dup(fd: SupportsIndex, /) -> int:
    """Return a new, non-inheritable file descriptor (int) for the same socket.

    Raises OSError. fcntl(2), F_DUPFD_CLOEXEC.
    """

def builtin(implementation: Callable[..., Any], /) -> Callable[..., Any]:
    """A built-in function that calls `implementation`, with its name, docstring and module."""

class OtlpEncoder:
    """Builds requests of the OpenTelemetry protocol (ExportTraceServiceRequest of
    opentelemetry-proto), one after another in the same memory.
    """

    def __init__(
        self,
        resource: bytes = b"",
        resource_schema_url: str = "",
        scope_name: str = "",
        scope_version: str = "",
        scope_schema_url: str = "",
        *,
        limit: int = 20971520,
        value_limit: int | None = None,
    ) -> None: ...
    def add_span(
        self,
        name: str,
        trace_id: int,
        span_id: int,
        start: int,
        end: int,
        *,
        parent: int | None = None,
        parent_is_remote: bool = False,
        trace_state: str = "",
        kind: int = 1,
        attributes: Mapping[str, object] | None = None,
        encoded_attributes: bytes = b"",
        dropped_attributes: int = 0,
        status: int = 0,
        message: str = "",
    ) -> bool:
        """Add a span; False when the request would grow over its limit, and is as it was.

        start, end: nanoseconds since the Unix epoch. parent: the parent's span id.
        trace_state: as in the header tracestate. kind: OTLP's number, 1 for internal (one
        more than the API's). status: 0 unset, 1 ok, 2 error, with its message.
        encoded_attributes: of otlp_span_attribute, joined. Raises TypeError or ValueError
        for an argument or an attribute that cannot be encoded; no span is then added.
        """

    def take(self) -> bytes:
        """The request, a copy, empty without a span; the next begins."""

    @property
    def count(self) -> int:
        """Spans in the request."""

    @property
    def size(self) -> int:
        """Bytes of the request."""

def otlp_resource_attribute(key: str, value: object) -> bytes:
    """An attribute as the encoding of a Resource holds it. Raises TypeError or ValueError for
    one that OTLP cannot hold.
    """

def otlp_span_attribute(key: str, value: object, limit: int | None = None) -> bytes:
    """An attribute as the encoding of a span holds it, its texts of at most `limit`
    characters. Raises TypeError or ValueError for one that OTLP cannot hold.
    """

def otlp_json(request: bytes) -> bytes:
    """The request of an OtlpEncoder as JSON, one line without its end: OTLP's mapping,
    https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. Raises
    ValueError for other bytes.
    """

__version__: Final[str]

class recorder:
    """The recorder, driven by Python."""

    class OtlpDrain:
        """Reads the recorder and encodes sends natively; one thread uses it."""

        def __init__(
            self,
            resource: bytes,
            resource_schema_url: str,
            scope_name: str,
            scope_version: str,
            scope_schema_url: str,
            most_in_trace: int,
            request_size: int,
            samples_roots: bool,
        ) -> None: ...
        def connection(self, number: int, name: str, attributes: bytes) -> None:
            """The name and the encoded attributes of a connection's sends."""

        def connects(self, number: int, name: str, attributes: bytes) -> None:
            """The same of connects as that of a connection, without its own address."""

        def forget(self, number: int) -> None: ...
        def flush_folds(self, idle: float) -> None: ...
        def clear(self) -> None: ...
        def take_lost(self) -> int: ...
        def pump(self, seconds: float) -> None:
            """Encode what comes for at most `seconds`, until there is something to do for
            Python.
            """

        def run(self) -> tuple[list[tuple[Any, ...]], list[int], list[int], bool]:
            """Encode: (records for Python, connections to make known, those as whose connects
            are to become known, whether a round has ended).
            """

        def resume(self) -> list[tuple[Any, ...]]: ...
        def take(self) -> object:
            """The request so far, which begins anew."""

        @property
        def count(self) -> int:
            """Spans in the request."""

    TIMED_OUT: int
    INTERRUPTED: int

    @staticmethod
    def shakes_hands(socket: object) -> None:
        """A TLS handshake begins: the connection of the descriptor is this socket's now."""

    @staticmethod
    def sent(socket: object, started: int, size: int, error: int) -> None:
        """Record `size` bytes of the application's that TLS has sent since `started` ticks.
        `error` is an errno, 0, TIMED_OUT or INTERRUPTED.
        """

    @staticmethod
    def received(socket: object, size: int) -> None:
        """Count `size` bytes of the application's that TLS has received, 0 at the end."""

    @staticmethod
    def silence(socket: object) -> None:
        """Tell nothing of this socket any more: a part of the program's machinery."""
    SENDS: int
    METRICS: int
    SLOW_SENDS: int
    FAILED_SENDS: int
    CONNECTS: int
    ACCEPTS: int
    ROOTLESS_SENDS: int
    CALL_BOUNDS: Final[tuple[float, ...]]

    @staticmethod
    def start(
        wanted: int,
        slow_threshold: float,
        variable: object,
        span_key: object,
        suppression: object,
        plain_suppression: object,
        server_variable: object,
        tuple_of_parts: object | None,
    ) -> None:
        """Record what `wanted` says, with the caller's OpenTelemetry context."""

    @staticmethod
    def stop() -> None:
        """Record nothing more."""

    @staticmethod
    def active() -> int:
        """What is wanted; 0: off."""

    @staticmethod
    def wait(seconds: float) -> None: ...
    @staticmethod
    def wake() -> None: ...
    @staticmethod
    def drop_contexts() -> None: ...
    @staticmethod
    def drain(limit: int, spans: bool) -> tuple[list[tuple[Any, ...]], bool]: ...
    @staticmethod
    def digest() -> tuple[list[tuple[Any, ...]], bytes]: ...
    @staticmethod
    def connection(
        number: int,
    ) -> tuple[int, int, int, Any, Any, str | None, bool, bool] | None: ...
    @staticmethod
    def keep_origin(keep: bool) -> None:
        """Keep the stack that makes each new socket."""

    @staticmethod
    def cells() -> list[tuple[Any, ...]]: ...
    @staticmethod
    def counts() -> tuple[int, int, int]: ...
    @staticmethod
    def lookups() -> list[tuple[Any, ...]]: ...
    @staticmethod
    def call_within(
        context: object | None, server: str | None, function: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Call `function(*arguments)` in an OpenTelemetry context, and while a set-up asks for
        the server of this name; None: as it is. No exception leaves them behind.
        """

    @staticmethod
    def suppressed() -> bool:
        """Whether the caller's context says that nothing is to be told."""

    @staticmethod
    def open_numbers() -> list[int]: ...
    @staticmethod
    def connections(numbers: Sequence[int]) -> list[dict[str, Any]]: ...
    @staticmethod
    def most_ports() -> int: ...
    @staticmethod
    def states() -> tuple[Any, ...]: ...
    @staticmethod
    def learned(host: str, address: str) -> None:
        """Who connects to this address means this host, or with "" the address itself; nothing
        for what is no IPv4 or IPv6 address.
        """

    @staticmethod
    def is_literal(host: str) -> bool:
        """Whether this asks nobody: an address, or nothing, in place of a name."""

    @staticmethod
    def ticks() -> int:
        """The recorder's clock, in its own ticks."""

    @staticmethod
    def unix_time(ticks: int) -> int:
        """Nanoseconds since the Unix epoch at which the clock stood at `ticks`."""

    @staticmethod
    def uses_time_stamp_counter() -> bool: ...

class audit:
    """Policy, records and subscriptions."""

    class Policy:
        """A compiled policy."""

        def __init__(
            self,
            rules: Sequence[
                tuple[
                    str,
                    bool,
                    bool,
                    Sequence[str],
                    Sequence[str],
                    Sequence[tuple[int, int]],
                    Sequence[int],
                ]
            ],
            denies: bool,
            enforced: bool,
        ) -> None: ...
        def judge(self, ingress: bool, address: bytes, port: int, names: Sequence[str]) -> int:
            """The index of the rule that decides on an encoded address, -1 for the default.
            `port` replaces the address's own unless negative.
            """

        def judges_ingress(self) -> bool: ...

    @staticmethod
    def normal_host(arg: str, /) -> str: ...
    @staticmethod
    def check_prefix(arg: str, /) -> None: ...
    @staticmethod
    def set_policy(policy: audit.Policy | None) -> None: ...
    @staticmethod
    def guard(process: bool) -> None:
        """Judge calls that go past tracesock's methods too: of tracesock's sockets, or of all."""

    @staticmethod
    def decisions() -> list[tuple[str, str, int]]: ...
    @staticmethod
    def watched() -> int: ...

    class Ring:
        """Where records wait for their sinks."""

        def __init__(self, path: str, capacity: int, source: str) -> None: ...
        def add_sink(self, arg: int, /) -> int: ...
        def remove_sink(self, arg: int, /) -> None: ...
        def take(self, sink: int, most: int, wait: float) -> tuple[int, list[bytes]]: ...
        def delivered(self, arg0: int, arg1: int, /) -> None: ...
        def set_failing(self, arg0: int, arg1: bool, /) -> None: ...
        def flush(self, arg0: int, arg1: float, /) -> bool: ...
        def close(self) -> None: ...
        def interrupt(self) -> None: ...
        def stats(self) -> dict[str, Any]: ...
        def use(self) -> None:
            """Let calls leave their records here."""

    @staticmethod
    def stop_recording() -> None: ...
    @staticmethod
    def set_restart(callable: Callable[[], object] | None) -> None: ...
    @staticmethod
    def set_context_reader(callable: Callable[[], bytes | None] | None) -> None: ...
    @staticmethod
    def note(arg: str, /) -> None: ...
    @staticmethod
    def exempt_thread() -> None: ...
    @staticmethod
    def decode(entry: bytes) -> tuple[Any, ...]: ...
    @staticmethod
    def lines(
        entries: Sequence[bytes],
        start: int,
        sequence: int,
        hash: str,
        source: str,
        names: dict[Any, Any],
        errors: dict[Any, Any],
    ) -> tuple[Any, ...]:
        """The chain's lines that formats.jsonl() makes of entries from `start` on, until one
        that only Python can write: see line_of(). `names`: those of threads, in JSON;
        `errors`: errno.errorcode. Returns (lines, how many, the last one's hash).
        """

    @staticmethod
    def decode_header(page: bytes) -> dict[str, Any]: ...
    ENTRY_SIZE: int
    HEADER_SIZE: int
    NOTE_CAPACITY: int

    @staticmethod
    def cost_of_call(socket: object, address: object, count: int) -> float: ...
    @staticmethod
    def cost_of_event(event: str, socket: object, address: object, count: int) -> float: ...
    EVENTS: Final[tuple[str, ...]]

    @staticmethod
    def subscribe(
        callback: Callable[..., object], events: int, prefixes: Sequence[str], hosts: Sequence[str]
    ) -> int: ...
    @staticmethod
    def unsubscribe(number: int) -> None: ...
    @staticmethod
    def subscriptions() -> int: ...
    FAMILIES: Final[dict[str, int]]
