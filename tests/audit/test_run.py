"""`tracesock run --policy --audit-log --learn`, and the tools that read what it leaves."""

from __future__ import annotations

import json
import re
import signal
import socket as stock
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracesock.audit.learn import need_of, needs_of_rules, policy_text, smallest_rules
from tracesock.audit.policy import Policy, parse_policy
from tracesock.audit.records import NS, Endpoint, Record
from tracesock.audit.replay import replay, report

from .conftest import child_environment

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tracesock(tmp_path: Path) -> Command:
    """Runs the command in the test's directory."""

    def start(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tracesock", *words],
            cwd=tmp_path,
            env=child_environment(**environment),
            capture_output=True,
            text=True,
            timeout=90,
        )

    return start


def write(path: Path, text: str) -> None:
    path.write_text(textwrap.dedent(text))


EVERY_WAY = """
    import socket, sys, urllib.request

    port = int(sys.argv[1])

    def attempt(function):
        try:
            function()
        except PermissionError as error:
            print("denied", error)
        except OSError as error:
            reason = getattr(error, "reason", error)
            print("denied" if isinstance(reason, PermissionError) else "other", reason)
        else:
            print("passed")

    def connect_ex(host, family=socket.AF_INET):
        with socket.socket(family) as sock:
            sock.connect_ex((host, port))

    attempt(lambda: socket.create_connection(("127.0.0.1", port)))
    attempt(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/"))
    for host in ("127.0.0.1", "127.1", "0x7f.1", "2130706433", "localhost"):
        attempt(lambda: connect_ex(host))
    attempt(lambda: connect_ex("::ffff:127.0.0.1", socket.AF_INET6))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        attempt(lambda: sock.sendto(b"x", ("127.0.0.1", port)))
        attempt(lambda: sock.sendmsg([b"x"], [], 0, ("127.0.0.1", port)))
    import _socket, asyncio, os, ssl

    to = ("127.0.0.1", port)
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE

    class Sub(socket.socket):
        pass

    async def stream(**keywords):
        await asyncio.open_connection(*to, **keywords)

    async def datagram(**keywords):
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=to)

    async def sock_connect():
        with socket.socket() as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, to)

    attempt(lambda: connect_ex("0177.0.0.1"))
    attempt(lambda: connect_ex("0x7f000001"))
    attempt(lambda: socket.socket.connect(Sub(), to))
    attempt(lambda: socket.socket().dup().connect(to))
    kept = socket.socket()
    attempt(lambda: socket.socket(fileno=os.dup(kept.fileno())).connect(to))
    attempt(lambda: socket.socket().sendto(b"x", socket.MSG_FASTOPEN, to))
    attempt(lambda: socket.socket().sendmsg([b"x"], [], socket.MSG_FASTOPEN, to))
    attempt(lambda: socket.socket(type=socket.SOCK_DGRAM).connect(to))
    attempt(lambda: unverified.wrap_socket(socket.socket()).connect(to))
    attempt(lambda: urllib.request.urlopen(f"https://127.0.0.1:{port}/", context=unverified))
    attempt(lambda: asyncio.run(stream()))
    attempt(lambda: asyncio.run(stream(ssl=unverified)))
    attempt(lambda: asyncio.run(datagram()))
    attempt(lambda: asyncio.run(sock_connect()))
    # Past tracesock's methods.
    attempt(lambda: _socket.socket().connect(to))
    attempt(lambda: _socket.socket().connect(("localhost", port)))
    attempt(lambda: _socket.socket(fileno=socket.socket().detach()).connect_ex(to))
    attempt(lambda: _socket.socket(type=2).sendto(b"x", to))
    attempt(lambda: _socket.socket.connect(Sub(), to))
    attempt(lambda: _socket.socket.sendmsg(Sub(type=2), [b"x"], [], 0, to))
    attempt(lambda: _socket.socket.connect(unverified.wrap_socket(socket.socket()), to))
    attempt(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port + 1)))
"""


@pytest.mark.filterwarnings("ignore")
def test_a_policy_stops_every_way(tracesock: Command, tmp_path: Path) -> None:
    with stock.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        write(
            tmp_path / "egress.toml",
            f"""
            default = "allow"
            [[rule]]
            id = "no-loopback"
            action = "deny"
            cidr = ["127.0.0.0/8"]
            port = [{port}]
            """,
        )
        write(tmp_path / "prog.py", EVERY_WAY)
        done = tracesock(
            "run", "--policy", "egress.toml", "--audit-log", "audit.jsonl", "prog.py", str(port)
        )
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 32 and lines[-1] == "passed"
    assert all(line.startswith("denied") and "no-loopback" in line for line in lines[:-1]), lines
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    denials = [record for record in records if record.get("action") == "deny"]
    assert len(denials) == 31
    assert {record["rule"] for record in denials} == {"no-loopback"}
    assert {record["peer"]["address"] for record in denials} == {"127.0.0.1"}
    checked = tracesock("audit", "verify", "audit.jsonl")
    assert checked.returncode == 0 and checked.stdout.startswith("intact"), checked.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('mode = "x"', 'egress.toml:1: mode is "enforce" or "report"'),
        ("[[rule]]\n", "egress.toml:1: the rule has no id"),
        ("port = [", "egress.toml:1: "),
        (None, "egress.toml: No such file or directory"),
    ],
)
def test_a_bad_policy_and_the_program_does_not_start(
    text: str | None, reason: str, tracesock: Command, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "egress.toml").write_text(text)
    write(tmp_path / "prog.py", "print('started')")
    done = tracesock("run", "--policy", "egress.toml", "--audit-log", "audit.jsonl", "prog.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and reason in done.stderr
    # The log tells of it, and is whole.
    assert '"refused"' in (tmp_path / "audit.jsonl").read_text()
    assert tracesock("audit", "verify", "audit.jsonl").returncode == 0


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"TRACESOCK_AUDIT_LOG": "/nonexistent/audit.jsonl"}, "No such file or directory"),
        ({"TRACESOCK_AUDIT_LOG": "/dev/full"}, "No space left on device"),
        ({"TRACESOCK_AUDIT_LOG": "prog.py"}, "is not a log of the audit"),
        ({"TRACESOCK_AUDIT_LOG": "a", "TRACESOCK_AUDIT_FORMAT": "xml"}, "format: one of"),
        ({"TRACESOCK_AUDIT_LOG": "a", "TRACESOCK_AUDIT_WHEN_FULL": "x"}, "WHEN_FULL: one of"),
        ({"TRACESOCK_AUDIT_LOG": "a", "TRACESOCK_AUDIT_ROTATE": "x"}, "'x' is no number"),
        ({"TRACESOCK_AUDIT_LOG": "a", "TRACESOCK_AUDIT_KEEP": "1.5"}, "is no whole number"),
        ({"TRACESOCK_AUDIT_LOG": "a", "TRACESOCK_AUDIT_KEY": "none"}, "No such file"),
        ({"TRACESOCK_AUDIT_SYSLOG": "x"}, "not udp://"),
        ({"TRACESOCK_LEARN": "prog.py"}, "was not learnt and is not overwritten"),
        ({"TRACESOCK_LEARN": "/nonexistent/x"}, "No such file or directory"),
    ],
)
def test_what_cannot_be_set_up(
    environment: dict[str, str], reason: str, tracesock: Command, tmp_path: Path
) -> None:
    write(tmp_path / "prog.py", "print('started')")
    done = tracesock("run", "prog.py", **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and reason in done.stderr
    assert (tmp_path / "prog.py").read_text() == "print('started')"


def test_settings_from_the_environment(tracesock: Command, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 40)
    key.chmod(0o600)
    write(
        tmp_path / "prog.py",
        """
        import socket
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for _ in range(300):
                sock.sendto(b"x", ("127.0.0.1", 9))
        """,
    )
    done = tracesock(
        "run", "--audit-log", "log", "prog.py",
        TRACESOCK_AUDIT_FORMAT="ecs", TRACESOCK_AUDIT_ROTATE="10000", TRACESOCK_AUDIT_KEEP="99",
        TRACESOCK_AUDIT_KEY=str(key), TRACESOCK_AUDIT_TIPS="stderr", TRACESOCK_AUDIT_SYNC="1",
        TRACESOCK_AUDIT_WHEN_FULL="fail-closed", TRACESOCK_AUDIT_TIP_INTERVAL="30",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (tmp_path / "tips").write_text(done.stderr)
    done = tracesock("audit", "verify", "--key", "key", "--tips", "tips", "--json", "log")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["intact"]
    assert found["delivered"] == 301 and len(found["files"]) > 2
    assert found["signed_tips"] >= 2 and found["unsigned_tips"] == 0
    assert found["processes"][0]["program"] == "prog.py"


def test_hangup_reloads_in_a_running_program(tmp_path: Path) -> None:
    write(tmp_path / "egress.toml", 'default = "allow"')
    write(
        tmp_path / "prog.py",
        """
        import socket, sys
        for line in sys.stdin:
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                try:
                    sock.connect(("127.0.0.9", 9))
                    print("passed", flush=True)
                except PermissionError as error:
                    print(error.rule, flush=True)
        """,
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "tracesock", "run", "--policy", "egress.toml", "prog.py"],
        cwd=tmp_path,
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdin and child.stdout and child.stderr

    def ask() -> str:
        child.stdin.write("\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
        return child.stdout.readline().strip()  # type: ignore[union-attr]

    with child:
        assert ask() == "passed"
        write(
            tmp_path / "egress.toml",
            'default = "allow"\n[[rule]]\nid = "new"\naction = "deny"\ncidr = "127.0.0.9"\n',
        )
        child.send_signal(signal.SIGHUP)
        assert "policy reloaded" in child.stderr.readline()
        assert ask() == "new"
        write(tmp_path / "egress.toml", "default = 1")
        child.send_signal(signal.SIGHUP)
        assert "the old one stays in force" in child.stderr.readline()
        assert ask() == "new"
        child.stdin.close()
        assert child.wait(30) == 0


def test_children_of_the_program_are_under_it_too(tracesock: Command, tmp_path: Path) -> None:
    write(tmp_path / "egress.toml", 'default = "deny"')
    write(
        tmp_path / "prog.py",
        """
        import multiprocessing, socket, subprocess, sys
        def work():
            try:
                socket.create_connection(("127.0.0.1", 9))
            except PermissionError as error:
                print(error.rule, flush=True)
        if __name__ == "__main__":
            for method in ("spawn", "fork"):
                child = multiprocessing.get_context(method).Process(target=work)
                child.start()
                child.join()
            subprocess.run([sys.executable, "-c", "import prog; prog.work()"], check=True)
        """,
    )
    done = tracesock("run", "--policy", "egress.toml", "--audit-log", "log", "prog.py")
    assert done.stdout.split() == ["default"] * 3, done.stderr
    found = json.loads(tracesock("audit", "verify", "--json", "log").stdout)
    assert found["intact"] and len(found["processes"]) >= 4


# --- learning -------------------------------------------------------------------------------------


def test_learning_what_a_run_needs(tracesock: Command, tmp_path: Path) -> None:
    write(
        tmp_path / "prog.py",
        """
        import socket, subprocess, sys
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection(("localhost", port)).close()
            server.accept()[0].close()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.2", 5000))
            sock.sendto(b"x", ("127.0.0.3", 5000))
            sock.sendto(b"x", ("127.0.0.9", 5001))
        if len(sys.argv) == 1:
            subprocess.run([sys.executable, __file__, "child"], check=True)
        else:
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", ("127.0.0.77", 6000))
        """,
    )
    done = tracesock("run", "--learn", "learnt.toml", "prog.py")
    assert done.returncode == 0, done.stderr
    policy = parse_policy((tmp_path / "learnt.toml").read_bytes())
    assert (policy.mode, policy.default) == ("enforce", "deny")
    allowed = {(rule.direction, rule.host, rule.cidr, rule.port) for rule in policy.rules}
    assert ("egress", (), ("127.0.0.2/31",), ((5000, 5000),)) in allowed
    assert ("egress", (), ("127.0.0.9/32",), ((5001, 5001),)) in allowed
    assert ("egress", (), ("127.0.0.77/32",), ((6000, 6000),)) in allowed  # the child's
    assert any(rule.host == ("localhost",) for rule in policy.rules)
    assert any(rule.direction == "ingress" for rule in policy.rules)
    # It is enough for what needs no port of chance, and for nothing else.
    write(
        tmp_path / "again.py",
        """
        import socket
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for address in (("127.0.0.2", 5000), ("127.0.0.3", 5000), ("127.0.0.9", 5001)):
                sock.sendto(b"x", address)
            for address in (("127.0.0.4", 5000), ("127.0.0.9", 5000), ("127.0.0.2", 5001)):
                try:
                    sock.sendto(b"x", address)
                except PermissionError:
                    pass
                else:
                    raise AssertionError(address)
        """,
    )
    done = tracesock("run", "--policy", "learnt.toml", "again.py")
    assert done.returncode == 0, done.stderr
    # Learning again begins anew; a policy that somebody wrote stays.
    write(tmp_path / "nothing.py", "pass")
    assert tracesock("run", "--learn", "learnt.toml", "nothing.py").returncode == 0
    assert parse_policy((tmp_path / "learnt.toml").read_bytes()).rules == ()


def record(event: str = "tracesock.connect", **fields: Any) -> Record:
    given = {"time": 10**18, "action": "allow", "direction": "egress", "outcome": "success"}
    return Record(event, **{**given, **fields})


def inet(address: str, port: int) -> Endpoint:
    return Endpoint("inet6" if ":" in address else "inet", address, port)


def test_the_smallest_rules() -> None:
    records = [
        record(peer=inet("192.0.2.1", 443), host="api.example"),
        record(peer=inet("192.0.2.2", 443), host="www.example"),
        record(peer=inet("192.0.2.2", 80), host="www.example"),
        record(peer=inet("10.0.0.4", 443)),
        record(peer=inet("10.0.0.5", 443)),
        record(peer=inet("10.0.0.6", 8000)),
        record(peer=inet("10.0.0.6", 8001)),
        record(peer=inet("0.0.0.0", 8001)),
        record(peer=inet("::", 8001)),
        record(peer=Endpoint("unix", path="/run/x"), family="unix"),
        record(peer=inet("10.0.0.7", 50000), local=inet("10.0.0.1", 80), direction="ingress"),
        record(peer=inet("10.0.0.8", 50001), local=inet("10.0.0.1", 80), direction="ingress"),
        record(peer=inet("203.0.113.9", 25), action="deny"),  # not needed: it was denied
        record("tracesock.close", peer=inet("203.0.113.9", 25), action=""),
    ]
    needs = {need for each in records if (need := need_of(each))}
    rules = smallest_rules(needs)
    shown = [(r.direction, r.host, r.cidr, r.port, r.family) for r in rules]
    assert sorted(shown) == [
        ("egress", (), (), (), ("unix",)),
        ("egress", (), ("10.0.0.6/32",), ((8000, 8001),), ()),
        ("egress", (), ("127.0.0.1/32", "::1/128"), ((8001, 8001),), ()),
        ("egress", ("api.example",), ("10.0.0.4/31",), ((443, 443),), ()),
        ("egress", ("www.example",), (), ((80, 80), (443, 443)), ()),
        ("ingress", (), ("10.0.0.7/32", "10.0.0.8/32"), ((80, 80),), ()),
    ]
    assert len({rule.id for rule in rules}) == len(rules)
    again = parse_policy(policy_text(rules).encode())
    assert again.rules == tuple(rules)
    assert smallest_rules(needs_of_rules(rules)) == rules
    for each in records[:12]:
        assert each.peer is not None
        port = each.local.port if each.direction == "ingress" and each.local else None
        verdict = again.judge(
            each.peer, direction=each.direction, port=port, names=[each.host] if each.host else []
        )
        assert verdict.action == "allow", each


# --- replay and report ----------------------------------------------------------------------------


def test_replay_says_what_a_new_policy_would_deny(tracesock: Command, tmp_path: Path) -> None:
    write(
        tmp_path / "prog.py",
        """
        import socket
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for _ in range(3):
                sock.sendto(b"x", ("127.0.0.2", 5000))
            sock.sendto(b"x", ("localhost", 5000))
        """,
    )
    assert tracesock("run", "--audit-log", "log", "prog.py").returncode == 0
    write(
        tmp_path / "new.toml",
        'default = "deny"\n[[rule]]\nid = "l"\naction = "allow"\nhost = "localhost"\n',
    )
    done = tracesock("audit", "replay", "--policy", "new.toml", "log")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "would deny 3 x tracesock.sendto 127.0.0.2:5000 by rule 'default', was allow",
        "4 decisions: 3 would be denied that were not, 0 allowed that were denied",
    ]
    assert tracesock("audit", "replay", "--fail", "--policy", "new.toml", "log").returncode == 1
    found = json.loads(tracesock("audit", "replay", "--json", "--policy", "new.toml", "log").stdout)
    assert found["would_deny"][0]["count"] == 3
    write(tmp_path / "bad.toml", "mode = 1")
    done = tracesock("audit", "replay", "--policy", "bad.toml", "log")
    assert done.returncode == 1 and "bad.toml:1: mode is" in done.stderr


def test_replay_of_what_was_denied_and_of_accepts() -> None:
    policy = Policy([], default="allow")
    denied = record(peer=inet("10.0.0.1", 1), action="deny", rule="old")
    found = replay(policy, [denied, record(peer=inet("10.0.0.2", 1))])
    assert (found.decisions, len(found.denied)) == (2, 0)
    assert (found.allowed[0].before, found.allowed[0].rule) == ("deny (old)", "default")
    ingress = parse_policy(
        b'[[rule]]\nid = "in"\naction = "allow"\ndirection = "ingress"\nport = 80\n'
    )
    accepts = [
        record("tracesock.accept", peer=inet("10.0.0.1", 40000 + n), local=inet("10.0.0.9", port),
               direction="ingress")
        for n, port in enumerate((80, 81, 81))
    ]  # fmt: skip
    found = replay(ingress, accepts)
    assert [(change.peer, change.count) for change in found.denied] == [("10.0.0.1 to port 81", 2)]


def test_report_finds_beacons_and_first_sightings() -> None:
    start = 1_700_000_000 * NS
    records = []
    for turn in range(20):  # every 60 s, give or take
        moment = start + turn * 60 * NS + (turn % 3) * NS
        records.append(record(time=moment, peer=inet("203.0.113.5", 443), host="c2.example"))
    for turn in range(20):  # by chance
        moment = start + (turn * turn * 7919 % 1200) * NS
        records.append(record(time=moment, peer=inet("192.0.2.1", 443), host="www.example"))
    records.append(
        record(time=start + 5000 * NS, peer=inet("198.51.100.1", 25), action="deny", rule="no-mail",
               outcome="denied")
    )  # fmt: skip
    records.sort(key=lambda each: each.time)
    found = report(records)
    assert [(beacon.peer, beacon.calls) for beacon in found.beacons] == [("c2.example:443", 20)]
    assert 59 <= found.beacons[0].interval <= 61 and found.beacons[0].jitter < 0.05
    assert found.denials == [("no-mail", "deny", "198.51.100.1:25", 1)]
    assert found.peers[-1].peer == "198.51.100.1:25"
    assert json.dumps(found.as_dict())


def test_report_and_replay_of_a_forged_log_are_harmless(tracesock: Command, tmp_path: Path) -> None:
    """Whatever a log says, the terminal is not steered by it."""
    forged = {
        "seq": 1, "time": "2025-01-01T00:00:00.000000000Z", "event": "tracesock.connect",
        "action": "deny", "rule": "\x1b[31m[red]x\n", "direction": "egress", "outcome": "denied",
        "family": "unix", "peer": {"path": "\x1b]0;title\x07\u202e\n[bold]"}, "host": "\x1b[2J",
        "pid": 1, "source": "s", "number": 1, "hash": "0" * 64,
    }  # fmt: skip
    (tmp_path / "log").write_text(json.dumps(forged) + "\n")
    write(tmp_path / "new.toml", 'default = "allow"')
    for words in (
        ("report", "log"), ("replay", "--policy", "new.toml", "log"), ("verify", "log"),
    ):  # fmt: skip
        done = tracesock("audit", *words, COLUMNS="200")
        assert "\x1b" not in done.stdout + done.stderr and "\x07" not in done.stdout, words
        assert "\u202e" not in done.stdout
    assert "[bold]" in tracesock("audit", "report", "log", COLUMNS="200").stdout
    (tmp_path / "log").write_text("nonsense\n")
    done = tracesock("audit", "report", "log")
    assert done.returncode == 1 and "log:1: no record of the audit" in done.stderr


def test_check(tracesock: Command, tmp_path: Path) -> None:
    write(
        tmp_path / "egress.toml",
        """
        [[rule]]
        id = "ten"
        action = "allow"
        cidr = "10.0.0.0/8"
        port = 443
        [[rule]]
        id = "name"
        action = "allow"
        host = "localhost"
        """,
    )
    done = tracesock("audit", "check", "egress.toml")
    assert done.stdout == "egress.toml: 2 rules, default deny, mode enforce\n"
    done = tracesock("audit", "check", "egress.toml", "10.1.2.3", "443")
    assert done.stdout == "10.1.2.3 port 443: allow by rule 'ten'\n"
    done = tracesock("audit", "check", "egress.toml", "10.1.2.3", "80")
    assert done.stdout == "10.1.2.3 port 80: deny by rule 'default'\n"
    assert (
        "allow by rule 'name'"
        in tracesock("audit", "check", "egress.toml", "localhost", "1").stdout
    )
    done = tracesock("audit", "check", "--host", "localhost", "egress.toml", "192.0.2.1", "1")
    assert done.stdout == "192.0.2.1 port 1: allow by rule 'name'\n"
    done = tracesock("audit", "check", "--ingress", "egress.toml", "192.0.2.1", "80")
    assert done.stdout == "192.0.2.1 port 80: allow by no ingress rule\n"
    write(tmp_path / "egress.toml", "[[rule]]\nid = 1")
    done = tracesock("audit", "check", "egress.toml")
    assert done.returncode == 1 and "egress.toml:2: an id is" in done.stderr


def test_every_variable_is_read_and_documented() -> None:
    """The table, and what configure() asks the environment for."""
    from tracesock.audit import environment

    asked: set[str] = set()

    class Asked(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.add(name)
            return default

    # What is asked for only where something else is set is asked for in the source.
    environment.configure(Asked())
    source = Path(environment.__file__).read_text()
    named = set(re.findall(r'"(TRACESOCK_[A-Z_]+)"', source.split("def _number", 1)[1]))
    assert asked <= named == {name for name, _ in environment.VARIABLES}
