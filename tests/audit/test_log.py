"""Logs that can be trusted: nothing is lost in silence, nothing is changed unnoticed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracesock as socket
from tracesock import audit
from tracesock.audit import pipeline
from tracesock.audit.chain import Chain, Key, link, parse_tip, split_hash, tip_line
from tracesock.audit.formats import FORMATS, NO_HASH
from tracesock.audit.logfile import FileSink, LogError, State, rotated_files
from tracesock.audit.records import Record, note_record, now

from .conftest import Log, child_environment


def emit(count: int) -> None:
    """Leaves `count` records."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for _ in range(count):
            sock.sendto(b"x", ("127.0.0.1", 9))
        # Without a record of its end.
        os.close(sock.detach())


def start(program: str, *words: str, **keywords: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *words],
        env=child_environment(),
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        **keywords,
    )


def sums(path: Path, **keywords: Any) -> audit.Verification:
    """The verification of an intact log."""
    found = audit.verify(path, **keywords)
    assert found.intact, found.problems
    return found


# --- the chain ------------------------------------------------------------------------------------


def test_a_log_of_its_own_making(log: Log) -> None:
    emit(10)
    lines = log.lines()
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert audit.close(10)
    found = sums(log.path)
    assert (found.delivered, found.dropped) == (10, 0)
    previous = NO_HASH
    for line in log.path.read_bytes().splitlines():
        bare, stated = split_hash(line) or (b"", "")
        assert link(previous, bare) == stated
        previous = stated
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two processes, with a tip among its records."""
    directory = tmp_path_factory.mktemp("written")
    program = """
        import sys, tracesock as socket
        from tracesock import audit
        audit.open_log(sys.argv[1])
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for n in range(40):
                sock.sendto(b"x", ("127.0.0.1", 1000 + n))
    """
    for _ in range(2):
        with start(program, str(directory / "audit.jsonl")) as child:
            assert child.wait(60) == 0
    return directory / "audit.jsonl"


def manipulate(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """The log with one thing changed, and what it was."""
    lines = data.splitlines(keepends=True)
    kind = chance.choice(
        ["flip", "remove", "swap", "move", "repeat", "cut", "cut-line", "insert", "field", "space",
         "hash", "empty-line", "end", "case", "range", "escape", "join", "return", "head"]
    )  # fmt: skip
    at = chance.randrange(len(lines))
    other = chance.randrange(len(lines))
    while other == at:
        other = chance.randrange(len(lines))
    if kind == "flip":
        place = chance.randrange(len(data))
        return kind, data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[
            place + 1 :
        ]
    if kind == "remove":
        del lines[at]
    elif kind == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "move":
        lines.insert(other, lines.pop(at))
    elif kind == "repeat":
        lines.insert(other, lines[at])
    elif kind == "cut":
        return kind, data[: chance.randrange(len(data))]
    elif kind == "cut-line":
        del lines[at:]
    elif kind == "head":
        del lines[: at + 1]
    elif kind == "range":
        del lines[min(at, other) : max(at, other)]
    elif kind == "insert":
        lines.insert(at, lines[other].replace(b'"pid":', b'"pid":1'))
    elif kind == "field":
        lines[at] = lines[at].replace(b'"seq":', b'"seq":1', 1)
    elif kind == "space":
        lines[at] = lines[at].replace(b":", b": ", 1)
    elif kind == "hash":
        lines[at] = lines[at].replace(lines[at][-68:-4], b"0" * 64)
    elif kind == "empty-line":
        lines.insert(at, b"\n")
    elif kind == "end":
        return kind, data + lines[other]
    elif kind == "case":
        lines[at] = lines[at][:-67] + lines[at][-67:].upper()
        if lines[at] in data.splitlines(keepends=True):
            return kind, data[:-1]
    elif kind == "escape":
        lines[at] = lines[at].replace(b'"event"', b'"\\u0065vent"')
    elif kind == "join":
        lines[at] = lines[at][:-1]
    elif kind == "return":
        lines[at] = lines[at][:-1] + b"\r\n"
    return kind, b"".join(lines)


def test_each_of_a_thousand_manipulations_is_found(written: Path, tmp_path: Path) -> None:
    """In a copy of the file alone: nothing beside it helps."""
    data = written.read_bytes()
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(data)
    sums(copy)
    # The end of the first process's records, and with them nothing more, is a whole log too: that
    # is what a tip is for.
    first_end = data.index(b"tracesock.audit.close")
    first_end = data.index(b"\n", first_end) + 1
    chance = random.Random(20251122)
    kinds = set()
    for _ in range(1000):
        kind, changed = manipulate(data, chance)
        if changed in (data, data[:first_end]):
            continue
        kinds.add(kind)
        copy.write_bytes(changed)
        assert not audit.verify(copy).intact, kind
    assert len(kinds) == 19


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A log of several files, and another log of the same program."""
    program = """
        import sys, tracesock as socket
        from tracesock import audit
        audit.open_log(sys.argv[1], rotate_bytes=4500)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for n in range(48):
                sock.sendto(b"x", ("127.0.0.1", 1000 + n))
                if n % 8 == 0:
                    audit.flush(30)
    """
    directory = tmp_path_factory.mktemp("rotated")
    for name in ("audit.jsonl", "other.jsonl"):
        with start(program, str(directory / name)) as child:
            assert child.wait(60) == 0
    return directory / "audit.jsonl", directory / "other.jsonl"


Place = tuple[int, int]  # a file and a line, both from 0


def tamper(
    files: list[list[bytes]], others: list[list[bytes]], chance: random.Random
) -> tuple[str, Place]:
    """Changes one thing in the lines of the files: what, and the first place that is not as it
    was."""
    kind = chance.choice(
        ["change", "remove", "swap", "repeat", "truncate", "splice", "replace", "graft", "file"]
    )
    file = chance.randrange(len(files))
    lines = files[file]
    at = chance.randrange(len(lines))
    if kind == "change":
        place = chance.randrange(len(lines[at]) - 1)
        lines[at] = bytes(
            byte ^ (1 << chance.randrange(7)) if index == place else byte
            for index, byte in enumerate(lines[at])
        )
    elif kind == "remove":
        del lines[at]
    elif kind == "swap":
        with_file = chance.randrange(len(files))
        with_line = chance.randrange(len(files[with_file]))
        lines[at], files[with_file][with_line] = files[with_file][with_line], lines[at]
        file, at = min((file, at), (with_file, with_line))
    elif kind == "repeat":
        at = chance.randrange(len(lines) + 1)
        lines.insert(at, chance.choice(chance.choice(files)))
    elif kind == "truncate":
        del lines[at:]
    elif kind == "splice":
        # The end of this file is that of another one.
        lines[at:] = chance.choice(files)[chance.randrange(at + 1) :]
    elif kind == "replace":
        lines[at] = chance.choice(chance.choice(others))
    elif kind == "graft":
        # From here on it is the other log.
        lines[at:] = chance.choice(others)[at:]
    elif kind == "file":
        files[file] = lines = list(chance.choice(others))
        at = 0
    return kind, (file, at)


@pytest.mark.timeout(400)
def test_each_manipulation_of_a_rotated_log_is_found_where_it_is(
    rotated: tuple[Path, Path], tmp_path: Path
) -> None:
    log, other = rotated
    names = [*rotated_files(str(log)), str(log)]
    original = [Path(name).read_bytes().splitlines(keepends=True) for name in names]
    others = [
        Path(name).read_bytes().splitlines(keepends=True)
        for name in (*rotated_files(str(other)), str(other))
    ]
    assert len(names) >= 3
    copy = tmp_path / "audit.jsonl"
    chance = random.Random(20251125)
    kinds: dict[str, int] = {}
    while sum(kinds.values()) < 1000:
        files = [list(lines) for lines in original]
        kind, (file, _) = tamper(files, others, chance)
        if files == original:
            continue
        kinds[kind] = kinds.get(kind, 0) + 1
        for name, lines in zip(names, files, strict=True):
            Path(str(copy) + name.removeprefix(str(log))).write_bytes(b"".join(lines))
        found = audit.verify(copy)
        assert not found.intact, kind
        # The first line that is not the one that was written there, or the first after what is
        # missing: at the end of a file that is the next one's.
        file = next(n for n, lines in enumerate(files) if lines != original[n])
        at = next(
            (n for n, line in enumerate(files[file]) if original[file][n : n + 1] != [line]),
            len(files[file]),
        )
        first = found.problems[0]
        if at < len(files[file]):
            expected = {(names[file], at + 1)}
        elif file + 1 < len(files):
            expected = {(names[file + 1], 1), (names[file], 0)}
        else:
            expected = {(names[file], 0)}
        if (file, at) == (0, 0):
            # Of a beginning nobody can say whose it is, only where it and the rest meet.
            expected |= {(names[0], 2), (names[1], 1)}
        place = (str(log) + first.path.removeprefix(str(copy)), first.line)
        assert place in expected, (kind, first, expected)
    assert len(kinds) == 9 and min(kinds.values()) > 50


def test_an_end_that_leaves_a_whole_log_needs_a_tip(written: Path, tmp_path: Path) -> None:
    data = written.read_bytes()
    first_end = data.index(b"\n", data.index(b"tracesock.audit.close")) + 1
    tip = sums(written)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(data[:first_end])
    assert audit.verify(copy).intact
    kept = parse_tip(f"{tip.last}:{tip.hash}")
    assert not audit.verify(copy, tips=[kept]).intact
    copy.write_bytes(data)
    sums(copy, tips=[kept])
    # The state beside the log knows it as well.
    shutil.copy(f"{written}.state", f"{copy}.state")
    copy.write_bytes(data[:first_end])
    found = audit.verify(copy)
    assert "its end is missing" in str(found.problems)


def rechained(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The log with each line changed and the chain computed anew, as a forger does."""
    previous, out = NO_HASH, []
    for line in data.splitlines():
        bare, _ = split_hash(change(line)) or (b"", "")
        tip = json.loads(bare).get("tip")
        if tip is not None:
            bare = bare.replace(tip["hash"].encode(), previous.encode())
        previous = link(previous, bare)
        at = bare.rindex(NO_HASH.encode())
        out.append(bare[:at] + previous.encode() + bare[at + 64 :] + b"\n")
    return b"".join(out)


def test_a_chain_computed_anew_is_found_by_signature_and_by_tip(tmp_path: Path, run: Any) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32).hex().encode() + b"\n")
    key.chmod(0o600)
    path = tmp_path / "audit.jsonl"
    tips = tmp_path / "tips"
    program = """
        import sys, tracesock as socket
        from tracesock import audit
        audit.open_log(sys.argv[1], key=sys.argv[2], tips=sys.argv[3])
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for n in range(5):
                sock.sendto(b"x", ("127.0.0.1", 1000 + n))
    """
    assert run(program, str(path), str(key), str(tips)).returncode == 0
    secret = Key.read(key)
    found = sums(path, key=secret)
    assert found.signed_tips and not found.unsigned_tips
    kept = [parse_tip(line) for line in tips.read_text().splitlines()]
    assert kept[-1].sequence == found.last
    sums(path, key=secret, tips=kept)

    forged = rechained(path.read_bytes(), lambda line: line.replace(b'"port":1003', b'"port":443'))
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(forged)
    assert audit.verify(copy).intact  # without key and tip nobody can know
    assert "is not of this key" in str(audit.verify(copy, key=secret).problems)
    assert "a tip was kept of" in str(audit.verify(copy, tips=kept).problems)
    unsigned = rechained(forged, lambda line: line.replace(b'"signature"', b'"comment"'))
    copy.write_bytes(unsigned)
    assert "is not signed" in str(audit.verify(copy, key=secret).problems)
    other = Key(b"another key of thirty-two bytes!")
    assert not audit.verify(path, key=other).intact


def test_keys_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Key.read(path)
    path.write_bytes(b"x" * 32)
    path.chmod(0o644)
    with pytest.raises(ValueError, match="others may read this key"):
        Key.read(path)


@pytest.mark.parametrize(
    "bad", ["", "x", "12:abc", "seq=1", "tracesock-tip seq=1 hash=zz", f"-1:{NO_HASH}"]
)
def test_no_tip(bad: str) -> None:
    with pytest.raises(ValueError, match="not a tip"):
        parse_tip(bad)


def test_a_tip_line_is_read_back() -> None:
    chain = Chain("ab" * 16, 7, "cd" * 32)
    key = Key(b"k" * 32)
    tip = parse_tip(tip_line(chain, key))
    assert (tip.sequence, tip.hash, tip.chain) == (7, chain.hash, chain.id)
    assert key.verify(chain.id, 7, chain.hash, tip.signature)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_verified(form: str, tmp_path: Path, quiet: None) -> None:
    path = tmp_path / "log"
    audit.open_log(path, format=form)
    emit(3)
    with socket.create_server(("127.0.0.1", 0)):
        pass
    assert audit.close(10)
    assert sums(path).delivered == 4
    data = path.read_bytes()
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert not audit.verify(path).intact, data[place - 20 : place + 20]


def test_verifying_what_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"\n", b"{}\n", b"\xff" * 100, b"[" * 100_000 + b"\n", b"a" * (2 << 20)):
        path.write_bytes(content)
        assert not audit.verify(path).intact
    with pytest.raises(OSError):
        audit.verify(tmp_path / "none")


# --- emitted = delivered + dropped ----------------------------------------------------------------


def test_concurrent_threads(log: Log) -> None:
    threads = [threading.Thread(target=emit, args=(500,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit.close(30)
    assert sums(log.path).delivered == 2000


def test_a_stalled_sink_blocks_and_loses_nothing(tmp_path: Path, quiet: None) -> None:
    """A pipe that nobody reads: the calls wait, and go on when somebody does."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    audit.open_log(fifo, when_full="block")
    done = threading.Event()

    def work() -> None:
        emit(pipeline.CAPACITY + 2000)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not done.wait(1.0)
    stats = audit.stats()[0]
    assert stats.emitted <= pipeline.CAPACITY + 200 and stats.dropped == 0
    copy = tmp_path / "copy.jsonl"
    with start(
        "import sys, shutil; shutil.copyfileobj(open(sys.argv[1], 'rb'), open(sys.argv[2], 'wb'))",
        str(fifo),
        str(copy),
    ) as reader:
        assert done.wait(60)
        thread.join()
        assert audit.close(60)
        reader.wait(30)
    assert sums(copy).delivered == pipeline.CAPACITY + 2000


def test_a_stalled_sink_drops_and_counts(tmp_path: Path, quiet: None) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    audit.open_log(fifo, when_full="drop")
    total = 3 * pipeline.CAPACITY
    emit(total)  # nobody reads, and nothing waits
    stats = audit.stats()[0]
    assert stats.emitted == total and stats.dropped > 0
    copy = tmp_path / "copy.jsonl"
    with start(
        "import sys, shutil; shutil.copyfileobj(open(sys.argv[1], 'rb'), open(sys.argv[2], 'wb'))",
        str(fifo),
        str(copy),
    ) as reader:
        assert audit.close(60)
        reader.wait(30)
    found = sums(copy)
    assert found.dropped > 0
    assert found.delivered + found.dropped == total
    gaps = [json.loads(line)["gap"] for line in copy.read_text().splitlines() if '"gap"' in line]
    assert sum(gap["count"] for gap in gaps) == found.dropped


def test_a_stalled_sink_fails_closed(tmp_path: Path, quiet: None) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    audit.open_log(fifo, when_full="fail_closed")
    with pytest.raises(PermissionError, match="fails closed"):
        emit(3 * pipeline.CAPACITY)
    stats = audit.stats()[0]
    assert stats.refused > 0 and stats.dropped == 0
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    thread = threading.Thread(target=lambda: audit.close(60))
    thread.start()
    data = b""
    while thread.is_alive():
        try:
            data += os.read(fd, 1 << 20)
        except BlockingIOError:
            time.sleep(0.01)
    os.close(fd)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(where)])
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here: run where mount(8) is allowed")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_disk_blocks_until_there_is_room(small_disk: Path, quiet: None) -> None:
    path = small_disk / "audit.jsonl"
    audit.open_log(path, when_full="block")
    room = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (room.f_bavail * room.f_bsize - 65536))
    done = threading.Event()

    def work() -> None:
        emit(6000)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not done.wait(1.5)
    filler.unlink()
    assert done.wait(60)
    thread.join()
    assert audit.close(60)
    assert sums(path).delivered == 6000


def test_a_full_disk_fails_closed_at_once(small_disk: Path, quiet: None) -> None:
    path = small_disk / "audit.jsonl"
    audit.open_log(path, when_full="fail_closed")
    room = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (room.f_bavail * room.f_bsize))
    with pytest.raises(PermissionError, match="fails closed"):
        for _ in range(10_000):
            emit(1)
            time.sleep(0.002)
    filler.unlink()
    for _ in range(3000):
        try:
            emit(1)
            break
        except PermissionError:
            time.sleep(0.02)
    else:
        raise AssertionError("it stays closed though there is room")
    assert audit.close(60)
    sums(path)


def test_a_disk_that_is_full_before_it_starts(small_disk: Path, quiet: None) -> None:
    (small_disk / "filler").write_bytes(b"x" * (6 << 20))
    with pytest.raises(OSError, match="No space left"):
        audit.open_log(small_disk / "audit.jsonl")
    assert [name for name in os.listdir(small_disk) if "spool" in name] == []


def test_rotation_loses_nothing(tmp_path: Path, quiet: None) -> None:
    path = tmp_path / "audit.jsonl"
    audit.open_log(path, rotate_bytes=20_000)
    for _ in range(10):
        emit(40)
        assert audit.flush(30)
    assert audit.close(30)
    assert len(rotated_files(str(path))) >= 5
    assert sums(path).delivered == 400
    # Any file that is missing is missed.
    for name in rotated_files(str(path)):
        os.rename(name, name + "x")
        assert not audit.verify(path).intact, name
        os.rename(name + "x", name)


def test_rotation_keeps_what_it_is_told_to(tmp_path: Path, quiet: None) -> None:
    path = tmp_path / "audit.jsonl"
    audit.open_log(path, rotate_bytes=20_000, keep=3)
    for _ in range(12):
        emit(200)
        assert audit.flush(30)
    assert audit.close(30)
    kept = rotated_files(str(path))
    assert len(kept) == 3
    found = sums(path)
    assert found.first > 1 and "rotation has removed" in found.notes[0]
    os.unlink(kept[0])
    assert not audit.verify(path).intact


def test_forks_share_one_log(tmp_path: Path, run: Any) -> None:
    path = tmp_path / "audit.jsonl"
    program = """
        import os, sys, tracesock as socket
        from tracesock import audit
        audit.open_log(sys.argv[1], rotate_bytes=50_000)
        def emit(n):
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                for _ in range(n):
                    sock.sendto(b"x", ("127.0.0.1", 9))
                sock.detach()
        emit(50)
        children = []
        for n in range(4):
            pid = os.fork()
            if pid == 0:
                emit(100 + n)
                if n == 2:
                    os._exit(0)   # without the interpreter's exit functions
                sys.exit(0)
            children.append(pid)
        emit(50)
        for pid in children:
            os.waitpid(pid, 0)
        os.fork() or sys.exit(0)  # a child that leaves no record
        os.wait()
    """
    done = run(program, str(path))
    assert done.returncode == 0, done.stderr
    found = sums(path)
    assert found.delivered == 100 + 100 + 101 + 102 + 103
    assert len(found.sources) == 5
    assert {source.ended for source in found.sources.values()} <= {"close", "recovered"}
    assert [name for name in os.listdir(tmp_path) if "spool" in name] == []


def test_multiprocessing_children(tmp_path: Path, run: Any) -> None:
    path = tmp_path / "audit.jsonl"
    program = """
        import multiprocessing, sys, tracesock as socket
        from tracesock import audit
        def work(n):
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                for _ in range(n):
                    sock.sendto(b"x", ("127.0.0.1", 9))
                sock.detach()
        audit.open_log(sys.argv[1])
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=work, args=(20,)) for _ in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
    """
    done = run(program, str(path))
    assert done.returncode == 0, done.stderr
    found = sums(path)
    assert found.delivered == 60
    assert [source.ended for source in found.sources.values()] == ["close"] * 4


def test_processes_that_know_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    program = """
        import sys, tracesock as socket
        from tracesock import audit
        audit.open_log(sys.argv[1], rotate_bytes=30_000)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for _ in range(300):
                sock.sendto(b"x", ("127.0.0.1", 9))
            sock.detach()
    """
    children = [start(program, str(path)) for _ in range(4)]
    for child in children:
        assert child.wait(60) == 0
        child.stdout.close()  # type: ignore[union-attr]
        child.stdin.close()  # type: ignore[union-attr]
    assert sums(path).delivered == 1200


KILLED = """
    import os, signal, sys, tracesock as socket
    from tracesock import audit
    audit.open_log(sys.argv[1], when_full=sys.argv[3])
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for n in range(int(sys.argv[2])):
            sock.sendto(b"x", ("127.0.0.1", 9))
        sock.detach()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("count", [1, 37, 1000, 3000])
@pytest.mark.parametrize("when_full", ["block", "drop"])
def test_a_killed_process(count: int, when_full: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with start(KILLED, str(path), str(count), when_full) as child:
        assert child.wait(60) == -signal.SIGKILL
    found = audit.verify(path)
    assert "ended without its last record" in str(found.problems)
    done = subprocess.run(
        [sys.executable, "-m", "tracesock", "audit", "recover", str(path)],
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = sums(path)
    assert found.delivered + found.dropped == count
    assert found.dropped == 0
    assert [name for name in os.listdir(tmp_path) if "spool" in name] == []


def test_killed_at_any_moment_and_continued(tmp_path: Path) -> None:
    """Each process counts its calls where a kill cannot take them; the log has as many."""
    path = tmp_path / "audit.jsonl"
    program = """
        import mmap, sys, tracesock as socket
        from tracesock import audit
        file = open(sys.argv[2], "r+b")
        counter = mmap.mmap(file.fileno(), 8)
        audit.open_log(sys.argv[1], rotate_bytes=100_000)
        print("ready", flush=True)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            n = 0
            while True:
                sock.sendto(b"x", ("127.0.0.1", 9))
                n += 1
                counter[:] = n.to_bytes(8, "little")
    """
    total = 0
    chance = random.Random(7)
    for turn in range(6):
        counter = tmp_path / f"counter{turn}"
        counter.write_bytes(bytes(8))
        with start(program, str(path), str(counter)) as child:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            time.sleep(chance.random() * 0.3)
            child.kill()
            child.wait()
        total += int.from_bytes(counter.read_bytes(), "little")
    log = FileSink(path)
    log.open("f" * 16)
    log.adopt()
    log.close({"emitted": 0, "dropped": 0, "lost": 0, "refused": 0})
    found = sums(path)
    # One call of each process may have ended without having been counted.
    assert total <= found.delivered <= total + 6
    assert [source.ended for source in found.sources.values()] == ["recovered"] * 6 + ["close"]


STEPS = ("open", "write", "pwrite", "ftruncate", "rename", "unlink", "close")


def killed_at_step(step: int, path: Path) -> bool:
    """A process that rotates its log with each write, and is killed before its nth system call of
    STEPS; whether it was."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = step

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words)

        return counted

    try:
        log = FileSink(path, rotate_bytes=4096, keep=3)
        log._rotate_at = 1
        for name in STEPS:
            setattr(os, name, dying(getattr(os, name)))
        log.open("d" * 16)
        for number in range(5):
            record = note_record("test", "d" * 16, {})
            record.number = number + 1
            log.write([record])
            log._rotate_at = 1
        log.close({"emitted": 5, "dropped": 0, "lost": 0, "refused": 0})
    finally:
        os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_writer_killed_between_any_two_steps(tmp_path: Path) -> None:
    """The next one goes on where it stood, whether its state was written or not."""
    step, killed = 0, True
    while killed:
        step += 1
        path = tmp_path / f"{step}" / "audit.jsonl"
        path.parent.mkdir()
        log = FileSink(path)
        log.open("a" * 16)
        log.close({"emitted": 0, "dropped": 0, "lost": 0, "refused": 0})
        killed = killed_at_step(step, path)
        # Only the state says which files rotation itself has removed.
        told = ["was killed, or the end is missing"]
        if step % 3 == 0:
            Path(f"{path}.state").unlink()
            told.append("a file was removed")
        log = FileSink(path)
        log.open("b" * 16)
        log.write([note_record("test", "b" * 16, {})])
        log.close({"emitted": 0, "dropped": 0, "lost": 0, "refused": 0})
        found = audit.verify(path)
        assert found.last > 4
        for problem in found.problems:
            assert any(text in problem.text for text in told), (step, found.problems)
    assert step > 40


def test_the_next_process_takes_over(tmp_path: Path, run: Any) -> None:
    path = tmp_path / "audit.jsonl"
    with start(KILLED, str(path), "500", "block") as child:
        child.wait(60)
    program = """
        import sys, tracesock as socket
        from tracesock import audit
        audit.open_log(sys.argv[1])
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1", 9))
    """
    assert run(program, str(path)).returncode == 0
    found = sums(path)
    assert found.delivered == 502  # the socket's end is a record


def test_an_unfinished_line_is_cut_and_told(tmp_path: Path, quiet: None) -> None:
    path = tmp_path / "audit.jsonl"
    audit.open_log(path)
    emit(1)
    assert audit.close(10)
    with open(path, "ab") as file:
        file.write(b'{"seq":99,"torn')
    audit.open_log(path)
    emit(1)
    assert audit.close(10)
    assert sums(path).delivered == 2
    assert '"cut_bytes":15' in path.read_text()


def test_the_state_is_not_needed(tmp_path: Path, quiet: None) -> None:
    path = tmp_path / "audit.jsonl"
    for content in (None, b"", b"{}", b"\xff\x00"):
        audit.open_log(path)
        emit(2)
        assert audit.close(10)
        state = Path(f"{path}.state")
        if content is None:
            state.unlink()
        else:
            state.write_bytes(content)
    assert sums(path).delivered == 8


@pytest.mark.parametrize("content", [b"hello\n", b"hello", b'{"a":1}\n', b"\0" * 4096, b"[[\n"])
def test_another_file_is_not_written_to(content: bytes, tmp_path: Path, quiet: None) -> None:
    path = tmp_path / "precious.txt"
    path.write_bytes(content)
    with pytest.raises(LogError):
        audit.open_log(path)
    assert path.read_bytes() == content


def test_a_damaged_log_is_not_continued(tmp_path: Path, quiet: None) -> None:
    path = tmp_path / "audit.jsonl"
    audit.open_log(path)
    emit(2)
    assert audit.close(10)
    data = path.read_bytes()
    path.write_bytes(data[:-50])
    with pytest.raises(LogError, match="shorter than its last writer left it"):
        audit.open_log(path)
    os.unlink(f"{path}.state")
    path.write_bytes(data.replace(b'"port":9', b'"port":8'))
    with pytest.raises(LogError, match="chain is broken at record"):
        audit.open_log(path)


def test_a_log_that_is_taken_away_under_way(tmp_path: Path, quiet: None) -> None:
    path = tmp_path / "audit.jsonl"
    audit.open_log(path)
    emit(5)
    assert audit.flush(10)
    os.rename(path, tmp_path / "gone")
    emit(5)
    assert audit.close(10)
    found = audit.verify(path)
    assert "missing" in str(found.problems)
    assert path.read_text().count("tracesock.sendto") == 5  # nothing of the rest is lost


def test_a_log_that_is_cut_under_way(tmp_path: Path, quiet: None) -> None:
    path = tmp_path / "audit.jsonl"
    audit.open_log(path)
    emit(5)
    assert audit.flush(10)
    os.truncate(path, path.stat().st_size - 100)
    emit(5)
    assert audit.close(10)
    assert not audit.verify(path).intact
    assert path.read_text().count("tracesock.sendto") >= 9


def test_verifying_while_it_is_written(log: Log) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            emit(20)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            found = sums(log.path)
        assert "is writing" in found.notes[0]
    finally:
        stop.set()
        thread.join()


def test_tips_in_time(tmp_path: Path, quiet: None) -> None:
    tips = tmp_path / "tips"
    audit.open_log(tmp_path / "audit.jsonl", tips=str(tips), tip_interval=0.1)
    emit(1)
    deadline = time.monotonic() + 60
    while not tips.exists() or not tips.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first = parse_tip(tips.read_text().splitlines()[0])
    assert audit.close(10)
    found = sums(
        tmp_path / "audit.jsonl", tips=[parse_tip(t) for t in tips.read_text().splitlines()]
    )
    assert first.chain == found.chain


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"format": "xml"}, "format: one of"),
        ({"when_full": "explode"}, "when_full: one of"),
        ({"rotate_bytes": 1}, "rotate_bytes: at least"),
        ({"keep": 0}, "keep: at least"),
    ],
)
def test_wrong_arguments(keywords: dict[str, Any], text: str, tmp_path: Path, quiet: None) -> None:
    with pytest.raises(ValueError, match=text):
        audit.open_log(tmp_path / "audit.jsonl", **keywords)
    assert os.listdir(tmp_path) == []


def test_a_directory_that_is_not_there(tmp_path: Path, quiet: None) -> None:
    with pytest.raises(FileNotFoundError):
        audit.open_log(tmp_path / "none" / "audit.jsonl")
    assert audit.stats() == []


def test_links_beside_the_log_are_not_followed(tmp_path: Path, quiet: None) -> None:
    (tmp_path / "victim").write_text("precious")
    os.symlink(tmp_path / "victim", tmp_path / "audit.jsonl.state")
    with pytest.raises(OSError):
        audit.open_log(tmp_path / "audit.jsonl")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_state_is_read_back() -> None:
    state = State(Chain("ab" * 16, 5, "cd" * 32), 100, 7, 2, 3, {"ef" * 8: 4})
    assert State.load(state.dump()) == state
    many = State(state.chain, 100, 7, 2, 3, {f"{n:016x}": n for n in range(500)})
    assert State.load(many.dump()) == many
    # Written over a longer one.
    assert State.load(state.dump() + many.dump()[len(state.dump()) :]) == state
    for bad in (b"", b"[]", b"{}", b'{"chain":1}', state.dump()[:40], b"\xff"):
        assert State.load(bad) is None


def test_more_sinks_than_there_is_room_for(tmp_path: Path, quiet: None) -> None:
    for n in range(8):
        audit.open_log(tmp_path / f"{n}")
    with pytest.raises(ValueError, match="as many sinks as there can be"):
        audit.open_log(tmp_path / "8")
    emit(3)
    assert audit.close(30)
    for n in range(8):
        assert sums(tmp_path / f"{n}").delivered == 3


def test_records_are_not_lost_by_another_sinks_stall(tmp_path: Path, quiet: None) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    audit.open_log(tmp_path / "audit.jsonl", when_full="block")
    audit.open_log(fifo, when_full="drop")
    emit(3 * pipeline.CAPACITY)
    stats = {each.sink: each for each in audit.stats()}
    assert stats[f"<audit log {fifo}>"].dropped > 0
    os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
    deadline = time.monotonic() + 60
    while audit.stats()[0].delivered < 3 * pipeline.CAPACITY:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    audit.close(2)
    assert sums(tmp_path / "audit.jsonl").delivered == 3 * pipeline.CAPACITY


def test_a_note_is_no_way_in(log: Log) -> None:
    pipeline.note("test", {"text": "a\nb\x00\x1b[31m\udcff", "long": "x" * 2000})
    pipeline.note("test", {"text": "a\nb\x00\x1b[31m"})
    lines = log.events("tracesock.audit.test")
    assert lines[0] | {"truncated": True} == lines[0]
    assert lines[1]["text"] == "a\nb\x00\x1b[31m"
    assert "\x1b" not in log.path.read_text()


def test_a_record_is_read_back() -> None:
    record = note_record("x", "ab" * 8, {"more": [1, 2]})
    record.number = 3
    again = Record.from_dict(record.as_dict())
    assert again == record
    for bad in ({}, {"event": 1, "time": "x"}, {"event": "x", "time": "2025"}):
        with pytest.raises(ValueError):
            Record.from_dict(bad)
    assert time.time_ns() - 10**6 <= now() <= time.time_ns() + 10**6
