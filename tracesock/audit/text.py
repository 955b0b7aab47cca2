"""Foreign text made safe to stand in a record and on a terminal."""

from __future__ import annotations


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code < 0xDD00:  # a byte that was not UTF-8, as os.fsdecode() has it
        return f"\\x{code - 0xDC00:02x}"
    if code == 0x5C:
        return "\\\\"
    if character.isprintable():
        return character
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean(text: str | bytes, limit: int = 512) -> str:
    """`text` with printable characters only.

    Control characters, line ends, surrogates, and characters that cannot be seen or that reorder
    others stand as \\xNN, \\uNNNN or \\UNNNNNNNN, a backslash as two, bytes that are not UTF-8 as
    \\xNN. At most `limit` characters of the text are kept; an ellipsis says that there were more.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def printable(text: object, limit: int = 512) -> str:
    """A value of a record, which may be forged, for a terminal. A backslash stays as it is."""
    return clean(str(text), limit).replace("\\\\", "\\")
