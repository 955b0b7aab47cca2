"""Policy files: what is refused, with which line and reason; reloading."""

from __future__ import annotations

import os
import re
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tracesock as socket
from tracesock import audit
from tracesock.audit.policy import PolicyError, parse_policy, read_policy
from tracesock.audit.toml_lines import key_lines

from .conftest import Log

FORM = """\
mode = "enforce"            # or "report": record would-deny, let pass
default = "deny"            # or "allow"
[[rule]]
id = "payments"
action = "allow"            # or "deny"
direction = "egress"        # or "ingress" (judged at accept)
host = ["api.example.com", "*.internal.example"]
cidr = ["10.0.0.0/8", "fd00::/8"]
port = [443, "8000-8100"]
family = ["inet", "inet6"]
"""


def test_the_form() -> None:
    policy = parse_policy(FORM.encode())
    (rule,) = policy.rules
    assert (policy.mode, policy.default) == ("enforce", "deny")
    assert rule.host == ("api.example.com", "*.internal.example")
    assert rule.cidr == ("10.0.0.0/8", "fd00::/8")
    assert rule.port == ((443, 443), (8000, 8100))
    assert rule.family == ("inet", "inet6")


def test_one_value_needs_no_list_and_defaults_deny() -> None:
    policy = parse_policy(
        b'[[rule]]\nid="a"\naction="allow"\nhost="A.Example."\ncidr="10.0.0.1"\nport="80"\n'
        b'family="inet"\n'
    )
    (rule,) = policy.rules
    assert (policy.mode, policy.default, rule.direction) == ("enforce", "deny", "egress")
    assert (rule.host, rule.cidr, rule.port) == (("a.example",), ("10.0.0.1/32",), ((80, 80),))


def test_names_outside_ascii() -> None:
    policy = parse_policy('[[rule]]\nid="a"\naction="allow"\nhost="*.bücher.example"'.encode())
    assert policy.rules[0].host == ("*.xn--bcher-kva.example",)


REFUSED = [
    ('"enforce"', '"enforced"', 1, 'mode is "enforce" or "report", not \'enforced\''),
    ('"enforce" ', "1 ", 1, 'mode is "enforce" or "report", not 1'),
    ('default = "deny"', 'default = "drop"', 2, 'default is "deny" or "allow"'),
    ("mode", "mod", 1, "unknown key 'mod': known are mode, default, rule"),
    ("[[rule]]", "[other]\nx = 1\n[[rule]]", 3, "unknown key 'other'"),
    ("[[rule]]", "[rule]", 3, "rule is an array of tables"),
    ('id = "payments"\n', "", 3, "the rule has no id"),
    ('"payments"', '""', 4, "an id is 1 to 64 printable ASCII characters"),
    ('"payments"', '"pay\\nments"', 4, "an id is 1 to 64 printable ASCII characters"),
    ('"payments"', '"' + "x" * 65 + '"', 4, "an id is 1 to 64"),
    ('"payments"', "7", 4, "an id is 1 to 64"),
    ('"payments"', '"default"', 4, "stands for the default"),
    ('"payments"', '"üü"', 4, "printable ASCII"),
    ('action = "allow"', "", 3, "rule 'payments': it has no action"),
    ('action = "allow"', 'action = "permit"', 5, 'action is "allow" or "deny", not \'permit\''),
    ('"egress"', '"out"', 6, 'direction is "egress" or "ingress"'),
    ("family", "families", 10, "unknown key 'families' in a rule"),
    ('"api.example.com"', '"api..example"', 7, "is no host name"),
    ('"api.example.com"', '"-a.example"', 7, "is no host name"),
    ('"api.example.com"', '"a b"', 7, "is no host name"),
    ('"api.example.com"', '"*"', 7, "is no host name"),
    ('"api.example.com"', '"a.*.example"', 7, "is no host name"),
    ('"api.example.com"', '"' + "a" * 64 + '.b"', 7, "is no host name"),
    ('"api.example.com"', '"10.0.0.1"', 7, "is an address: write it under cidr"),
    ('"api.example.com"', '"127.1"', 7, "is an address: write it under cidr"),
    ('"api.example.com"', '"2130706433"', 7, "is an address: write it under cidr"),
    ('"api.example.com"', '"::1"', 7, "is an address: write it under cidr"),
    ('"api.example.com"', "5", 7, "a host is a name, not 5"),
    ('"10.0.0.0/8"', '"10.0.0.1/8"', 8, "has bits beyond its length: 10.0.0.0/8 is meant?"),
    ('"10.0.0.0/8"', '"10.0.0.0/33"', 8, "is no IPv4 or IPv6 prefix"),
    ('"10.0.0.0/8"', '"example.com"', 8, "is no IPv4 or IPv6 prefix"),
    ('"10.0.0.0/8"', '"fe80::1%eth0"', 8, "a prefix has no zone"),
    ('"10.0.0.0/8"', "10", 8, "a cidr is text"),
    ('"10.0.0.0/8",', '"10.0.0.0/8",\n  # more\n  "x",', 10, "'x' is no IPv4"),
    ("443", "65536", 9, "port 65536 is not between 0 and 65535"),
    ("443", "-1", 9, "port -1 is not between"),
    ("443", "true", 9, "a port is a number or '8000-8100', not True"),
    ("443", "4.5", 9, "a port is a number"),
    ('"8000-8100"', '"8100-8000"', 9, "ends before it begins"),
    ('"8000-8100"', '"8000-"', 9, "a port is a number"),
    ('[443, "8000-8100"]', "[]", 9, "port is empty: leave it out for any"),
    ('"inet6"]', '"inet5"]', 10, "'inet5' is no family: known are"),
    ('["inet", "inet6"]', '"unix"', 10, "which it excludes"),
    ('["inet", "inet6"]', "[{}]", 10, "is no family"),
    ("[[rule]]", "[[rule]]\n[[rule]]", 3, "the rule has no id"),
    ("= 443", "=", 9, None),
    ('"deny" ', '"deny ', 2, None),
]


@pytest.mark.parametrize(("old", "new", "line", "reason"), REFUSED)
def test_what_is_refused(old: str, new: str, line: int, reason: str | None, tmp_path: Path) -> None:
    path = tmp_path / "egress.toml"
    text = FORM.replace(old, new, 1)
    if text == FORM:
        text = FORM.replace("port = [443", "port = [", 1).replace('"8000', "8000", 1)
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        read_policy(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert (caught.value.path, caught.value.line) == (str(path), line)
    if reason is not None:
        assert reason in caught.value.reason


def test_the_same_id_twice() -> None:
    rule = '[[rule]]\nid = "a"\naction = "deny"\n'
    with pytest.raises(PolicyError, match=r":5: the id 'a' is that of rule 1 already"):
        parse_policy((rule + rule).encode(), "p.toml")


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"\xff\n", 1, "not UTF-8"),
        (b'mode = "report"\n\xc3\x28', 2, "not UTF-8"),
        (b"x = [" * 5000, 1, ""),
        (b'rule = [{id = "a", action = "allow", port = 99999}]', 1, "port 99999"),
        (b"rule = 5", 1, "array of tables"),
        (b'[[rule]]\r\nid = "a"\r\naction = "x"\r\n', 3, "action is"),
    ],
)
def test_other_files(data: bytes, line: int, reason: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(data, "p.toml")
    assert caught.value.line == line
    assert reason in caught.value.reason


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file or directory"):
        read_policy(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match="Is a directory"):
        read_policy(tmp_path)
    (tmp_path / "large").write_bytes(b"#" * (17 << 20))
    with pytest.raises(PolicyError, match="longer than"):
        read_policy(tmp_path / "large")


def test_a_hostile_file_name(tmp_path: Path) -> None:
    path = tmp_path / "a\n\x1b[31m.toml"
    path.write_text("mode = 1")
    with pytest.raises(PolicyError) as caught:
        read_policy(path)
    assert str(caught.value).isprintable()


_SCALARS = ["1", '"a"', "'b]'", '"""c\n#]\n"""', "'''d\n'''", "true", '"\\"#"', "1979-05-27"]
_SCALARS += ["[]", '""""e"""""', "{}", '{x = "}"}']
toml_values = st.recursive(
    st.sampled_from(_SCALARS),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(
        lambda items: "[ # comment ]\n" + ",\n".join(items) + "\n]"
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "[t{}]", "[[r]]", " [ 'q.{}' ] # x"]), toml_values),
        max_size=8,
    )
)
@example([("", '"a" # "b')])
def test_lines_are_found_whatever_stands_between(parts: list[tuple[str, str]]) -> None:
    """The scanner agrees with tomllib on what is a key, and finds the line it was written on."""
    lines: list[str] = []
    expected = []
    for index, (header, value) in enumerate(parts):
        if header:
            lines.append(header.format(index))
        expected.append((f"k{index}", len(lines) + 1))
        lines += f"k{index} = {value} # k{index} = 5".split("\n")
    text = "\n".join(lines)
    tomllib.loads(text)
    found = {key: line for (_, _, key, item), line in key_lines(text).items() if item < 0 and key}
    assert found == dict(expected)


# --- reload ---------------------------------------------------------------------------------------


def rule(identity: str, host: str = "127.0.0.9") -> str:
    return f'default = "allow"\n[[rule]]\nid = "{identity}"\naction = "deny"\ncidr = "{host}"\n'


def denied_by() -> str | None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("127.0.0.9", 9))
        except PermissionError as error:
            return str(error.rule)  # type: ignore[attr-defined]
    return None


def test_reload_by_call(tmp_path: Path, log: Log, quiet: None) -> None:
    path = tmp_path / "egress.toml"
    path.write_text(rule("first"))
    audit.load_policy(path)
    assert denied_by() == "first"
    path.write_text(rule("second"))
    assert denied_by() == "first"
    audit.reload_policy()
    assert denied_by() == "second"
    path.write_text(rule("third") + "nonsense = 1\n")
    with pytest.raises(PolicyError, match=r"egress\.toml:6: unknown key 'nonsense'"):
        audit.reload_policy()
    assert denied_by() == "second"
    path.unlink()
    with pytest.raises(PolicyError, match="No such file"):
        audit.reload_policy()
    assert denied_by() == "second"
    told = [(e["outcome"], e.get("reason", "")) for e in log.events("tracesock.audit.policy")]
    assert [outcome for outcome, _ in told] == ["loaded", "loaded", "refused", "refused"]
    assert "egress.toml:6: unknown key" in told[2][1]
    audit.clear_policy()
    assert denied_by() is None
    with pytest.raises(RuntimeError, match="no policy from a file"):
        audit.reload_policy()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here: run on POSIX")
def test_reload_by_signal(tmp_path: Path, quiet: None, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "egress.toml"
    path.write_text(rule("first"))
    audit.load_policy(path)
    others: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: others.append(number))
    try:
        audit.reload_on_hangup()
        path.write_text(rule("second"))
        os.kill(os.getpid(), signal.SIGHUP)
        assert denied_by() == "second"
        assert "policy reloaded from" in capsys.readouterr().err
        path.write_text("mode = 3")
        os.kill(os.getpid(), signal.SIGHUP)
        assert denied_by() == "second"
        text = capsys.readouterr().err
        assert re.search(r"not reloaded, the old one stays in force: \S*egress\.toml:1: mode", text)
        assert others == [signal.SIGHUP] * 2  # who was there before is still asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_policy_is_inherited_by_a_fork(run: Callable[..., Any]) -> None:
    done = run(
        """
        import os, tracesock as socket
        from tracesock import audit
        open("p.toml", "w").write('default = "deny"')
        audit.load_policy("p.toml")
        if os.fork() == 0:
            try:
                socket.create_connection(("127.0.0.1", 9))
            except PermissionError as error:
                print(error.rule, flush=True)
            os._exit(0)
        os.wait()
        """
    )
    assert done.stdout == "default\n", done.stderr
