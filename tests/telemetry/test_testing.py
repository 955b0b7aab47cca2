"""tracesock.testing: what was recorded, the same in every run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import tracesock
from tests.telemetry.plain import nobody
from tracesock.instrumentation import ConfigError, is_instrumented
from tracesock.testing import CountingIdGenerator, InMemoryRecorder, RecordedSpan

PACKAGES = Path(tracesock.__file__).parents[1]


def request(recorder: InMemoryRecorder, name: str = "request") -> int:
    """One request to a server of this machine, and one after its end: its port."""
    with nobody() as address:
        with tracesock.create_server(address), recorder.tracer().start_as_current_span(name):
            client = tracesock.create_connection(("localhost", address[1]))
            client.sendall(b"hello")
            client.close()
        with (
            recorder.tracer().start_as_current_span(name),
            tracesock.socket() as client,
            pytest.raises(ConnectionRefusedError),
        ):
            client.connect(address)
    return address[1]


TREE = """\
request
  socket connection_setup localhost:PORT
    DNS lookup localhost
    socket connect 127.0.0.1:PORT
  socket send 127.0.0.1:PORT
request
  socket connect 127.0.0.1:PORT [connection_refused]"""


def comparable(spans: list[RecordedSpan]) -> list[Any]:
    return [
        (span.name.rpartition(":")[0], span.trace_id, span.span_id, span.parent_id, span.start)
        for span in spans
    ]


def test_the_tree_and_the_numbers_are_the_same_each_time() -> None:
    runs = []
    for _ in range(3):
        with InMemoryRecorder() as recorder:
            port = request(recorder)
        assert recorder.tree({str(port): "PORT"}) == TREE
        runs.append(comparable(recorder.spans()))
    assert runs[0] == runs[1] == runs[2]
    assert [each[1:] for each in runs[0]] == [
        (1, 1, None, 1),
        (1, 2, 1, 2),
        (1, 3, 2, 3),
        (1, 4, 2, 5),
        (1, 5, 1, 8),
        (2, 6, None, 11),
        (2, 7, 6, 12),
    ]


def test_parents_enclose_their_children() -> None:
    with InMemoryRecorder() as recorder:
        request(recorder)
        spans = {span.span_id: span for span in recorder.spans()}
    children = [span for span in spans.values() if span.parent_id is not None]
    assert len(children) == 5
    for span in children:
        parent = spans[span.parent_id or 0]
        assert parent.start < span.start < span.end < parent.end
        assert parent.raw.start_time <= span.raw.start_time


def test_numbers_do_not_depend_on_threads_and_the_drain() -> None:
    """Spans of sends get their identifiers from the drain, whenever it runs."""

    def recorded(interval: float) -> list[Any]:
        with InMemoryRecorder(drain_interval=interval) as recorder:
            for number in range(20):
                left, right = tracesock.socketpair()
                with left, right, recorder.tracer().start_as_current_span(f"{number}"):
                    left.send(b"x")
                    with recorder.tracer().start_as_current_span("inner"):
                        left.send(b"y")
        return [
            (span.trace_id, span.span_id, span.parent_id, span.start, span.end)
            for span in recorder.spans()
        ]

    assert recorded(0.001) == recorded(60.0)


def test_attributes_errors_and_a_choice_of_spans() -> None:
    with InMemoryRecorder() as recorder:
        port = request(recorder)
    (lookup,) = recorder.spans("DNS")
    assert lookup.attributes["dns.question.name"] == "localhost"
    assert lookup.error is None
    assert [span.error for span in recorder.spans("socket connect ")] == [
        None,
        "connection_refused",
    ]
    (sent,) = recorder.spans("socket send")
    assert sent.attributes["tracesock.send.size"] == 5
    assert sent.attributes["network.peer.port"] == port


def test_metrics() -> None:
    with InMemoryRecorder() as recorder:
        request(recorder)
        assert recorder.total("tracesock.io", {"network.io.direction": "transmit"}) == 5
    assert recorder.total("tracesock.send.duration") == 1
    assert recorder.total("tracesock.connect.duration") == 2
    refused = {"error.type": "connection_refused"}
    assert recorder.total("tracesock.connect.duration", refused) == 1
    (point,) = recorder.points("tracesock.connect.duration", refused)
    assert point.attributes["network.transport"] == "tcp"
    assert recorder.total("no.such.metric") == 0


def test_clear_and_life() -> None:
    recorder = InMemoryRecorder(send_spans="off")
    assert not is_instrumented()
    with recorder:
        assert is_instrumented()
        request(recorder, "first")
        recorder.clear()
        assert recorder.spans() == []
        request(recorder, "second")
        assert not recorder.spans("socket send")
    assert not is_instrumented()
    assert {span.name for span in recorder.spans() if span.parent_id is None} == {"second"}
    # Entered again, it begins anew.
    with recorder:
        assert recorder.spans() == []


def test_a_setting_that_is_none() -> None:
    with pytest.raises(ConfigError, match="send_spans"), InMemoryRecorder(send_spans="sometimes"):
        pass
    with pytest.raises(TypeError), InMemoryRecorder(no_such_setting=1):
        pass
    assert not is_instrumented()


def test_identifiers_count_up() -> None:
    ids = CountingIdGenerator()
    assert [ids.generate_span_id() for _ in range(3)] == [1, 2, 3]
    assert [ids.generate_trace_id() for _ in range(3)] == [1, 2, 3]


def test_the_fixture(tmp_path: Path) -> None:
    """In a pytest of its own, which loads the plugin as a user's does."""
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
        import socket
        import pytest
        import tracesock
        from tracesock.instrumentation import is_instrumented

        def traffic(module):
            with module.create_server(("127.0.0.1", 0)) as listener:
                module.create_connection(listener.getsockname()).close()

        def test_plain(tracesock_spans):
            traffic(tracesock)
            assert len(tracesock_spans.spans("socket connect ")) == 1

        def test_stock_is_left_alone(tracesock_spans):
            traffic(socket)
            assert tracesock_spans.spans() == []

        @pytest.mark.tracesock(install=True, excluded_peers=("127.0.0.1",))
        def test_settings(tracesock_spans):
            assert socket.socket is tracesock.socket
            traffic(socket)
            assert tracesock_spans.spans("socket connect ") == []

        @pytest.mark.tracesock(install=True)
        def test_installed(tracesock_spans):
            traffic(socket)
            assert len(tracesock_spans.spans("socket connect ")) == 1

        def test_off_again():
            assert not is_instrumented()
            assert socket.socket is not tracesock.socket
        """)
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            # The source tree first, and the plugin once, whether it is installed or not.
            f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); import pytest; "
            "sys.exit(pytest.main(['-q', '-p', 'tracesock.testing', '-p', 'no:cacheprovider', "
            "'--strict-markers', '-W', 'ignore::tracesock.dropin.EarlyImportWarning']))",
        ],
        cwd=tmp_path,
        # Other packages' plugins cost seconds.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr
