"""Programs in processes of their own: what install() changes belongs to the whole process."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap

PROJECT = pathlib.Path(__file__).resolve().parents[2]
AUTOLOAD = PROJECT / "tracesock" / "dropin" / "autoload"


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, uninstrumented, from which tracesock can be imported."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "OTEL_", "TRACESOCK_"))
    }
    return kept | {"PYTHONPATH": str(PROJECT), "OTEL_SDK_DISABLED": "true"} | variables


def python(
    source: str,
    *words: str,
    options: tuple[str, ...] = ("-W", "error::RuntimeWarning"),
    interpreter: str = sys.executable,
    **variables: str,
) -> str:
    """Run a program in a fresh interpreter: what it wrote. Its failure is the test's."""
    done = subprocess.run(
        [interpreter, *options, "-c", textwrap.dedent(source), *words],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def run(
    *words: str, cwd: pathlib.Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`tracesock run` with these words."""
    return subprocess.run(
        [sys.executable, "-m", "tracesock", "run", *words],
        env=environment(**variables),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
    )
