"""Learning: the smallest policy that a run needed."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tracesock.audit import pipeline
from tracesock.audit.policy import PolicyError, Rule, parse_policy
from tracesock.audit.records import FAMILIES, Record

MARK: Final = "# Learnt by `tracesock run --learn`: what one run needed, and nothing else."
_RUN: Final = "# run "
# By which the processes of one run know each other.
_RUN_VARIABLE: Final = "TRACESOCK_LEARN_RUN"

# (direction, kind: host, cidr or family; its value; port or None)
Need = tuple[str, str, str, int | None]


def need_of(record: Record) -> Need | None:
    """What a policy must allow for the call of `record`; None where it was denied, or no call."""
    if not record.decided or record.action == "deny":
        return None
    peer = record.peer
    if peer is None or peer.address is None:
        if record.family not in FAMILIES:
            return None
        return record.direction, "family", record.family, None
    address = (
        "127.0.0.1"
        if peer.address == "0.0.0.0"
        else "::1"
        if peer.address == "::"
        else peer.address
    )
    port = peer.port
    if record.direction == "ingress":
        port = record.local.port if record.local is not None else None
    if record.host and record.direction == "egress":
        return record.direction, "host", record.host, port
    return record.direction, "cidr", str(ipaddress.ip_network(address)), port


def smallest_rules(needs: Iterable[Need]) -> list[Rule]:
    """The fewest rules that allow exactly `needs`: peers with the same ports share a rule."""
    ports_of: dict[tuple[str, str, str], set[int | None]] = defaultdict(set)
    for direction, kind, value, port in needs:
        ports_of[direction, kind, value].add(port)
    groups: dict[tuple[str, frozenset[int | None]], dict[str, list[str]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for (direction, kind, value), each in ports_of.items():
        group = (direction, frozenset() if kind == "family" else frozenset(each))
        groups[group][kind].append(value)

    def order(item: tuple[tuple[str, frozenset[int | None]], Any]) -> tuple[Any, ...]:
        (direction, ports), _ = item
        return direction, bool(ports), sorted(port or 0 for port in ports)

    rules: list[Rule] = []
    for (direction, ports), values in sorted(groups.items(), key=order):
        names = [] if None in ports else _ranges(sorted(port for port in ports if port is not None))
        for kinds in (("host", "cidr"), ("family",)):
            if not any(values.get(kind) for kind in kinds):
                continue
            rules.append(
                Rule(
                    f"learnt-{len(rules) + 1}",
                    "allow",
                    direction,
                    host=tuple(sorted(values["host"])) if "host" in kinds else (),
                    cidr=_collapsed(values["cidr"]) if "cidr" in kinds else (),
                    port=tuple(names) if "cidr" in kinds else (),
                    family=tuple(sorted(values["family"])) if "family" in kinds else (),
                )
            )
    return rules


def _ranges(ports: Sequence[int]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for port in ports:
        if out and out[-1][1] == port - 1:
            out[-1] = (out[-1][0], port)
        else:
            out.append((port, port))
    return out


def _collapsed(prefixes: Sequence[str]) -> tuple[str, ...]:
    networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
    four = [each for each in networks if isinstance(each, ipaddress.IPv4Network)]
    six = [each for each in networks if isinstance(each, ipaddress.IPv6Network)]
    return tuple(
        str(network)
        for network in (*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six))
    )


def policy_text(rules: Sequence[Rule], comments: Sequence[str] = ()) -> str:
    """Rules as the TOML text of a policy that denies everything else."""
    lines = [*comments, 'mode = "enforce"', 'default = "deny"']
    for rule in rules:
        lines += [
            "",
            "[[rule]]",
            f"id = {json.dumps(rule.id)}",
            f"action = {json.dumps(rule.action)}",
        ]
        lines.append(f"direction = {json.dumps(rule.direction)}")
        for name, values in (("host", rule.host), ("cidr", rule.cidr), ("family", rule.family)):
            if values:
                lines.append(f"{name} = {json.dumps(list(values))}")
        if rule.port:
            ports = [a if a == b else f"{a}-{b}" for a, b in rule.port]
            lines.append(f"port = {json.dumps(ports)}")
    return "\n".join(lines) + "\n"


def needs_of_rules(rules: Iterable[Rule]) -> set[Need]:
    """What learnt rules allow: the reverse of smallest_rules()."""
    needs: set[Need] = set()
    for rule in rules:
        ports: list[int | None] = [
            port for first, last in rule.port for port in range(first, last + 1)
        ] or [None]
        for port in ports:
            needs.update((rule.direction, "host", host, port) for host in rule.host)
            needs.update((rule.direction, "cidr", prefix, port) for prefix in rule.cidr)
        needs.update((rule.direction, "family", family, None) for family in rule.family)
    return needs


class LearnSink:
    """Collects what the process needs, and writes the policy when it ends.

    Forked children, and processes that are started with this one's environment, add to the same
    file. Raises FileExistsError where `path` is a policy that was
    not learnt: it is not overwritten.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._run = ""
        self._needs: set[Need] = set()

    def __repr__(self) -> str:
        return f"<learner of {self.path}>"

    def open(self, source: str) -> None:
        """Makes sure, before the program starts, that the policy can be written."""
        self._needs.clear()
        if self._run:
            return  # a forked child
        self._run = os.environ.get(_RUN_VARIABLE) or secrets.token_hex(8)
        with self._file() as (fd, text):
            if f"\n{_RUN}{self._run}\n" in text:
                return  # begun by the process that started this one
            os.environ[_RUN_VARIABLE] = self._run
            if text.strip() and not text.startswith(MARK):
                raise FileExistsError(
                    f"{self.path} was not learnt and is not overwritten: name another file"
                )
            self._replace(fd, set())

    @contextlib.contextmanager
    def _file(self) -> Any:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with open(fd, "rb", closefd=False) as file:
                yield fd, file.read().decode("utf-8", "replace")
        finally:
            os.close(fd)

    def _replace(self, fd: int, needs: set[Need]) -> None:
        comments = (MARK, _RUN + self._run)
        data = policy_text(smallest_rules(needs), comments).encode()
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            need = need_of(record)
            if need is not None:
                self._needs.add(need)

    def idle(self) -> None:
        """Nothing is due."""

    def close(self, totals: dict[str, int]) -> None:
        """Writes the policy, with what other processes of the same run have written."""
        with self._file() as (fd, text):
            needs = set(self._needs)
            if f"\n{_RUN}{self._run}\n" in text:
                with contextlib.suppress(PolicyError):
                    needs |= needs_of_rules(parse_policy(text.encode()).rules)
            self._replace(fd, needs)

    def abandon(self) -> None:
        """The child's own needs begin anew in open()."""


def learn(path: str | os.PathLike[str]) -> LearnSink:
    """Writes a policy that allows what the program did from now on, when the process ends.

    Raises OSError; FileExistsError for a policy that somebody wrote.
    """
    sink = LearnSink(path)
    pipeline.add_sink(sink, "block")
    return sink
