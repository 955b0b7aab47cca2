"""Bounding what one attribute may hold."""

from __future__ import annotations

from typing import Any


def cut_values(attributes: Any, limit: int) -> int:
    """Cuts texts of attributes at `limit` characters, replaces larger structures by a note.

    Returns how many were changed.
    """
    cut = 0
    for kv in attributes:
        which = kv.value.WhichOneof("value")
        if which == "string_value":
            if len(kv.value.string_value) > limit:
                kv.value.string_value = kv.value.string_value[: limit - 1] + "…"
                cut += 1
        elif which is not None and kv.value.ByteSize() > limit:
            kv.value.string_value = f"({which.removesuffix('_value')} longer than {limit} bytes)"
            cut += 1
        if len(kv.key) > limit:
            kv.key = kv.key[:limit]
            cut += 1
    return cut
