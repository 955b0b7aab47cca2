"""HTML from Python calls. Every text is escaped here, and nowhere else.

Telemetry is not trusted: host names and paths come from peers. Besides HTML's own characters, those
that change how a text is read (control characters, bidirectional overrides, zero-width marks, lone
surrogates) are shown as their code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape as _escape
from typing import Final, TypeAlias

_DECEIVING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_VOID: Final = frozenset(("br", "hr", "img", "input", "link", "meta", "wbr"))


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | int | Html | Iterable[Child] | None"
Attribute: TypeAlias = "str | int | float | bool | None"


def visible(text: str) -> str:
    """The text with deceiving characters replaced by their code, as in ``⟨U+202E⟩``."""
    if text.isascii() and text.isprintable():
        return text
    return _DECEIVING.sub(lambda m: f"⟨U+{ord(m[0]):04X}⟩", text)


def escape(text: str) -> Html:
    """A text as HTML, for element content and quoted attribute values."""
    return Html(_escape(visible(text)))


def join(children: Child) -> str:
    """Children as one string: texts escaped, Html as it is, None as nothing."""
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return escape(children)
    if children is None:
        return ""
    if isinstance(children, int):
        return str(children)
    return "".join([join(child) for child in children])


def h(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """An element. `class_` and `for_` give `class` and `for`, `data_x` gives `data-x`.

    An attribute that is None or False is left out, one that is True has no value.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        parts.append(name if value is True else f'{name}="{escape(str(value))}"')
    head = " ".join(parts)
    if tag in _VOID:
        return Html(f"<{head}>")
    return Html(f"<{head}>{join(children)}</{tag}>")


def fragment(*children: Child) -> Html:
    """Children without an element around them."""
    return Html(join(children))
