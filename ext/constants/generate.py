"""Make of constants.toml everything that names the constants.

generate.py                     write the stub and the reference page
generate.py --check             fail if either is not what this would write
generate.py --include FILE      write the table of constants.cpp (the build does)
generate.py --header-check FILE write a C++ source that compiles where the headers agree
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TABLE = HERE / "constants.toml"
STUB = ROOT / "tracesock" / "_constants.pyi"
PAGE = ROOT / "docs" / "reference" / "constants.md"

LINE_LENGTH = 100  # of pyproject.toml, so that the formatter leaves the stub alone


@dataclass(frozen=True)
class Platform:
    title: str
    is_python: str  # the condition in a stub
    is_not_python: str


PLATFORMS = {
    "linux": Platform("Linux", 'sys.platform == "linux"', 'sys.platform != "linux"'),
    "macos": Platform("macOS", 'sys.platform == "darwin"', 'sys.platform != "darwin"'),
    "freebsd": Platform(
        "FreeBSD", 'sys.platform.startswith("freebsd")', 'not sys.platform.startswith("freebsd")'
    ),
    "netbsd": Platform(
        "NetBSD", 'sys.platform.startswith("netbsd")', 'not sys.platform.startswith("netbsd")'
    ),
    "openbsd": Platform(
        "OpenBSD", 'sys.platform.startswith("openbsd")', 'not sys.platform.startswith("openbsd")'
    ),
    "windows": Platform("Windows", 'sys.platform == "win32"', 'sys.platform != "win32"'),
}

# The type in Python, and the enumerator of constants.hpp.
KINDS = {
    "AddressFamily": "address_family",
    "SocketKind": "socket_kind",
    "MsgFlag": "message_flag",
    "AddressInfo": "address_info",
    "int": "integer",
    "str": "text",
}
ENUMERATIONS = ("AddressFamily", "AddressInfo", "MsgFlag", "SocketKind")


class TableError(Exception):
    """constants.toml says something that it must not; the text names the row."""


@dataclass(frozen=True)
class Constant:
    name: str
    kind: str
    values: Mapping[str, int | str]
    by_architecture: bool
    windows_build: int
    absent: str

    @property
    def platforms(self) -> tuple[str, ...]:
        return () if self.absent else tuple(p for p in PLATFORMS if p in self.values)


@dataclass(frozen=True)
class Group:
    title: str
    source: str
    text: str
    numbers: str
    constants: tuple[Constant, ...]


def constant(name: str, kind: str, row: Mapping[str, Any]) -> Constant:
    def fail(text: str) -> TableError:
        return TableError(f"{TABLE.name}: {name}: {text}")

    if not re.fullmatch(r"[A-Z][A-Za-z0-9_]*", name):
        raise fail("not a name of a constant")
    options = {"by_architecture": bool, "windows_build": int, "kind": str, "absent": str}
    for key, value in row.items():
        if key not in PLATFORMS and key not in options:
            raise fail(f"unknown key {key!r}")
        if key in options and type(value) is not options[key]:
            raise fail(f"{key} must be of type {options[key].__name__}, not {value!r}")
    values = {platform: row[platform] for platform in PLATFORMS if platform in row}
    for platform, value in values.items():
        if type(value) not in (int, str) or type(value) is not type(next(iter(values.values()))):
            raise fail(f"{platform} must be an integer, or every value a string, not {value!r}")
        if isinstance(value, int) and not -(2**31) <= value < 2**32:
            raise fail(f"{platform} does not fit into 32 bits: {value}")
        if isinstance(value, str) and not re.fullmatch(r"[0-9A-Fa-f:-]+", value):
            raise fail(f"{platform} is not an address or an identifier: {value!r}")
    if any(isinstance(value, str) for value in values.values()):
        kind = "str"
    kind = row.get("kind", kind)
    if kind not in KINDS:
        raise fail(f"unknown kind {kind!r}")
    if not values and "absent" not in row:
        raise fail("no platform has it, and `absent` does not say why")
    if "by_architecture" in row and "linux" not in values:
        raise fail("by_architecture without a value for Linux")
    if "windows_build" in row and "windows" not in values:
        raise fail("windows_build without a value for Windows")
    return Constant(
        name,
        kind,
        values,
        row.get("by_architecture", False),
        row.get("windows_build", 0),
        row.get("absent", ""),
    )


def load(text: str) -> list[Group]:
    """Read and check the table.

    Raises TableError for a row that makes no sense, tomllib.TOMLDecodeError for one that is not
    TOML.
    """
    groups = []
    seen: set[str] = set()
    for entry in tomllib.loads(text)["group"]:
        rows = [constant(name, entry["kind"], row) for name, row in entry["names"].items()]
        for row in rows:
            if row.name in seen:
                raise TableError(f"{TABLE.name}: {row.name}: twice")
            seen.add(row.name)
        numbers = entry.get("numbers", "")
        if numbers not in HEXADECIMAL_FROM:
            raise TableError(f"{TABLE.name}: {entry['title']}: unknown numbers {numbers!r}")
        groups.append(Group(entry["title"], entry["source"], entry["text"], numbers, tuple(rows)))
    return groups


# From which value on numbers are written in hexadecimal.
HEXADECIMAL_FROM = {"decimal": 2**32, "hexadecimal": 10, "": 0x1000}


def literal(value: int, numbers: str = "") -> str:
    return f"0x{value:x}" if value >= HEXADECIMAL_FROM[numbers] else str(value)


# --- the table of constants.cpp ---


def cpp_row(row: Constant, value: str) -> str:
    cells = [f'"{row.name}"', f"Kind::{KINDS[row.kind]}", value]
    if row.windows_build:
        cells += ["{}", str(row.windows_build)]
    return f"    {{{', '.join(cells)}}},"


def cpp_platform_rows(row: Constant, platform: str) -> list[str]:
    value = row.values[platform]
    if isinstance(value, str):
        return [cpp_row(row, f'0, "{value}"')]
    # On Windows the table gives the sign, because control codes are unsigned there.
    wide = value > 0x7FFFFFFF and platform != "windows"
    plain = f"c_long({literal(value)})" if wide else literal(value)
    if platform != "windows":
        row = Constant(row.name, row.kind, row.values, row.by_architecture, 0, row.absent)
    if platform == "linux" and row.by_architecture:
        return [
            f"#ifdef {row.name}",
            cpp_row(row, f"c_long({row.name})"),
            "#else",
            cpp_row(row, plain),
            "#endif",
        ]
    return [cpp_row(row, plain)]


def include(groups: Iterable[Group]) -> str:
    rows = [row for group in groups for row in group.constants]
    lines = ["// Made by ext/constants/generate.py of constants.toml."]
    for number, platform in enumerate(PLATFORMS):
        lines.append(f"#{'elif' if number else 'if'} defined(TRACESOCK_TABLE_{platform.upper()})")
        for row in rows:
            if platform in row.platforms:
                lines += cpp_platform_rows(row, platform)
    lines.append("#else")
    for row in rows:
        if row.kind != "str":
            header = Constant(row.name, row.kind, row.values, False, 0, "")
            lines += [f"#ifdef {row.name}", cpp_row(header, f"c_long({row.name})"), "#endif"]
    lines.append("#endif")
    return "\n".join(lines) + "\n"


def header_check(groups: Iterable[Group]) -> str:
    macros = {
        "linux": "defined(__linux__)",
        "macos": "defined(__APPLE__)",
        "freebsd": "defined(__FreeBSD__)",
        "netbsd": "defined(__NetBSD__)",
        "openbsd": "defined(__OpenBSD__)",
        "windows": "defined(_WIN32)",
    }
    lines = [
        "// Made by ext/constants/generate.py: compiles where the headers agree with the table.",
        "#include <cstdint>",
        "",
        '#include "constants/platform_headers.hpp"',
        "",
        "static constexpr bool same(auto header, std::int64_t table) {",
        "    return static_cast<std::uint32_t>(header) == static_cast<std::uint32_t>(table);",
        "}",
    ]
    rows = [row for group in groups for row in group.constants]
    for number, platform in enumerate(PLATFORMS):
        lines.append(f"#{'elif' if number else 'if'} {macros[platform]}")
        for row in rows:
            value = row.values.get(platform)
            if isinstance(value, int) and not row.absent:
                lines += [
                    f"#ifdef {row.name}",
                    f'static_assert(same({row.name}, {literal(value)}), "{row.name}");',
                    "#endif",
                ]
    lines.append("#endif")
    return "\n".join(lines) + "\n"


# --- the stub ---


def condition(platforms: Iterable[str]) -> str:
    """The shorter of "one of these" and "none of the others", as an `if` of a stub."""
    names = tuple(platforms)
    others = [PLATFORMS[name].is_not_python for name in PLATFORMS if name not in names]
    these = [PLATFORMS[name].is_python for name in names]
    tests, word = (others, "and") if len(others) < len(these) else (these, "or")
    line = f"if {f' {word} '.join(tests)}:"
    if len(line) <= LINE_LENGTH:
        return line
    return "\n".join(
        ["if (", *(f"    {word + ' ' if i else ''}{t}" for i, t in enumerate(tests)), "):"]
    )


def stub(groups: Iterable[Group]) -> str:
    by_platforms: dict[tuple[str, ...], list[Constant]] = {tuple(PLATFORMS): []}
    for group in groups:
        for row in group.constants:
            if row.platforms:
                by_platforms.setdefault(row.platforms, []).append(row)
    lines = [
        "# Made by ext/constants/generate.py of ext/constants/constants.toml.",
        "import sys",
        f"from socket import {', '.join(ENUMERATIONS)}",
        "from typing import Final",
        "",
    ]
    for platforms, rows in by_platforms.items():
        everywhere = len(platforms) == len(PLATFORMS)
        indent = "" if everywhere else "    "
        if not everywhere:
            lines += ["", condition(platforms)]
        lines.append(f"{indent}__all__ {'=' if everywhere else '+='} [")
        lines += [f'{indent}    "{row.name}",' for row in rows]
        lines.append(f"{indent}]")
        lines += [f"{indent}{row.name}: Final[{row.kind}]" for row in rows]
    return "\n".join(lines) + "\n"


# --- the reference page ---

INTRODUCTION = """\
# Constants

<!-- Made by ext/constants/generate.py of ext/constants/constants.toml. -->

Every constant that the `socket` module of Python 3.14 has on some platform. tracesock has them on
every Python that it supports. On Linux their values stand in the table itself, so that the
headers of the machine that built tracesock do not matter: an interpreter built without BlueZ, for
example, has `AF_BLUETOOTH` all the same.

`AF_*`, `SOCK_*`, `MSG_*` and `AI_*` are members of the standard library's own enumerations
(`tracesock.AddressFamily is socket.AddressFamily`), and the same objects as the standard library's.
A member that the running standard library lacks is an instance of the same class outside its list:
`isinstance(AF_BLUETOOTH, AddressFamily)` and `pickle` work, `AddressFamily(31)` and iteration do
not know it.

- An empty cell: the platform does not have the constant.
- `†`: the value differs between architectures of Linux; this is the one of x86-64, AArch64, RISC-V
  and others, and a build for another architecture takes its header's.
- On Linux `SOMAXCONN` and `NI_MAXHOST` are those of a current glibc, whatever the C library. (The
  standard library has 128 for the first with an older glibc, and 128 and 255 with musl.)
- On a platform without a column, a constant exists where the system's headers define it.
"""


def page_value(row: Constant, platform: str, numbers: str = "") -> str:
    value = row.values.get(platform)
    if value is None:
        return ""
    text = f"`{value}`" if isinstance(value, str) else literal(value, numbers)
    return text + (" †" if platform == "linux" and row.by_architecture else "")


def page_rows(rows: Iterable[Iterable[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in rows]


def page(groups: Iterable[Group]) -> str:
    lines = [INTRODUCTION.rstrip("\n")]
    absent = []
    for group in groups:
        rows = [row for row in group.constants if not row.absent]
        absent += [row for row in group.constants if row.absent]
        if not rows:
            continue
        columns = [name for name in PLATFORMS if any(name in row.values for row in rows)]
        lines += ["", f"## {group.title}", "", f"{group.text} Source: {group.source}.", ""]
        lines += page_rows(
            [
                ["name", *(PLATFORMS[name].title for name in columns)],
                ["---"] * (len(columns) + 1),
                *(
                    [f"`{row.name}`", *(page_value(row, name, group.numbers) for name in columns)]
                    for row in rows
                ),
            ]
        )
        builds = [row for row in rows if row.windows_build]
        if builds:
            since = ", ".join(f"`{row.name}` from build {row.windows_build}" for row in builds)
            lines += ["", f"Not on every Windows: {since}."]
    lines += [
        "",
        "## Names that no build has",
        "",
        "The standard library's source names these as well, but its builds do not define them, so",
        "tracesock does not either. The value, where there is one, is that of the header.",
        "",
    ]
    lines += page_rows(
        [
            ["name", "value", "why"],
            ["---"] * 3,
            *([f"`{row.name}`", page_value(row, "linux"), row.absent] for row in absent),
        ]
    )
    return "\n".join(lines) + "\n"


def stale(outputs: Mapping[Path, str]) -> list[Path]:
    """The files that are missing or differ from what they should be."""
    return [
        path
        for path, text in outputs.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Make the stub and the reference page of constants.toml."
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="fail if a committed file is stale")
    choice.add_argument("--include", type=Path, metavar="FILE", help="write the extension's table")
    choice.add_argument(
        "--header-check", type=Path, metavar="FILE", help="write a source that checks the headers"
    )
    options = parser.parse_args(arguments)
    try:
        groups = load(TABLE.read_text(encoding="utf-8"))
    except (TableError, tomllib.TOMLDecodeError) as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 1
    if options.include:
        outputs = {options.include: include(groups)}
    elif options.header_check:
        outputs = {options.header_check: header_check(groups)}
    else:
        outputs = {STUB: stub(groups), PAGE: page(groups)}
    if options.check:
        for path in stale(outputs):
            print(f"generate.py: {path} is stale: run ext/constants/generate.py", file=sys.stderr)
        return bool(stale(outputs))
    for path, text in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
