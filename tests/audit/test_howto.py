"""docs/how-to/egress-policy.md as a new engineer reads it: from the top, every command."""

from __future__ import annotations

import os
import re
import signal
import socket as stock
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, child_environment

PAGE = ROOT / "docs" / "how-to" / "egress-policy.md"
PART = re.compile(
    r"<!-- file: (?P<file>\S+) -->\n```\w+\n(?P<content>.*?)```"
    r"|<!-- wait for port (?P<port>\d+) -->"
    r"|<!-- wait for (?P<lines>\d+) lines? of (?P<of>.*?) -->"
    r"|```console\n(?P<console>.*?)```",
    re.DOTALL,
)


def commands(console: str) -> Iterator[tuple[str, str]]:
    """Each command with the output that the page shows."""
    command, output = "", ""
    for line in console.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, output
            command, output = line[2:], ""
        else:
            output += line + "\n"
    yield command, output


def pattern(output: str) -> re.Pattern[str]:
    """An ellipsis is anything, a line of nothing else any lines."""
    parts = []
    for line in output.splitlines():
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(map(re.escape, line.split("…"))) + r"\n")
    return re.compile("".join(parts))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell in which `tracesock` is the one of the sources."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, words in (("tracesock", "-m tracesock"), ("python3", "")):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        tool.chmod(0o755)
    (tmp_path / "work").mkdir()
    started = subprocess.Popen(
        ["bash", "--norc"],
        cwd=tmp_path / "work",
        env={**child_environment(PATH=f"{tools}:{os.environ['PATH']}", COLUMNS="200")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    yield started
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()


def run(shell: subprocess.Popen[str], command: str) -> str:
    assert shell.stdin and shell.stdout
    shell.stdin.write(f"{command}\necho; echo end-of-the-command\n")
    shell.stdin.flush()
    lines: list[str] = []
    while (line := shell.stdout.readline()) != "end-of-the-command\n":
        assert line, f"{command}: the shell has ended: {lines}"
        lines.append(line)
    text = "".join(lines)
    return text.removesuffix("\n")


@pytest.mark.timeout(300)
def test_every_command_of_the_page(shell: subprocess.Popen[str], tmp_path: Path) -> None:
    if not PAGE.exists():
        pytest.skip("the documentation is not beside the package: run from a checkout")
    page = PAGE.read_text()
    blocks = page.count("```console")
    seen = 0
    with stock.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 18080)) == 0:
            pytest.skip("port 18080, which the page uses, is taken: free it")
    for part in PART.finditer(page):
        if part["file"]:
            (tmp_path / "work" / part["file"]).write_text(part["content"])
        elif part["port"]:
            for _ in range(300):
                with stock.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", int(part["port"]))) == 0:
                        break
                time.sleep(0.1)
        elif part["lines"]:
            deadline = time.monotonic() + 60
            # Without a complaint that the file is not there yet.
            while run(shell, f"{part['of']} 2>&-").count("\n") < int(part["lines"]):
                assert time.monotonic() < deadline, part[0]
                time.sleep(0.1)
        else:
            seen += 1
            for command, expected in commands(part["console"]):
                output = run(shell, command)
                assert pattern(expected).fullmatch(output), (
                    f"$ {command}\n{output}--- the page says ---\n{expected}"
                )
    assert seen == blocks >= 8
