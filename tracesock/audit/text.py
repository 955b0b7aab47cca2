"""Foreign text made safe to stand in a record and on a terminal."""

from __future__ import annotations

from typing import Final

# What could end a line, steer a terminal, or show text in another order than it is written in.
_ESCAPED: Final[dict[int, str]] = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    **{
        code: f"\\u{code:04x}"
        for code in (
            *(0x061C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF),
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
            *range(0xD800, 0xE000),
        )
    },
    # A byte that was not UTF-8, as os.fsdecode() has it.
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)},
    ord("\\"): "\\\\",
}


def clean(text: str | bytes, limit: int = 512) -> str:
    """`text` without control characters, line ends, surrogates and characters that reorder text.

    They stand as \\xNN or \\uNNNN, a backslash as two, bytes that are not UTF-8 as \\xNN. At most
    `limit` characters of the text are kept; an ellipsis says that there were more.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if len(text) > limit:
        text = text[:limit] + "…"
    return text.translate(_ESCAPED)


def printable(text: object, limit: int = 512) -> str:
    """A value of a record, which may be forged, for a terminal. A backslash stays as it is."""
    return clean(str(text), limit).replace("\\\\", "\\")
