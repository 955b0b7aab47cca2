"""Inserting many rows with few statements.

Python's sqlite3 gives up and takes back the interpreter lock for every row that `executemany`
inserts. With 32 rows in a statement that costs a thirty-second part, and the rows a third less.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

_ROWS = 32


def insert(
    db: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]], tail: str = ""
) -> None:
    """Inserts rows of one length: `into` is the statement up to VALUES, `tail` what follows."""
    if not rows:
        return
    width = len(rows[0])
    one = f"({', '.join('?' * width)})"
    whole = f"{into} VALUES {', '.join([one] * _ROWS)} {tail}"
    full = len(rows) - len(rows) % _ROWS
    for i in range(0, full, _ROWS):
        db.execute(whole, list(chain.from_iterable(rows[i : i + _ROWS])))
    if full < len(rows):
        rest = rows[full:]
        db.execute(
            f"{into} VALUES {', '.join([one] * len(rest))} {tail}",
            list(chain.from_iterable(rest)),
        )
