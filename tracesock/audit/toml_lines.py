"""Where in a TOML text each key stands: tomllib reads the values and forgets the lines.

For texts that tomllib has accepted: only what is needed to find the lines is told apart.
"""

from __future__ import annotations

import re
from typing import Final

_SPACE: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS: Final = ('"""', "'''", '"', "'")

# (table, index of the table in its array, key, index of the item in the key's array)
Place = tuple[str, int, str, int]


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Place, int] = {}
        self._line = 1
        self._counted = 0

    def line(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def skip_space(self, lines: bool) -> None:
        while self.at < len(self.text):
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            rest = self.text[self.at : self.at + 1]
            if rest == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif not (lines and rest in ("\n", "\r")) or not rest:
                return
            else:
                self.at += 1

    def string(self) -> str | None:
        """The raw contents of the string here, past which it goes; None where there is none."""
        for quote in _STRINGS:
            if self.text.startswith(quote, self.at):
                break
        else:
            return None
        start = self.at = self.at + len(quote)
        while not self.text.startswith(quote, self.at):
            self.at += 2 if self.text[self.at] == "\\" and quote[0] == '"' else 1
        value = self.text[start : self.at]
        self.at += len(quote)
        # Up to two quotes may stand before the closing three.
        while len(quote) == 3 and self.text.startswith(quote[0], self.at):
            self.at += 1
        return value

    def key(self) -> str:
        parts = []
        while True:
            self.skip_space(lines=False)
            quoted = self.string()
            if quoted is None:
                found = _BARE.match(self.text, self.at)
                assert found is not None
                quoted = found.group()
                self.at = found.end()
            parts.append(quoted)
            self.skip_space(lines=False)
            if not self.text.startswith(".", self.at):
                return ".".join(parts)
            self.at += 1

    def value(self, table: str, index: int, key: str) -> None:
        """Goes past a value; the items of an array are noted by their lines."""
        depth = 0
        item = 0
        fresh = False
        while True:
            self.skip_space(lines=depth > 0)
            here = self.text[self.at : self.at + 1]
            if fresh and depth == 1 and here not in ("]", ""):
                self.lines[table, index, key, item] = self.line()
                fresh = False
            if here in ("[", "{"):
                depth += 1
                fresh = depth == 1
                self.at += 1
            elif here in ("]", "}"):
                depth -= 1
                self.at += 1
            elif here == "," and depth:
                if depth == 1:
                    item += 1
                    fresh = True
                self.at += 1
            elif self.string() is None:
                if here in ("\n", "\r", ""):
                    return
                self.at += 1
            if depth == 0 and self.text[self.at : self.at + 1] in ("\n", "\r", ""):
                return


def key_lines(text: str) -> dict[Place, int]:
    """The line of every key, of every header (with the key ""), and of every item of an array.

    Items count from 0, the key itself is item -1. The table of the top is "".
    """
    scanner = _Scanner(text)
    table, index = "", 0
    counts: dict[str, int] = {}
    while True:
        scanner.skip_space(lines=True)
        if scanner.at >= len(text):
            return scanner.lines
        line = scanner.line()
        if text.startswith("[", scanner.at):
            array = text.startswith("[[", scanner.at)
            scanner.at += 2 if array else 1
            table = scanner.key()
            scanner.at += 2 if array else 1
            index = counts.get(table, 0)
            counts[table] = index + 1
            scanner.lines[table, index, "", -1] = line
        else:
            key = scanner.key()
            scanner.at += 1  # the equals sign
            scanner.lines[table, index, key, -1] = line
            scanner.value(table, index, key)
