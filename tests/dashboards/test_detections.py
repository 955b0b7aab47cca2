"""The detections, run by ClickHouse itself (chDB) over logs that tracesock has written."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml", reason="pyyaml: pip install -e '.[dev]'")
from dashboards import detections

ROOT = Path(__file__).parents[2]
RULES = {rule.rule: rule for rule in detections.load()}

Found = Callable[[str], list[dict[str, Any]]]


class ClickHouse:
    """A database in this process."""

    def __init__(self, folder: Path) -> None:
        chdb = pytest.importorskip("chdb", reason="chDB: pip install -e '.[dev]'")
        from chdb.session import Session

        self.error = chdb.ChdbError
        self._session = Session(str(folder))
        self.script((ROOT / "dashboards/detections/clickhouse.sql").read_text())

    def close(self) -> None:
        self._session.query("DROP DATABASE IF EXISTS tracesock")
        self._session.close()

    def script(self, text: str) -> None:
        bare = re.sub(r"^\s*--.*$", "", text, flags=re.M)
        for statement in bare.split(";\n"):
            if statement.strip():
                self._session.query(statement)

    def empty(self) -> None:
        self._session.query("TRUNCATE TABLE tracesock.audit")

    def load(self, path: Path, service: str = "shop", log: str = "audit.jsonl") -> None:
        self._session.query(
            "INSERT INTO tracesock.audit (service, log, line) "
            f"SELECT '{service}', '{log}', line FROM file('{path}', 'LineAsString', 'line String')"
        )

    def rows(self, sql: str) -> list[dict[str, Any]]:
        text = str(self._session.query(sql.strip().removesuffix(";"), "JSONEachRow"))
        return [json.loads(line) for line in text.splitlines() if line]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    database = ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    yield database
    database.close()


@pytest.fixture
def database(shared: ClickHouse) -> ClickHouse:
    shared.empty()
    return shared


@pytest.fixture
def found(database: ClickHouse) -> Found:
    """What the committed query of a rule finds."""

    def found(rule: str) -> list[dict[str, Any]]:
        path = ROOT / "dashboards/detections/sql" / RULES[rule].file
        rows = database.rows(path.read_text())
        for row in rows:
            assert (row["rule"], row["priority"]) == (rule, RULES[rule].priority)
            assert row["tags"] == list(RULES[rule].tags)
            assert "%" not in row["output"]
        return rows

    return found


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Runs a program on tracesock with an audit log; the log."""

    def write(program: str, name: str = "audit.jsonl", policy: str = "") -> Path:
        log = tmp_path / name
        options = ["--audit-log", str(log)]
        if policy:
            path = tmp_path / "egress.toml"
            path.write_text(policy)
            options += ["--policy", str(path)]
        script = tmp_path / "program.py"
        script.write_text("import contextlib, socket, time\n" + textwrap.dedent(program))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
        done = subprocess.run(
            [sys.executable, "-m", "tracesock", "run", *options, str(script)],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return log

    return write


def told_at(log: Path, when: Callable[[dt.datetime], dt.datetime]) -> Path:
    """The same records at other times: their chain does not hold any more."""
    moved = log.with_name("moved-" + log.name)
    lines = []
    for line in log.read_text().splitlines():
        record = json.loads(line)
        time = dt.datetime.fromisoformat(record["time"][:26] + "+00:00")
        record["time"] = when(time).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        lines.append(json.dumps(record, separators=(",", ":")))
    moved.write_text("\n".join(lines) + "\n")
    return moved


ORDINARY = """
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    for _ in range(5):
        with socket.create_connection(("localhost", port)) as sock:
            sock.sendall(b"hello")
            server.accept()[0].close()
"""


def test_an_ordinary_program_is_no_finding(
    database: ClickHouse, found: Found, write: Callable[..., Path]
) -> None:
    database.load(write(ORDINARY))
    (counted,) = database.rows(
        "SELECT count() AS n, uniqExact(event) AS events FROM tracesock.audit"
    )
    assert int(counted["n"]) > 10 and int(counted["events"]) > 4
    assert {rule: found(rule) for rule in RULES} == {rule: [] for rule in RULES}


def test_a_destination_that_is_new(
    database: ClickHouse, found: Found, write: Callable[..., Path]
) -> None:
    usual = write(ORDINARY, "usual.jsonl")
    database.load(told_at(usual, lambda time: time - dt.timedelta(days=3)))
    assert found("First-seen destination") == []
    database.load(
        write(
            """
            server = socket.create_server(("127.0.0.42", 0))
            for _ in range(2):
                socket.create_connection(server.getsockname()).close()
            """
        )
    )
    (row,) = found("First-seen destination")
    assert (row["destination"], int(row["events"])) == ("127.0.0.42", 2)
    assert row["output"].startswith("shop called 127.0.0.42 port ")
    # Of a service that was not there before, everything would be new.
    database.load(write(ORDINARY, "other.jsonl"), service="young")
    assert [row["service"] for row in found("First-seen destination")] == ["shop"]


def test_a_beacon(database: ClickHouse, found: Found, write: Callable[..., Path]) -> None:
    log = write(
        """
        server = socket.create_server(("127.0.0.42", 0))
        for _ in range(12):
            socket.create_connection(server.getsockname()).close()
            server.accept()[0].close()
        """
    )
    records = iter(range(10_000))
    now = dt.datetime.now(dt.UTC)
    rng = random.Random(1)
    starts: dict[int, dt.datetime] = {}

    def every_minute(_: dt.datetime) -> dt.datetime:
        index = next(records)
        late = dt.timedelta(seconds=rng.uniform(0, 1.5))
        return starts.setdefault(
            index, now - dt.timedelta(hours=20) + index * dt.timedelta(minutes=1) + late
        )

    database.load(told_at(log, every_minute))
    (row,) = found("Beaconing")
    assert row["destination"] == "127.0.0.42" and int(row["events"]) == 12
    # A connect, an accept and two closes each: four minutes between one connect and the next.
    assert 180 <= float(row["period"]) <= 300 and float(row["jitter"]) < 0.1

    # The same calls at uneven times are none.
    database.empty()
    database.load(told_at(log, lambda _: now - dt.timedelta(seconds=rng.uniform(1, 20 * 3600))))
    assert found("Beaconing") == []


def test_names_that_carry_data(
    database: ClickHouse, found: Found, write: Callable[..., Path]
) -> None:
    # The names are the hosts file's, in a mount namespace of the program's own.
    if os.geteuid() != 0:
        pytest.skip("names of a hosts file of its own need a mount namespace: run as root")
    log = write(
        """
        import ctypes, os, secrets
        libc = ctypes.CDLL(None, use_errno=True)
        CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 4096, 16384, 1 << 18
        if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
            raise OSError(ctypes.get_errno(), "unshare")
        names = [f"{secrets.token_hex(20)}.t.evil.test" for _ in range(25)]
        names += [f"www{n}.good.test" for n in range(25)]
        hosts = os.path.join(os.path.dirname(__file__), "hosts")
        with open(hosts, "w") as file:
            file.writelines(f"127.0.1.{n} {name}\\n" for n, name in enumerate(names))
        if libc.mount(hosts.encode(), b"/etc/hosts", None, MS_BIND, None):
            raise OSError(ctypes.get_errno(), "mount")
        for name in names:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection((name, 9)).close()
        """
    )
    database.load(log)
    (row,) = found("DNS tunnelling signs in names")
    assert (row["domain"], int(row["names"]), int(row["longest"])) == ("evil.test", 25, 40)


def test_a_program_that_asks_name_servers_itself(
    database: ClickHouse, found: Found, write: Callable[..., Path]
) -> None:
    program = """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range({count}):
                with contextlib.suppress(OSError):  # nobody listens there
                    sock.sendto(b"x" * 60, ("127.0.0.53", 53))
    """
    database.load(write(program.format(count=90), "few.jsonl"))
    assert found("DNS tunnelling signs in traffic") == []
    database.load(write(program.format(count=120)), service="leaky")
    (row,) = found("DNS tunnelling signs in traffic")
    assert (row["service"], row["peer_address"]) == ("leaky", "127.0.0.53")
    assert int(row["events"]) == 120


POLICY = """
mode = "{mode}"
default = "allow"
[[rule]]
id = "no-scans"
action = "deny"
cidr = "127.0.9.0/24"
"""


@pytest.mark.parametrize("mode", ["enforce", "report"])
def test_a_burst_of_denials(
    database: ClickHouse, found: Found, write: Callable[..., Path], mode: str
) -> None:
    program = """
        for n in range({count}):
            with contextlib.suppress(OSError):
                socket.create_connection((f"127.0.9.{{n}}", 20 + n % 3)).close()
    """
    policy = POLICY.format(mode=mode)
    database.load(write(program.format(count=19), "few.jsonl", policy))
    assert found("Denied burst") == []
    database.load(write(program.format(count=30), policy=policy), service="scanning")
    (row,) = found("Denied burst")
    assert (row["service"], row["policy_rule"]) == ("scanning", "no-scans")
    assert [int(row[name]) for name in ("events", "peers", "ports")] == [30, 30, 3]


def test_raw_sockets(database: ClickHouse, found: Found, write: Callable[..., Path]) -> None:
    if os.geteuid() != 0:
        pytest.skip("a raw socket needs CAP_NET_RAW: run as root")
    database.load(
        write(
            """
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
                sock.sendto(b"\\x08" + bytes(7), ("127.0.0.1", 0))
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
                sock.bind(("lo", 0))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.sendto(b"seen", ("127.0.0.1", 9))
                sock.settimeout(5)
                sock.recv(200)
            """
        )
    )
    outputs = {row["output"].split(", process")[0] for row in found("Raw socket")}
    assert outputs == {
        "shop used a raw socket (tracesock.sendto, family inet",
        "shop used a raw socket (tracesock.close, family inet",
        "shop used a raw socket (tracesock.close, family packet",
    }


def test_listeners_on_all_interfaces(
    database: ClickHouse, found: Found, write: Callable[..., Path]
) -> None:
    log = write(
        """
        for address, family in (("0.0.0.0", socket.AF_INET), ("127.0.0.1", socket.AF_INET),
                                ("::", socket.AF_INET6)):
            with contextlib.suppress(OSError):  # a machine without IPv6
                socket.create_server((address, 0), family=family).close()
        """
    )
    database.load(log)
    listens = [json.loads(line) for line in log.read_text().splitlines()]
    # The kernel may give two of them the same.
    ports = [
        line["local"]["port"]
        for line in listens
        if line["event"] == "tracesock.listen" and line["local"]["address"] != "127.0.0.1"
    ]
    outputs = [row["output"] for row in found("Bind to all interfaces")]
    assert len(outputs) == len(ports) >= 1
    for port in ports:
        assert any(f"port {port} " in output for output in outputs)


def test_a_chain_that_is_broken(
    database: ClickHouse, found: Found, write: Callable[..., Path], tmp_path: Path
) -> None:
    log = write(ORDINARY)
    lines = log.read_text().splitlines(keepends=True)
    changed = [line.replace('"outcome":"success"', '"outcome":"error"') for line in lines]
    swapped = lines[:4] + [lines[5], lines[4]] + lines[6:]
    rehashed = [*lines[:6], re.sub(r'"port":\d+', '"port":1', lines[6]), *lines[7:]]
    logs = {
        "whole.jsonl": lines,
        "changed.jsonl": changed,
        "removed.jsonl": lines[:5] + lines[6:],
        "renumbered.jsonl": [re.sub(r'"seq":4,', '"seq":40,', line) for line in swapped],
        "port.jsonl": rehashed,
        # What rotation or the TTL has taken away is not a break.
        "tail.jsonl": lines[6:],
    }
    for name, text in logs.items():
        path = tmp_path / name
        path.write_text("".join(text))
        database.load(path, log=name)
    broken = {row["log"] for row in found("Audit chain broken")}
    assert broken == {"changed.jsonl", "removed.jsonl", "renumbered.jsonl", "port.jsonl"}


# --- the rules themselves -----------------------------------------------------------------------


def test_the_kinds_that_were_asked_for_are_there() -> None:
    assert {
        "First-seen destination",
        "Beaconing",
        "DNS tunnelling signs in names",
        "DNS tunnelling signs in traffic",
        "Denied burst",
        "Raw socket",
        "Bind to all interfaces",
        "Audit chain broken",
    } <= RULES.keys()
    for rule in RULES.values():
        assert rule.desc and rule.output and rule.tags
        assert rule.priority in detections.PRIORITIES


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- rule: x\n  condition: a\n", "x: lacks desc, output, priority, tags"),
        (
            "- {rule: x, desc: d, condition: c, output: o, priority: HIGH, tags: [t]}\n",
            "x: priority HIGH is none of",
        ),
        (
            "- {rule: x, desc: d, condition: c, output: o, priority: ERROR, tags: [t], wnd: 1}\n",
            "x: unknown: wnd",
        ),
    ],
)
def test_a_rule_that_is_none_is_refused(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(detections.RuleError, match=re.escape(told)):
        detections.load(path)


def test_text_of_a_rule_is_no_sql() -> None:
    rule = detections.Rule("it's", "d", "true", "it's \\ %service", "ERROR", ("a'b",))
    assert "'it\\'s' AS rule" in detections.sql(rule)
    assert "'it\\'s \\\\ ', toString(service)" in detections.sql(rule)
    assert "['a\\'b']" in detections.sql(rule)
