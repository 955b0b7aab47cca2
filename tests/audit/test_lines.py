"""The lines that the extension writes are those of formats.jsonl()."""

from __future__ import annotations

import socket as stock
import struct
import sys
import threading
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracesock import _native
from tracesock.audit.chain import Chain
from tracesock.audit.formats import FORMATS, jsonl
from tracesock.audit.records import Batch

_audit: Any = _native.audit
SOURCE = "0123456789abcdef"
PREVIOUS = "fedcba98" * 8
# ext/audit/entry.hpp
LAYOUT = "=Qqq4Q6i16s8s4B6H128s128s64s256s328x"
PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\"))


def family(number: int) -> bytes:
    return number.to_bytes(2, sys.byteorder)


def inet(address: bytes, port: int) -> bytes:
    return family(stock.AF_INET) + port.to_bytes(2, "big") + address + bytes(8)


def inet6(address: bytes, port: int) -> bytes:
    return family(stock.AF_INET6) + port.to_bytes(2, "big") + bytes(4) + address + bytes(4)


def unix(path: bytes) -> bytes:
    return family(stock.AF_UNIX) + path


SOMEBODY = inet(b"\x7f\0\0\1", 80)


def entry(**given: Any) -> bytes:
    """An entry as the ring holds it."""
    values = {
        **dict.fromkeys(("number", "pid", "native_thread"), 7),
        **dict.fromkeys(("sent", "received", "error", "protocol", "flags", "event"), 0),
        **dict.fromkeys(("peer", "local", "rule", "host"), b""),
        "time": 1_700_000_000_123_456_789,
        "duration": -1,
        "thread": threading.get_ident(),
        "family": int(stock.AF_INET),
        "type": int(stock.SOCK_STREAM),
        "descriptor": 3,
        "trace": bytes(range(16)),
        "span": bytes(range(8)),
        "decision": 1,
        "outcome": 0,
        **given,
    }
    texts = [values[name] for name in ("peer", "local", "rule", "host")]
    head = ("number", "time", "duration", "sent", "received", "thread", "native_thread", "pid")
    tail = ("error", "family", "type", "protocol", "descriptor", "trace", "span")
    bytes_of = ("event", "decision", "outcome", "flags")
    made = struct.pack(
        LAYOUT,
        *(values[name] for name in (*head, *tail, *bytes_of)),
        *(len(text) for text in texts),
        0,
        0,
        *texts,
    )
    assert len(made) == _audit.ENTRY_SIZE
    return made


def lines(data: bytes) -> tuple[bytes, bytes]:
    """What the extension writes, nothing where it does not, and what Python does."""
    batch = Batch([], [data], SOURCE)
    own, count, digest = batch.lines(0, 41, PREVIOUS)
    assert count == (1 if own else 0)
    chain = Chain("", 40, PREVIOUS)
    wanted = chain.append(jsonl, batch[0])
    assert digest == (chain.hash if own else PREVIOUS)
    return own, wanted


GROUPS = (b"\0\0", b"\0\1", b"\xff\xff", b"\x12\0")
ADDRESSES = st.one_of(
    st.just(b""),
    st.builds(inet, st.binary(min_size=4, max_size=4), st.integers(0, 65535)),
    st.builds(inet6, st.binary(min_size=16, max_size=16), st.integers(0, 65535)),
    # With runs of zeros, which are left out.
    st.builds(
        inet6,
        st.lists(st.sampled_from(GROUPS), min_size=8, max_size=8).map(b"".join),
        st.just(1),
    ),
    st.builds(unix, PLAIN.map(str.encode).map(lambda path: path[:100])),
    st.builds(unix, st.binary(max_size=100)),
    st.binary(max_size=128),
)  # fmt: skip
NAMES = st.one_of(PLAIN.map(str.encode), st.binary())
ENTRIES = st.fixed_dictionaries(
    {
        "number": st.integers(0, 2**64 - 1),
        "time": st.integers(0, 2**62),
        "duration": st.one_of(
            st.integers(-1, 2**62), st.integers(0, 10**6), st.integers(0, 10**12)
        ),
        "sent": st.integers(0, 2**64 - 1),
        "received": st.integers(0, 2**64 - 1),
        "native_thread": st.integers(0, 2**32),
        "pid": st.integers(0, 2**31 - 1),
        "error": st.integers(-5, 140),
        "family": st.sampled_from([1, 2, 10, 16, 29]),
        "type": st.integers(0, 5),
        "protocol": st.sampled_from([0, 1, 6, 17, 132, 136, 262]),
        "event": st.integers(0, 8),
        "decision": st.integers(0, 3),
        "outcome": st.integers(0, 5),
        "flags": st.integers(0, 15),
        "peer": ADDRESSES,
        "local": ADDRESSES,
        "rule": NAMES.map(lambda name: name[:64]),
        "host": NAMES.map(lambda name: name[:256]),
    }
)


@given(ENTRIES)
@example({"duration": 0})
@example({"duration": 99_999})
@example({"duration": 100_000})
@example({"duration": 20_000})
@example({"duration": 999_999_999_999_999})
@example({"duration": 3_000_000_000})
@example({"time": 0})
@example({"peer": inet6(bytes(16), 0), "local": inet6(bytes(15) + b"\1", 80)})
@example({"peer": inet6(bytes(10) + b"\xff\xff\x7f\0\0\1", 80)})
@example({"peer": inet6(bytes(12) + b"\1\2\3\4", 80)})
@example({"peer": inet6(bytes(12) + b"\0\0\3\4", 80)})
def test_any_entry(given: dict[str, Any]) -> None:
    own, wanted = lines(entry(**given))
    assert own in (b"", wanted)


@pytest.mark.parametrize("event", range(9))
@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (SOMEBODY, inet(b"\x0a\0\0\xff", 40000)),
        (inet6(b"\x20\1" + bytes(13) + b"\1", 443), inet6(bytes(15) + b"\1", 1)),
        (unix(b'/run/a "socket"\0junk'), unix(b"")),
        (b"", SOMEBODY),
    ],
)
def test_the_usual_ones_need_no_python(event: int, peer: bytes, local: bytes) -> None:
    own, wanted = lines(
        entry(event=event, peer=peer, local=local, rule=b"a-rule", host=b"example.com", flags=11)
    )
    assert own == wanted


@pytest.mark.parametrize(
    "given",
    [
        {"event": 9},
        {"host": "é.example".encode(), "peer": SOMEBODY},
        {"host": b"a\nb", "peer": SOMEBODY},
        {"host": b"a\\b", "peer": SOMEBODY},
        {"peer": unix(b"\0abstract")},
        {"peer": family(29) + bytes(14)},
        {"time": -1, "peer": SOMEBODY},
        {"duration": 10**15, "peer": SOMEBODY},
        {},
    ],
)
def test_what_is_left_to_python(given: dict[str, Any]) -> None:
    own, _ = lines(entry(**given))
    assert own == b""


def test_the_name_of_a_thread() -> None:
    for name in ('"', "ünï", "a\x1b[2Jb", "x" * 600):
        made: list[bytes] = []
        thread = threading.Thread(
            name=name, target=lambda made=made: made.extend(lines(entry(peer=SOMEBODY)))
        )
        thread.start()
        thread.join()
        own, wanted = made
        assert own == wanted


@pytest.mark.parametrize("form", FORMATS)
def test_a_chain_of_a_batch(form: str) -> None:
    """Plain records and others are chained alike, in their order."""
    entries = [
        entry(number=1, peer=SOMEBODY),
        entry(number=2, peer=family(29) + bytes(14)),
        entry(number=3, peer=unix(b"/run/x"), host=b"\xff"),
        entry(number=4, peer=SOMEBODY),
    ]
    batch = Batch([], entries, SOURCE)
    one, other = Chain("", 5), Chain("", 5)
    made = one.extend(FORMATS[form], batch)
    assert made == b"".join(other.append(FORMATS[form], record) for record in batch)
    assert one == other
    assert one.sequence == 9
    assert batch.last_number == 4


def test_an_entry_that_cannot_be_read() -> None:
    """A gap in its place: the records around it are kept."""
    batch = Batch([], [entry(number=1, peer=SOMEBODY), b"short"], SOURCE)
    assert [record.event for record in batch] == ["tracesock.connect", "tracesock.audit.gap"]
    with pytest.raises(ValueError, match="1024"):
        batch.lines(0, 1, PREVIOUS)
    with pytest.raises(ValueError, match="64"):
        batch.lines(0, 1, "")
