"""What the look-ups tell about the resolver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tracesock.dashboard.hints import Resolver, hints
from tracesock.dashboard.rows import DnsName, Summary

from .make import Spans
from .serving import Served, wait_until


def name(
    text: str,
    count: int = 1,
    errors: Mapping[str, int] | None = None,
    answers: tuple[str, ...] = (),
    five: int = 0,
    ten: int = 0,
) -> DnsName:
    missing = dict(errors or {})
    summary = Summary(count, sum(missing.values()), {40: count})
    return DnsName(text, summary, missing, answers, ["shop"], five, ten)


def kinds(*found: DnsName, resolver: Resolver | None = None) -> list[str]:
    return [h.kind for h in hints(found, resolver or Resolver())]


def test_nothing_unusual() -> None:
    assert kinds(name("db.example", 100, answers=("192.0.2.1",))) == []


def test_five_second_retries() -> None:
    found = hints([name("db.example", 100, five=3, answers=("192.0.2.1",))], Resolver())
    assert [h.kind for h in found] == ["retry"]
    assert found[0].text.startswith("3 look-ups took about five seconds")
    assert found[0].names == ["db.example"]
    found = hints([name("db.example", five=1, ten=1)], Resolver())
    assert "five or ten seconds" in found[0].text


def test_search_list_expansion() -> None:
    missing = {"host_not_found": 4}
    both = (name("db", 4, answers=("192.0.2.1",)), name("db.corp.example", 4, missing))
    found = hints(both, Resolver())
    assert found[0].kind == "search"
    assert ".corp.example appended" in found[0].text
    assert found[0].names == ["db.corp.example"]
    # The suffix twice, or known from resolv.conf, with the short name never asked for by itself.
    assert "search" in kinds(name("api.corp.example.corp.example", 1, {"host_not_found": 1}))
    assert "search" in kinds(
        name("api.other.corp.example", 1, {"host_not_found": 1}),
        resolver=Resolver(("corp.example",)),
    )
    # It found something: then the suffix is right.
    assert kinds(name("db", 4, answers=("1",)), name("db.corp.example", 4, answers=("1",))) == []


def test_repeated_negative_answers() -> None:
    found = hints([name("gone.example", 12, {"host_not_found": 12})], Resolver())
    assert [h.kind for h in found] == ["negative"]
    assert "12 look-ups" in found[0].text
    assert kinds(name("gone.example", 2, {"host_not_found": 2})) == []
    assert kinds(name("slow.example", 12, {"try_again": 12})) == []


def test_names_below_ndots() -> None:
    resolver = Resolver(("a.example", "b.example"), 5)
    found = hints([name("db.example.org", answers=("1",))], resolver)
    assert [h.kind for h in found] == ["ndots"]
    assert "2 search domains" in found[0].text
    assert kinds(name("db.example.org.", answers=("1",)), resolver=resolver) == []
    assert kinds(name("localhost", answers=("1",)), resolver=resolver) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nameserver 192.0.2.1\n", Resolver()),
        (
            "search a.example b.example.\noptions timeout:1 ndots:5\n",
            Resolver(("a.example", "b.example"), 5),
        ),
        ("domain corp.example\n", Resolver(("corp.example",))),
        ("options ndots:many\nsearch\n", Resolver()),
        ("options ndots:99\n", Resolver((), 15)),
    ],
)
def test_resolv_conf(tmp_path: Path, text: str, expected: Resolver) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    assert Resolver.read(path) == expected


def test_no_resolv_conf(tmp_path: Path) -> None:
    assert Resolver.read(tmp_path / "none") == Resolver()


def test_hints_from_spans(served: Served) -> None:
    made = Spans()
    made.lookup("slow.example", trace=1, duration_ms=5004, dns__answers=["192.0.2.1"])
    for i in range(3):
        made.lookup("db.corp.example", trace=10 + i, error="host_not_found")
        made.lookup("db", trace=20 + i, dns__answers=["192.0.2.1"])
    served.post("traces", made.body)
    assert wait_until(lambda: "Five-second retries" in served.get("/dns")[2])
    page = served.get("/dns")[2]
    assert "Search-list expansion" in page
    assert "Repeated negative answers" in page
