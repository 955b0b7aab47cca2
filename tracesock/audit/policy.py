"""Policies: read from TOML, checked to the last key, compiled, put into force.

The form is described in docs/how-to/egress-policy.md and docs/reference/audit-events.md.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import signal
import threading
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tracesock import _native
from tracesock.audit import pipeline
from tracesock.audit.records import FAMILIES, Endpoint, encoded_address
from tracesock.audit.text import clean
from tracesock.audit.toml_lines import Place, key_lines

_audit: Any = _native.audit

LARGEST_FILE: Final = 16 << 20  # bytes
_ID: Final = re.compile(r"[!-~]([ -~]{0,62}[!-~])?")
_HOST: Final = re.compile(
    r"(?:\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
)
_PORTS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_TOP: Final = ("mode", "default", "rule")
_RULE: Final = ("id", "action", "direction", "host", "cidr", "port", "family")
_SYNTAX_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")
DEFAULT_RULE: Final = "default"


class PolicyError(ValueError):
    """A policy that is refused. `path`, `line` (from 1; 0: the file as a whole) and `reason`."""

    def __init__(self, path: str, line: int, reason: str) -> None:
        self.path = path
        self.line = line
        self.reason = reason
        place = f"{clean(path)}:{line}" if line else clean(path)
        super().__init__(f"{place}: {reason}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. An empty tuple is any; `host` and `cidr` are alternatives of each other."""

    id: str
    action: str  # allow, deny
    direction: str = "egress"  # or ingress
    host: tuple[str, ...] = ()
    cidr: tuple[str, ...] = ()
    port: tuple[tuple[int, int], ...] = ()
    family: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of a peer: `action` is allow, deny or would_deny."""

    action: str
    rule: str


class Policy:
    """A checked and compiled policy.

    `mode` is "enforce" or "report", `default` "allow" or "deny". Raises ValueError where the
    compiled form would take too much memory.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        mode: str = "enforce",
        default: str = "deny",
        path: str = "",
        digest: str = "",
    ) -> None:
        self.rules = tuple(rules)
        self.mode = mode
        self.default = default
        self.path = path
        self.digest = digest  # SHA-256 of the file
        self.native = _audit.Policy(
            [
                (
                    rule.id,
                    rule.action == "deny",
                    rule.direction == "ingress",
                    list(rule.host),
                    list(rule.cidr),
                    list(rule.port),
                    [FAMILIES[name] for name in rule.family],
                )
                for rule in rules
            ],
            default == "deny",
            mode == "enforce",
        )

    def judge(
        self,
        peer: Endpoint,
        *,
        direction: str = "egress",
        port: int | None = None,
        names: Sequence[str] = (),
    ) -> Verdict:
        """What the policy says of `peer`, whose address was looked up as `names`.

        `port`: the local port, for ingress. Puts nothing into force and counts nothing.
        """
        ingress = direction == "ingress"
        if ingress and not self.native.judges_ingress():
            return Verdict("allow", "")
        chosen = self.native.judge(
            ingress, encoded_address(peer), -1 if port is None else port, list(names)
        )
        rule = self.rules[chosen] if chosen >= 0 else None
        action = self.default if rule is None else rule.action
        if action == "deny" and self.mode == "report":
            action = "would_deny"
        return Verdict(action, DEFAULT_RULE if rule is None else rule.id)

    def summary(self) -> dict[str, Any]:
        """What a record says of the policy."""
        return {
            "path": clean(self.path, 200),
            "sha256": self.digest,
            "mode": self.mode,
            "default": self.default,
            "rules": len(self.rules),
        }


# --- reading --------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, path: str, text: str, lines: dict[Place, int]) -> None:
        self._path = path
        self._lines = lines
        self._text = text

    def fail(self, reason: str, place: Place) -> PolicyError:
        table, index, key, _ = place
        for each in (place, (table, index, key, -1), (table, index, "", -1), ("", 0, table, -1)):
            if each in self._lines:
                return PolicyError(self._path, self._lines[each], reason)
        return PolicyError(self._path, 1, reason)

    def one_of(self, value: Any, choices: Sequence[str], what: str, place: Place) -> str:
        if not isinstance(value, str) or value not in choices:
            expected = " or ".join(f'"{choice}"' for choice in choices)
            raise self.fail(f"{what} is {expected}, not {_shown(value)}", place)
        return value

    def document(self, data: dict[str, Any]) -> tuple[list[Rule], str, str]:
        for key in data:
            if key not in _TOP:
                # A table of that name has no line as a key.
                place = ("", 0, key, -1) if ("", 0, key, -1) in self._lines else (key, 0, "", -1)
                raise self.fail(f"unknown key {_shown(key)}: known are {', '.join(_TOP)}", place)
        mode = self.one_of(
            data.get("mode", "enforce"), ("enforce", "report"), "mode", ("", 0, "mode", -1)
        )
        default = self.one_of(
            data.get("default", "deny"), ("deny", "allow"), "default", ("", 0, "default", -1)
        )
        rules = data.get("rule", [])
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            place = (
                ("", 0, "rule", -1) if ("", 0, "rule", -1) in self._lines else ("rule", 0, "", -1)
            )
            raise self.fail("rule is an array of tables: [[rule]]", place)
        read: list[Rule] = []
        ids: dict[str, int] = {}
        for index, fields in enumerate(rules):
            rule = self.rule(fields, index)
            if rule.id in ids:
                raise self.fail(
                    f"the id {_shown(rule.id)} is that of rule {ids[rule.id] + 1} already",
                    ("rule", index, "id", -1),
                )
            ids[rule.id] = index
            read.append(rule)
        return read, mode, default

    def rule(self, fields: dict[str, Any], index: int) -> Rule:
        def at(key: str, item: int = -1) -> Place:
            return "rule", index, key, item

        for key in fields:
            if key not in _RULE:
                known = ", ".join(_RULE)
                raise self.fail(f"unknown key {_shown(key)} in a rule: known are {known}", at(key))
        identity = fields.get("id")
        if identity is None:
            raise self.fail("the rule has no id", at(""))
        if not isinstance(identity, str) or not _ID.fullmatch(identity):
            reason = "an id is 1 to 64 printable ASCII characters, not"
            raise self.fail(f"{reason} {_shown(identity)}", at("id"))
        if identity == DEFAULT_RULE:
            raise self.fail(f"the id {DEFAULT_RULE!r} stands for the default", at("id"))
        named = f"rule {_shown(identity)}: "
        if "action" not in fields:
            raise self.fail(f"{named}it has no action", at(""))
        action = self.one_of(fields["action"], ("allow", "deny"), f"{named}action", at("action"))
        direction = self.one_of(
            fields.get("direction", "egress"), ("egress", "ingress"), f"{named}direction",
            at("direction"),
        )  # fmt: skip

        def each(key: str, read: Callable[[Any], Any]) -> tuple[Any, ...]:
            if key not in fields:
                return ()
            value = fields[key]
            items = value if isinstance(value, list) else [value]
            if not items:
                raise self.fail(f"{named}{key} is empty: leave it out for any", at(key))
            out = []
            for item, one in enumerate(items):
                try:
                    out.append(read(one))
                except ValueError as error:
                    raise self.fail(f"{named}{error}", at(key, item)) from None
            return tuple(out)

        rule = Rule(
            identity,
            action,
            direction,
            each("host", read_host),
            each("cidr", read_prefix),
            each("port", _ports),
            each("family", _family),
        )
        internet = not rule.family or {"inet", "inet6"} & set(rule.family)
        if not internet and (rule.host or rule.cidr or rule.port):
            reason = "host, cidr and port are of the families inet and inet6, which it excludes"
            raise self.fail(f"{named}{reason}", at("family"))
        return rule


def _shown(value: Any) -> str:
    return clean(repr(value), 80) if not isinstance(value, str) else f"'{clean(value, 80)}'"


def read_host(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a host is a name, not {_shown(value)}")
    name = value.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"{_shown(value)} is no host name: {error}") from None
    bare = name.removeprefix("*.")
    if _HOST.fullmatch(name) and len(bare) <= 253 and all(len(p) <= 63 for p in bare.split(".")):
        if not _audit.normal_host(bare):
            raise ValueError(f"{_shown(value)} is an address: write it under cidr")
        return name
    if _is_prefix(value):
        raise ValueError(f"{_shown(value)} is an address: write it under cidr")
    raise ValueError(f"{_shown(value)} is no host name, nor one with '*.' before it")


def _is_prefix(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def read_prefix(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a cidr is text such as '10.0.0.0/8', not {_shown(value)}")
    try:
        network = ipaddress.ip_network(value, strict=False)
        address = ipaddress.ip_address(value.partition("/")[0])
    except ValueError:
        raise ValueError(f"{_shown(value)} is no IPv4 or IPv6 prefix") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{_shown(value)}: a prefix has no zone")
    if "/" in value and address != network.network_address:
        raise ValueError(f"{_shown(value)} has bits beyond its length: {network} is meant?")
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            # What such an address denotes is judged as the IPv4 address.
            return f"{mapped}/{network.prefixlen - 96}"
    return str(network)


def _ports(value: Any) -> tuple[int, int]:
    if isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    else:
        found = _PORTS.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"a port is a number or '8000-8100', not {_shown(value)}")
        first = int(found.group(1))
        last = int(found.group(2) or first)
    for port in (first, last):
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not between 0 and 65535")
    if first > last:
        raise ValueError(f"the range {first}-{last} ends before it begins")
    return first, last


def _family(value: Any) -> str:
    if not isinstance(value, str) or value not in FAMILIES:
        raise ValueError(f"{_shown(value)} is no family: known are {', '.join(sorted(FAMILIES))}")
    return value


def parse_policy(data: bytes, path: str = "<policy>") -> Policy:
    """The policy in a TOML text; raises PolicyError with file, line and reason."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(path, line, "not UTF-8") from None
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _SYNTAX_LINE.search(str(error))
        line = int(found.group(1)) if found else text.count("\n") + 1
        raise PolicyError(path, line, _SYNTAX_LINE.sub("", clean(str(error))).strip()) from None
    except RecursionError:
        raise PolicyError(path, 1, "nested too deeply") from None
    rules, mode, default = _Reader(path, text, key_lines(text.replace("\r\n", "\n"))).document(read)
    try:
        digest = hashlib.sha256(data).hexdigest()
        return Policy(rules, mode=mode, default=default, path=path, digest=digest)
    except ValueError as error:
        raise PolicyError(path, 1, clean(str(error))) from None


def read_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file, checked; it is not put into force.

    Raises PolicyError for a file that cannot be read, is no TOML, or no policy.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise PolicyError(name, 0, error.strerror or str(error)) from None
    if len(data) > LARGEST_FILE:
        raise PolicyError(name, 0, f"longer than {LARGEST_FILE} bytes")
    return parse_policy(data, name)


# --- in force -------------------------------------------------------------------------------------

_lock = threading.RLock()
_current: Policy | None = None


def _after_fork() -> None:
    # Another thread of the parent may have held it.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Puts the policy in a file into force, for every thread and every call from now on.

    It replaces the one in force. Raises PolicyError, and then changes nothing.
    """
    policy = read_policy(os.path.abspath(os.fspath(path)))
    use_policy(policy)
    return policy


def use_policy(policy: Policy | None) -> None:
    """Puts a policy into force; None: none.

    Raises RuntimeError where an earlier audit hook refuses further ones: calls of the base type's
    methods could then not be judged.
    """
    global _current
    if policy is not None:
        _audit.guard(process=False)
    with _lock:
        before = _current
        _audit.set_policy(None if policy is None else policy.native)
        _current = policy
    if policy is not None:
        pipeline.note("policy", {"outcome": "loaded", "policy": policy.summary()})
    elif before is not None:
        pipeline.note("policy", {"outcome": "removed", "policy": before.summary()})


def clear_policy() -> None:
    """Puts no policy into force: every call passes."""
    use_policy(None)


def current_policy() -> Policy | None:
    """The policy in force."""
    return _current


def reload_policy() -> Policy:
    """Reads the file of the policy in force again.

    A file with an error changes nothing: PolicyError says what is wrong, and a record as well.
    Raises RuntimeError where there is none, or it came from no file.
    """
    with _lock:
        if _current is None or not _current.path:
            raise RuntimeError("no policy from a file is in force")
        path = _current.path
        try:
            return load_policy(path)
        except PolicyError as error:
            details = {"outcome": "refused", "reason": clean(str(error), 400)}
            pipeline.note("policy", {**details, "policy": _current.summary()})
            raise


def reload_on_hangup() -> None:
    """Lets SIGHUP reload the policy. A handler that was there before is called after that.

    Only from the main thread (ValueError). Does nothing where there is no SIGHUP.
    """
    number = getattr(signal, "SIGHUP", None)
    if number is None:
        return
    before = signal.getsignal(number)

    def handler(signum: int, frame: Any) -> None:
        try:
            policy = reload_policy()
        except (PolicyError, RuntimeError) as error:
            pipeline.complain(f"policy not reloaded, the old one stays in force: {error}")
        else:
            pipeline.complain(f"policy reloaded from {policy.path}: {len(policy.rules)} rules")
        if callable(before):
            before(signum, frame)

    signal.signal(number, handler)


def decisions() -> list[tuple[str, str, int]]:
    """How often each rule has decided in this process: (rule, action, count).

    `action` is allow, deny or would_deny; the default is the rule "default". What the metric
    `tracesock.audit.decisions` is made of.
    """
    return [(rule, action, int(count)) for rule, action, count in _audit.decisions()]
