"""Names: values from codes and exceptions, span names, and that the reference has them all."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

import tracesock
from tracesock.instrumentation import Config, semconv

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, None),
        (-1, "timed_out"),
        (-2, "interrupted"),
        (-3, "denied"),
        (errno.ECONNREFUSED, "connection_refused"),
        (errno.ETIMEDOUT, "timed_out"),
        (errno.EHOSTUNREACH, "host_unreachable"),
        (errno.ENETUNREACH, "network_unreachable"),
        (errno.EADDRNOTAVAIL, "address_not_available"),
        (errno.EACCES, "access_denied"),
        (errno.EPERM, "access_denied"),
        (errno.ECONNRESET, "connection_reset"),
        (errno.EPIPE, "broken_pipe"),
        (errno.EMSGSIZE, "message_too_long"),
        (errno.EAFNOSUPPORT, "address_family_not_supported"),
        (errno.ENOENT, "FileNotFoundError"),
        (errno.EIO, "OSError"),
        (32767, "OSError"),
    ],
)
def test_error_type_of_a_code(code: int, expected: str | None) -> None:
    assert semconv.error_type_of_code(code) == expected


class Refused(OSError):
    pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (tracesock.gaierror(tracesock.EAI_NONAME, "x"), "host_not_found"),
        (tracesock.gaierror(tracesock.EAI_NODATA, "x"), "host_not_found"),
        (tracesock.gaierror(tracesock.EAI_AGAIN, "x"), "try_again"),
        (tracesock.gaierror(tracesock.EAI_FAIL, "x"), "no_recovery"),
        (tracesock.gaierror(tracesock.EAI_FAMILY, "x"), "address_family_not_supported"),
        (tracesock.gaierror(tracesock.EAI_MEMORY, "x"), "gaierror"),
        (tracesock.gaierror(), "gaierror"),
        (tracesock.herror(1, "x"), "host_not_found"),
        (tracesock.herror(2, "x"), "try_again"),
        (tracesock.herror(3, "x"), "no_recovery"),
        (tracesock.herror(4, "x"), "host_not_found"),
        (TimeoutError("timed out"), "timed_out"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection_refused"),
        (PermissionError(errno.EACCES, "x"), "access_denied"),
        (Refused(errno.ECONNRESET, "x"), "connection_reset"),
        (Refused("no number"), "Refused"),
        (FileNotFoundError(errno.ENOENT, "x"), "FileNotFoundError"),
        # Its number is OpenSSL's: 1 is no EPERM.
        (ssl.SSLError(1, "x"), "SSLError"),
        (ssl.SSLCertVerificationError(1, "x"), "SSLCertVerificationError"),
        (UnicodeError("label too long"), "UnicodeError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_error_type_of_an_exception(error: BaseException, expected: str) -> None:
    assert semconv.error_type(error) == expected


def test_a_real_lookup_and_a_real_connect_agree_with_their_codes() -> None:
    with pytest.raises(tracesock.gaierror) as unknown:
        tracesock.getaddrinfo("name.invalid.", 80, flags=tracesock.AI_NUMERICHOST)
    assert semconv.error_type(unknown.value) == "host_not_found"
    with tracesock.socket(tracesock.AF_UNIX) as sock, pytest.raises(OSError) as missing:
        sock.connect("/nowhere/at/all")
    assert semconv.error_type(missing.value) == "FileNotFoundError"
    assert semconv.error_type_of_code(missing.value.errno or 0) == "FileNotFoundError"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((tracesock.AF_INET, tracesock.SOCK_STREAM, 0), ("tcp", "ipv4")),
        ((tracesock.AF_INET6, tracesock.SOCK_STREAM, 6), ("tcp", "ipv6")),
        ((tracesock.AF_INET, tracesock.SOCK_DGRAM, 0), ("udp", "ipv4")),
        ((tracesock.AF_INET6, tracesock.SOCK_DGRAM, 58), ("icmp", "ipv6")),
        ((tracesock.AF_INET, tracesock.SOCK_STREAM, 132), ("sctp", "ipv4")),
        ((tracesock.AF_INET, tracesock.SOCK_STREAM, 262), ("mptcp", "ipv4")),
        ((tracesock.AF_INET, tracesock.SOCK_RAW, 1), ("raw", "ipv4")),
        ((tracesock.AF_INET, tracesock.SOCK_STREAM, 99), (None, "ipv4")),
        ((tracesock.AF_UNIX, tracesock.SOCK_DGRAM, 0), ("unix", None)),
        ((tracesock.AF_VSOCK, tracesock.SOCK_STREAM, 0), ("vsock", None)),
        ((tracesock.AF_NETLINK, tracesock.SOCK_RAW, 0), ("netlink", None)),
        ((tracesock.AF_CAN, tracesock.SOCK_RAW, 1), ("can", None)),
        ((12345, 1, 0), (None, None)),
    ],
)
def test_transport_and_type(labels: tuple[int, int, int], expected: tuple[str, str]) -> None:
    assert (semconv.transport_of(*labels), semconv.network_type_of(labels[0])) == expected


def test_states_are_the_kernels() -> None:
    """<linux/tcp_states.h>, and the values of network.connection.state."""
    assert [semconv.connection_state(state) for state in range(1, 13)] == [
        "established",
        "syn_sent",
        "syn_received",
        "fin_wait_1",
        "fin_wait_2",
        "time_wait",
        "closed",
        "close_wait",
        "last_ack",
        "listen",
        "closing",
        "syn_received",
    ]
    assert semconv.connection_state(99) == "closed"


def test_span_names() -> None:
    assert semconv.span_lookup("example.org") == "DNS lookup example.org"
    assert semconv.span_reverse_lookup("192.0.2.1") == "DNS reverse lookup 192.0.2.1"
    assert semconv.span_connect("192.0.2.1", 80) == "socket connect 192.0.2.1:80"
    assert semconv.span_connect("2001:db8::1", 80) == "socket connect [2001:db8::1]:80"
    assert semconv.span_connect("/run/a:b") == "socket connect /run/a:b"
    assert semconv.span_setup("example.org", 80) == "socket connection_setup example.org:80"
    assert semconv.span_send("192.0.2.1", 80) == "socket send 192.0.2.1:80"
    assert semconv.span_tls_client("example.org") == "TLS client handshake example.org"
    assert semconv.span_tls_client() == "TLS client handshake"


# --- the documentation --------------------------------------------------------------------------


def reference() -> str:
    return (ROOT / "docs/reference/telemetry.md").read_text()


def test_the_reference_has_every_name() -> None:
    text = reference()
    values = {
        value
        for name, value in vars(semconv).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_")
    }
    values -= {semconv.SCOPE_NAME}
    # States of a connection are the conventions'.
    values -= {semconv.ESTABLISHED, semconv.SYN_SENT, semconv.LISTEN, semconv.CLOSED}
    values |= {*semconv._ERRNO_TYPES.values(), *semconv._EAI_TYPES.values()}
    missing = {value for value in values if f"`{value}`" not in text}
    assert not missing


def test_the_reference_has_every_metric_as_it_is() -> None:
    rows = {
        cells[0].split("`")[1]: cells
        for line in reference().splitlines()
        if line.startswith("| `")
        and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 4
    }
    assert rows.keys() == {metric.name for metric in semconv.METRICS}
    names = {
        semconv.LOOKUP_BOUNDARIES: "look-up",
        semconv.CALL_BOUNDARIES: "call",
        semconv.CONNECTION_BOUNDARIES: "life",
        (): "",
    }
    for metric in semconv.METRICS:
        _, kind, buckets, attributes = rows[metric.name]
        assert kind.endswith(f", {metric.unit}")
        assert kind.startswith("histogram") == bool(metric.boundaries)
        assert buckets == names[metric.boundaries]
        without_values = re.sub(r"\(.*?\)", "", attributes)
        assert tuple(re.findall("`(.*?)`", without_values)) == metric.attributes


def test_the_reference_has_every_setting_and_its_default() -> None:
    text = reference()
    for field in dataclasses.fields(Config):
        row = re.search(rf"^\| `{field.name}` \|(.*?)\|", text, re.MULTILINE)
        assert row is not None, field.name
        default, told = field.default, row[1].strip()
        if isinstance(default, bool):
            assert told == f"`{str(default).lower()}`"
        elif default in (None, (), ""):
            assert told == ""
        else:
            assert told == f"`{default}`"


def test_the_examples_run(tmp_path: Path) -> None:
    text = (ROOT / "docs/how-to/test-your-own-telemetry.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "test_documented.py").write_text("\n\n".join(blocks[:2]))
    (tmp_path / "plain.py").write_text(blocks[2])
    path = f"import sys; sys.path.insert(0, {str(Path(tracesock.__file__).parents[1])!r}); "
    tests = (
        "import pytest; sys.exit(pytest.main(['-q', '-p', 'tracesock.testing', "
        "'-p', 'no:cacheprovider', 'test_documented.py']))"
    )
    for code, expected in ((tests, "3 passed"), ("import runpy; runpy.run_path('plain.py')", "")):
        done = subprocess.run(
            [sys.executable, "-c", path + code],
            cwd=tmp_path,
            # Other packages' plugins cost seconds.
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0 and expected in done.stdout, done.stdout + done.stderr
