"""The formats against their published schemas; syslog and OpenTelemetry as transports."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import socket as stock
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracesock as socket
from tracesock import audit
from tracesock.audit.formats import FORMATS, format_of, own_fields, to_line
from tracesock.audit.otel import OpenTelemetrySink
from tracesock.audit.records import Endpoint, Record
from tracesock.audit.syslog import SyslogSink
from tracesock.audit.verify import verify

from .conftest import Run
from .published import ECS, ECS_ARRAYS, ECS_TYPES, check_ecs, check_ocsf, elastic_fields

POLICY = """
    default = "allow"
    [[rule]]
    id = "no-nine"
    action = "deny"
    cidr = "127.0.0.9"
    [[rule]]
    id = "in"
    action = "deny"
    direction = "ingress"
    cidr = "127.0.0.8"
"""


def workload(tmp_path: Path) -> None:
    """Every kind of record, of several families."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(("localhost", listener.getsockname()[1]))
        server, _ = listener.accept()
        client.sendall(b"abc")
        server.recv(3)
        client.close()
        server.close()
        listener.settimeout(0)
        denied = stock.create_connection(listener.getsockname(), source_address=("127.0.0.8", 0))
        assert select.select([listener], [], [], 30)[0]
        with denied, pytest.raises(BlockingIOError):
            listener.accept()
    with socket.socket() as sock:
        with pytest.raises(PermissionError):
            sock.connect(("127.0.0.9", 443))
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", 9))
        assert select.select([], [sock], [], 30)[1]
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    with socket.socket(type=socket.SOCK_DGRAM) as sock, stock.socket(type=stock.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        sock.sendto(b"x", peer.getsockname())
        sock.connect(peer.getsockname())
        sock.send(b"x")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.sendmsg([b"x"], [], 0, ("::1", 9))
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError):
        sock.connect(str(tmp_path / "none\n"))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.connect((0, 0))


@pytest.fixture(params=FORMATS)
def written(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    enforce: Callable[[str], audit.Policy],
    quiet: None,
) -> tuple[str, list[dict[str, Any]]]:
    """The format, and the lines of a log that a workload has left in it."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    path = tmp_path / "log"
    audit.open_log(path, format=request.param, rotate_bytes=1 << 20, tip_interval=60)
    enforce(POLICY)
    with trace.TracerProvider().get_tracer("test").start_as_current_span("work"):
        workload(tmp_path)
    enforce(POLICY.replace("default", 'mode = "report"\n    default', 1))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.9", 9))
    assert audit.close(30)
    assert verify(path).intact
    return request.param, [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_as_their_schema_wants_them(written: Any) -> None:
    form, lines = written
    for line in lines:
        assert format_of(json.dumps(line)) == form
        if form == "ocsf":
            check_ocsf(line)
        elif form == "ecs":
            check_ecs(line)
        elif form == "otlp":
            check_otlp(line)
    events = {own_fields(json.dumps(line))["event"] for line in lines}
    calls = ["connect", "connected", "sendto", "sendmsg", "accept", "listen", "close"]
    calls += ["audit.open", "audit.policy"]
    assert events >= {f"tracesock.{name}" for name in calls}


def test_a_line_that_is_not_as_its_schema_wants_it() -> None:
    """The check is one that can fail."""
    record = Record("tracesock.connect", 10**18, "ab" * 8, 1, peer=Endpoint("inet", "10.0.0.1", 1))
    event = FORMATS["ocsf"](record, 1)
    check_ocsf(event)
    wrong: list[dict[str, Any]] = [
        {**event, "activity_id": 50, "type_uid": 400150},
        {**event, "severity_id": "1"},
        {**event, "color": "red"},
        {**event, "dst_endpoint": {"port": 1}},
        {**event, "metadata": {**event["metadata"], "hash": "x"}},
        {name: value for name, value in event.items() if name != "time"},
    ]
    for each in wrong:
        with pytest.raises(jsonschema.ValidationError):
            check_ocsf(each)


def test_the_table_of_ecs_is_what_elastic_publishes(tmp_path: Path) -> None:
    published = elastic_fields(tmp_path)
    if published is None:
        pytest.skip("npm is not there or cannot fetch @elastic/ecs: run where it can")
    for name, kind in ECS.items():
        field = published[name]
        if isinstance(kind, set):
            allowed = {value["name"]: value for value in field.get("allowed_values") or ()}
            assert kind <= set(allowed) or name == "network.direction", (name, kind - set(allowed))
            assert field["type"] == "keyword"
        else:
            assert field["type"] == kind, name
        assert ("array" in (field.get("normalize") or ())) == (name in ECS_ARRAYS), name
    categories = {each["name"]: each for each in published["event.category"]["allowed_values"]}
    for category, types in ECS_TYPES.items():
        assert types <= set(categories[category]["expected_event_types"]), category


def check_otlp(line: dict[str, Any]) -> None:
    """OTLP/JSON is protobuf's JSON but for ids, which are hexadecimal."""
    logs = pytest.importorskip("opentelemetry.proto.logs.v1.logs_pb2")
    json_format = pytest.importorskip("google.protobuf.json_format")
    for log in line["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
        for name, size in (("traceId", 16), ("spanId", 8)):
            if name in log:
                data = bytes.fromhex(log[name])
                assert len(data) == size
                log[name] = base64.b64encode(data).decode()
    parsed = json_format.ParseDict(line, logs.LogsData(), ignore_unknown_fields=False)
    record = parsed.resource_logs[0].scope_logs[0].log_records[0]
    assert record.time_unix_nano and 1 <= record.severity_number <= 24
    names = [each.key for each in record.attributes]
    assert len(names) == len(set(names))


def test_the_trace_is_where_the_schema_has_it(written: Any) -> None:
    form, lines = written
    places: dict[str, Callable[[Any], Any]] = {
        "jsonl": lambda line: line.get("trace_id"),
        "ocsf": lambda line: line["metadata"].get("correlation_uid"),
        "ecs": lambda line: line.get("trace", {}).get("id"),
        "otlp": lambda line: line["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0].get(
            "traceId"
        ),
    }
    found = {places[form](line) for line in lines} - {None}
    assert len(found) == 1 and re.fullmatch("[0-9a-f]{32}", found.pop())


def test_decisions_in_each_schema(written: Any) -> None:
    form, lines = written
    by_action = {}
    for line in lines:
        fields = own_fields(json.dumps(line))
        if fields.get("rule") == "no-nine":
            by_action[fields["action"]] = line
    deny, would = by_action["deny"], by_action["would_deny"]
    if form == "ocsf":
        assert (deny["activity_id"], deny["action_id"], deny["disposition_id"]) == (5, 2, 2)
        assert deny["firewall_rule"]["uid"] == "no-nine" and deny["dst_endpoint"]["port"] == 443
        assert (would["action_id"], would["disposition_id"], would["is_alert"]) == (3, 19, True)
    elif form == "ecs":
        assert "denied" in deny["event"]["type"] and deny["event"]["outcome"] == "failure"
        assert deny["rule"]["id"] == "no-nine" and deny["destination"]["ip"] == "127.0.0.9"
        assert would["event"]["kind"] == "alert"
    elif form == "otlp":
        log = deny["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
        named = {each["key"]: each["value"] for each in log["attributes"]}
        assert log["eventName"] == "tracesock.audit.decision"
        assert log["severityText"] == "WARN"
        assert named["tracesock.audit.rule"] == {"stringValue": "no-nine"}
        assert named["network.peer.port"] == {"intValue": "443"}


text = st.text(max_size=40)
ends = (
    st.none()
    | st.builds(lambda port: Endpoint("inet", "192.0.2.1", port), st.integers(0, 65535))
    | st.builds(lambda path: Endpoint("unix", path=path), text.filter(bool))
)


@given(
    st.sampled_from(sorted(FORMATS)),
    st.builds(
        Record,
        event=st.sampled_from(["tracesock.connect", "tracesock.close", "tracesock.audit.note"]),
        time=st.integers(0, 2**62),
        source=st.just("ab" * 8),
        number=st.integers(1, 2**60),
        action=st.sampled_from(["", "allow", "deny", "would_deny"]),
        rule=text,
        direction=st.sampled_from(["", "egress", "ingress"]),
        outcome=st.sampled_from(["success", "denied", "error"]),
        peer=ends,
        local=ends,
        host=st.sampled_from(["", "a.example"]),
        family=st.just("inet"),
        details=st.dictionaries(st.sampled_from(["a", "b"]), text | st.integers(0, 9)),
    ),
    st.integers(1, 2**60),
)
def test_any_record_is_one_line_and_is_read_back(form: str, record: Record, sequence: int) -> None:
    if record.peer is not None and record.peer.family == "unix":
        record.family = "unix"
    line = to_line(FORMATS[form], record, sequence)
    assert line.isascii() and line.isprintable()
    fields = own_fields(line)
    assert fields.pop("seq") == sequence
    fields.pop("hash", None)
    assert fields == record.as_dict()
    assert format_of(line) == form


# --- syslog ---------------------------------------------------------------------------------------

RFC5424 = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<time>\S+) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48})"
    rb" (?P<pid>[!-~]{1,128}) (?P<id>[!-~]{1,32})"
    rb' (?P<data>\[[!-~]{1,32}( [!-~]{1,32}="([^"\\\]]|\\["\\\]])*")*\]) (?P<text>.*)',
    re.DOTALL,
)


def check_messages(messages: list[bytes]) -> list[dict[str, Any]]:
    """The records of syslog messages, each of which is as RFC 5424 wants it."""
    lines = []
    for message in messages:
        found = RFC5424.fullmatch(message)
        assert found, message
        assert int(found["priority"]) >> 3 == 13
        datetime.strptime(found["time"].decode(), "%Y-%m-%dT%H:%M:%S.%fZ")
        lines.append(found["text"])
    log = b"\n".join(lines) + b"\n"
    return [json.loads(line) for line in log.splitlines()]


class Receiver:
    """A syslog server."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.data = b""
        self.messages: list[bytes] = []
        if kind == "unix":
            self.sock = stock.socket(stock.AF_UNIX, stock.SOCK_DGRAM)
            self.sock.bind(str(directory / "log"))
            self.address = f"unix://{directory / 'log'}"
        elif kind == "udp":
            self.sock = stock.socket(type=stock.SOCK_DGRAM)
            self.sock.bind(("127.0.0.1", 0))
            self.address = f"udp://127.0.0.1:{self.sock.getsockname()[1]}"
        else:
            self.sock = stock.create_server(("127.0.0.1", 0), reuse_port=True)
            self.address = f"tcp://127.0.0.1:{self.sock.getsockname()[1]}"
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        connection = None
        while True:
            stopping = self.stop.is_set()  # then what has come is read, and no more is waited for
            if not select.select([connection or self.sock], [], [], 0 if stopping else 0.05)[0]:
                if stopping:
                    break
            elif self.kind != "tcp":
                self.messages.append(self.sock.recv(65536))
            elif connection is None:
                connection, _ = self.sock.accept()
            else:
                data = connection.recv(65536)
                if not data:
                    connection.close()
                    connection = None
                self.data += data
        if connection is not None:
            connection.close()
        self.sock.close()

    def end(self) -> list[bytes]:
        self.stop.set()
        self.thread.join()
        while self.data:  # octet counting, RFC 6587
            size, _, rest = self.data.partition(b" ")
            self.messages.append(rest[: int(size)])
            self.data = rest[int(size) :]
        return self.messages


@pytest.fixture
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(request.param, tmp_path)
    yield made
    made.stop.set()
    made.thread.join()


@pytest.mark.parametrize("receiver", ["udp", "tcp", "unix"], indirect=True)
def test_syslog(receiver: Receiver, tmp_path: Path, quiet: None) -> None:
    audit.open_syslog(receiver.address, when_full="block")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for _ in range(20):
            sock.sendto(b"x", ("127.0.0.1", 9))
            time.sleep(0.001)
    assert audit.close(30)
    messages = receiver.end()
    records = check_messages(messages)
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    path = tmp_path / "received"
    path.write_bytes(
        b"".join(RFC5424.fullmatch(message)["text"] + b"\n" for message in messages)  # type: ignore[index]
    )
    found = verify(path)
    assert found.intact, found.problems
    assert found.delivered == 21


@pytest.mark.parametrize("receiver", ["tcp"], indirect=True)
def test_a_syslog_server_that_comes_back(
    receiver: Receiver, quiet: None, capsys: pytest.CaptureFixture[str]
) -> None:
    audit.open_syslog(receiver.address, when_full="block")
    to = receiver.sock.getsockname()
    held = stock.socket()  # meanwhile, the port is nobody else's
    held.setsockopt(stock.SOL_SOCKET, stock.SO_REUSEPORT, 1)
    held.bind(to)
    receiver.end()
    said, sent = "", 0
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        # The first ones are written to a connection that is dead already.
        while "takes no records" not in said:
            assert sent < 1000
            sock.sendto(b"x", ("127.0.0.1", 9))
            sent += 1
            time.sleep(0.05)
            said += capsys.readouterr().err
    again = stock.create_server(to, reuse_port=True)
    held.close()
    done = threading.Event()

    def closer() -> None:
        audit.close(30)
        done.set()

    threading.Thread(target=closer).start()
    data = b""
    again.settimeout(30)
    connection, _ = again.accept()
    while not done.is_set() or select.select([connection], [], [], 0.2)[0]:
        if select.select([connection], [], [], 0.1)[0]:
            part = connection.recv(65536)
            if not part:
                break
            data += part
    connection.close()
    again.close()
    # What the dead connection had taken is not known to be lost; what comes after is complete.
    numbers = [int(n) for n in re.findall(rb'"number":(\d+)', data)]
    assert numbers and numbers[-1] == sent + 1 and numbers == sorted(numbers)


@pytest.mark.parametrize(
    "bad", ["", "localhost", "http://x", "udp://", "udp://h/path", "unix://", "unix://h/p", "tcp:"]
)
def test_no_syslog_server(bad: str) -> None:
    with pytest.raises(ValueError, match="not udp://"):
        SyslogSink(bad)


def test_a_syslog_server_that_is_not_there(quiet: None) -> None:
    with stock.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            audit.open_syslog("tcp://127.0.0.1:{1}".format(*nobody.getsockname()))
    assert audit.stats() == []


def test_the_sinks_own_sockets_are_not_judged(
    enforce: Callable[[str], audit.Policy], tmp_path: Path, quiet: None
) -> None:
    receiver = Receiver("udp", tmp_path)
    audit.open_syslog(receiver.address, when_full="block")
    enforce('default = "deny"')
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(PermissionError):
        sock.sendto(b"x", ("127.0.0.1", 9))
    assert audit.close(30)
    events = [record["event"] for record in check_messages(receiver.end())]
    assert events.count("tracesock.sendto") == 1 and "tracesock.connect" not in events


# --- OpenTelemetry --------------------------------------------------------------------------------


def test_opentelemetry_log_records(enforce: Callable[[str], audit.Policy], quiet: None) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk._logs")
    export = pytest.importorskip("opentelemetry.sdk._logs.export")
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    exporter = getattr(export, "InMemoryLogRecordExporter", None) or export.InMemoryLogExporter
    kept = exporter()
    provider = sdk.LoggerProvider()
    provider.add_log_record_processor(export.SimpleLogRecordProcessor(kept))
    audit.add_sink(OpenTelemetrySink(provider))
    enforce(POLICY)
    working = trace.TracerProvider().get_tracer("test").start_as_current_span("work")
    with working as span, socket.socket() as sock, pytest.raises(PermissionError):
        sock.connect(("127.0.0.9", 443))
    assert audit.close(30)
    logs = [each.log_record for each in kept.get_finished_logs()]
    (decision,) = [log for log in logs if log.event_name == "tracesock.audit.decision"]
    assert decision.trace_id == span.get_span_context().trace_id
    assert decision.span_id == span.get_span_context().span_id
    assert decision.attributes["tracesock.audit.rule"] == "no-nine"
    assert decision.attributes["tracesock.audit.action"] == "deny"
    assert decision.attributes["network.peer.port"] == 443
    assert decision.attributes["tracesock.audit.chain.hash"] != "0" * 64
    assert {log.event_name for log in logs} >= {"tracesock.audit.policy"}


def test_an_exporters_own_calls_do_not_go_round_in_circles(quiet: None) -> None:
    """Each record would otherwise be exported by calls that leave further records."""
    sdk = pytest.importorskip("opentelemetry.sdk._logs")
    context = pytest.importorskip("opentelemetry.context")
    seen = []

    class Processor(sdk.LogRecordProcessor):  # type: ignore[misc, name-defined]
        def on_emit(self, log_record: Any) -> None:
            seen.append(log_record)

        def shutdown(self) -> None:
            pass

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

    provider = sdk.LoggerProvider()
    provider.add_log_record_processor(Processor())
    audit.add_sink(OpenTelemetrySink(provider))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        token = context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))
        sock.sendto(b"x", ("127.0.0.1", 9))
        context.detach(token)
        sock.sendto(b"x", ("127.0.0.1", 10))
        os.close(sock.detach())
    assert audit.close(30)
    ports = [each.log_record.attributes["network.peer.port"] for each in seen]
    assert ports == [10]


LATE_PROVIDER = """
    import tracesock as socket
    from tracesock import audit
    from tracesock.audit.otel import OpenTelemetrySink
    from tracesock.audit.policy import parse_policy

    audit.add_sink(OpenTelemetrySink(), "drop")
    audit.use_policy(parse_policy(b'default = "deny"'))

    def refused(port):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(b"x", ("127.0.0.1", port))
            except PermissionError:
                pass

    refused(9)
"""
SET_PROVIDER = """
    from opentelemetry import _logs
    from opentelemetry.sdk import _logs as sdk
    from opentelemetry.sdk._logs import export

    class Printing(sdk.LogRecordProcessor):
        closed = False

        def on_emit(self, log_record):
            log = log_record.log_record
            port = log.attributes.get("network.peer.port")
            state = "late" if self.closed else "taken"
            print(state, log.event_name, log.attributes["tracesock.audit.sequence"], port)

        def shutdown(self):
            self.closed = True

        def force_flush(self, timeout_millis=0):
            return True

    provider = sdk.LoggerProvider()
    provider.add_log_record_processor(Printing())
    _logs.set_logger_provider(provider)
"""


def test_records_wait_for_the_logger_provider(run: Run) -> None:
    """Also those of the last moment come before the provider's own exit function."""
    pytest.importorskip("opentelemetry.sdk._logs")
    ended = run(LATE_PROVIDER + SET_PROVIDER + "    refused(10)\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        "taken tracesock.audit.policy 1 None",
        "taken tracesock.audit.decision 2 9",
        "taken tracesock.audit.decision 3 10",
    ]


def test_records_that_no_logger_provider_took_are_told(run: Run) -> None:
    pytest.importorskip("opentelemetry.sdk._logs")
    ended = run(LATE_PROVIDER)
    assert ended.returncode == 0
    assert ended.stderr == ("tracesock: audit: <OpenTelemetry logs>: 2 records are not delivered\n")


def test_a_sink_that_is_not_ready_drops_and_counts(run: Run) -> None:
    """The ring holds what waits; beyond that the oldest go, and a record says how many."""
    pytest.importorskip("opentelemetry.sdk._logs")
    ended = run(
        LATE_PROVIDER
        + """
    for port in range(1, 5001):
        refused(port)
    (counted,) = audit.stats()
    print(counted.emitted, counted.delivered, counted.dropped > 0)
    """
        + SET_PROVIDER
        + """
    assert audit.flush(30)
    (counted,) = audit.stats()
    assert counted.emitted == counted.delivered + counted.dropped, counted
    print(counted.dropped)
    """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    first, *taken, dropped = ended.stdout.splitlines()
    assert first == "5002 0 True"
    assert sum("tracesock.audit.decision" in line for line in taken) >= 5002 - 1 - int(dropped)
    assert any("tracesock.audit.gap" in line for line in taken)
