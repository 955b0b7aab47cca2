"""Policies and logs that are gone when a test ends, and programs that run with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tracesock import audit

ROOT = Path(__file__).parents[2]


@pytest.fixture
def enforce() -> Iterator[Callable[[str], audit.Policy]]:
    """Puts the policy of a TOML text into force."""

    def use(text: str) -> audit.Policy:
        from tracesock.audit.policy import parse_policy

        policy = parse_policy(textwrap.dedent(text).encode())
        audit.use_policy(policy)
        return policy

    yield use
    audit.clear_policy()


class Log:
    """A log that is being written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        assert audit.flush(30)
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def events(self, *names: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] in names]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A log of this process, with the default choices."""
    audit.open_log(tmp_path / "audit.jsonl")
    yield Log(tmp_path / "audit.jsonl")
    assert audit.close(30)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nothing recorded and no policy, before and after."""
    yield
    audit.clear_policy()
    audit.close(10)


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs Python text or words with the sources' tracesock, in the test's directory."""

    def start(
        program: str, *words: str, python: str = sys.executable, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", textwrap.dedent(program), *words],
            cwd=tmp_path,
            env=child_environment(**environment),
            capture_output=True,
            text=True,
            timeout=60,
        )

    return start


def child_environment(**more: str) -> dict[str, str]:
    """An environment in which tracesock is that of the sources, and nothing is asked of it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRACESOCK_", "OTEL_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}
