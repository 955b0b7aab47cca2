"""What the names that were looked up tell about the resolver's configuration."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracesock.dashboard.rows import DnsName

# resolv.conf(5): `ndots` is 1 unless set.
_NDOTS = 1
_NOT_FOUND = ("host_not_found", "no_data", "EAI_NONAME", "gaierror")
_REPEATED = 3
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Resolver:
    """The parts of resolv.conf(5) that matter here, as of the dashboard's machine."""

    search: tuple[str, ...] = ()
    ndots: int = _NDOTS

    @classmethod
    def read(cls, path: str | Path = "/etc/resolv.conf") -> Resolver:
        """The file's search list and ndots; the defaults where it cannot be read."""
        search: tuple[str, ...] = ()
        ndots = _NDOTS
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")[:65536]
        except OSError:
            return cls()
        for line in text.splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] in ("search", "domain"):
                search = tuple(w.strip(".").lower() for w in words[1:] if w.strip("."))
            elif words[0] == "options":
                for option in words[1:]:
                    name, _, value = option.partition(":")
                    if name == "ndots" and value.isdecimal():
                        ndots = min(15, int(value))
        return cls(search, ndots)


@dataclass(frozen=True, slots=True)
class Hint:
    """A finding: what was seen, why it costs time, the names it was seen at."""

    kind: str
    title: str
    text: str
    names: Sequence[str] = field(default=())


def hints(found: Sequence[DnsName], resolver: Resolver = Resolver()) -> list[Hint]:
    """The findings, most costly first."""
    return [
        hint
        for hint in (
            _retries(found),
            _expansion(found, resolver),
            _negative(found),
            _unqualified(found, resolver),
        )
        if hint is not None
    ]


def _retries(found: Sequence[DnsName]) -> Hint | None:
    once = twice = 0.0
    names: list[str] = []
    for name in found:
        first, second = name.five_seconds, name.ten_seconds
        if first + second:
            once, twice = once + first, twice + second
            names.append(name.name)
    total = round(once + twice)
    if not total:
        return None
    text = (
        f"{_times(total, 'look-up')} took about five{' or ten' if twice else ''} seconds. That is"
        " the resolver's time-out: a name server did not answer, and the question was sent again"
        " (resolv.conf: options timeout). A server that drops one of two parallel questions (A and"
        " AAAA) has the same sign: try options single-request."
    )
    return Hint("retry", "Five-second retries", text, names[:_EXAMPLES])


def _expansion(found: Sequence[DnsName], resolver: Resolver) -> Hint | None:
    by_name = {n.name.rstrip(".").lower(): n for n in found}
    suffixes: dict[str, list[str]] = {}
    for name, row in by_name.items():
        suffix = _appended(name, by_name, resolver.search)
        if suffix and _mostly_missing(row):
            suffixes.setdefault(suffix, []).append(row.name)
    if not suffixes:
        return None
    wasted = sum(by_name[n.rstrip(".").lower()].summary.count for v in suffixes.values() for n in v)
    listed = ", ".join(f".{s}" for s in list(suffixes)[:3])
    text = (
        f"{_times(round(wasted), 'look-up')} asked for a name with {listed} appended, and found"
        " nothing: the search list of resolv.conf was tried first. A name with a dot at its end is"
        " asked for as it is."
    )
    return Hint(
        "search",
        "Search-list expansion",
        text,
        [n for v in suffixes.values() for n in v][:_EXAMPLES],
    )


def _appended(name: str, known: Collection[str], search: Sequence[str]) -> str:
    """The suffix that was appended to a name that was also asked for; empty if none was."""
    labels = name.split(".")
    for i in range(len(labels) - 1, 0, -1):
        stem, suffix = ".".join(labels[:i]), ".".join(labels[i:])
        if stem in known:
            return suffix
        if stem.endswith(f".{suffix}") or (suffix in search and "." in stem):
            return suffix
    return ""


def _mostly_missing(row: DnsName) -> bool:
    missing = sum(n for error, n in row.errors.items() if error in _NOT_FOUND)
    return missing > row.summary.count / 2


def _negative(found: Sequence[DnsName]) -> Hint | None:
    never = [
        n for n in found if n.summary.count >= _REPEATED and not n.answers and _mostly_missing(n)
    ]
    if not never:
        return None
    total = round(sum(n.summary.count for n in never))
    text = (
        f"{_times(total, 'look-up')} asked again and again for {_times(len(never), 'name')} that"
        " did not exist. The C library keeps no answers, so each one goes to the name server:"
        " correct the name, or run a cache (systemd-resolved, nscd, dnsmasq)."
    )
    return Hint("negative", "Repeated negative answers", text, [n.name for n in never[:_EXAMPLES]])


def _unqualified(found: Sequence[DnsName], resolver: Resolver) -> Hint | None:
    if not resolver.search:
        return None
    short = [
        n
        for n in found
        if not n.name.endswith(".")
        and n.name.count(".") < resolver.ndots
        and n.name not in ("localhost", "(name not reported)")
        and not n.name.replace(".", "").isdecimal()
    ]
    if not short:
        return None
    text = (
        f"{_times(len(short), 'name')} {'has' if len(short) == 1 else 'have'} fewer than"
        f" {resolver.ndots} dot{'' if resolver.ndots == 1 else 's'} (ndots), so this machine's"
        f" resolver tries {_times(len(resolver.search), 'search domain')} before the name itself."
    )
    return Hint("ndots", "Names below ndots", text, [n.name for n in short[:_EXAMPLES]])


def _times(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
