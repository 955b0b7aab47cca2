"""Replaced attributes and dictionary items, and the way back."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_MISSING: Any = object()


@dataclass
class Patch:
    """One of them: what is there now, and what was before."""

    owner: Any
    name: Any
    value: Any
    previous: Any

    @property
    def is_item(self) -> bool:
        return isinstance(self.owner, MutableMapping)

    def current(self) -> Any:
        names = self.owner if self.is_item else vars(self.owner)
        return names.get(self.name, _MISSING)

    def put(self, value: Any) -> None:
        if value is _MISSING:
            if self.is_item:
                del self.owner[self.name]
            else:
                delattr(self.owner, self.name)
        elif self.is_item:
            self.owner[self.name] = value
        else:
            setattr(self.owner, self.name, value)


class Patches:
    """Attributes of modules and classes, and items of dictionaries, that were replaced.

    `restore()` puts back what was there, latest first. What somebody else has replaced since is
    left alone: the other one's own way back leads to us, and ours would cut it off.
    """

    def __init__(self) -> None:
        self._patches: list[Patch] = []

    def set(
        self, owner: ModuleType | type | MutableMapping[Any, Any], name: Any, value: Any
    ) -> None:
        """Put `value` under `name`: an attribute, or an item where `owner` is a mapping."""
        patch = Patch(owner, name, value, _MISSING)
        patch.previous = patch.current()
        if patch.previous is value:
            return
        patch.put(value)
        self._patches.append(patch)

    def previous(self, owner: Any, name: Any) -> Any:
        """What was there before `set()`; None where nothing was set or nothing was there."""
        for patch in self._patches:
            if patch.owner is owner and patch.name == name:
                return None if patch.previous is _MISSING else patch.previous
        return None

    def of(self, owner: Any) -> list[Patch]:
        """What was set in `owner`, and had been there before."""
        return [
            patch
            for patch in self._patches
            if patch.owner is owner and patch.previous is not _MISSING
        ]

    def restore(self) -> None:
        """Undo every `set()`."""
        while self._patches:
            patch = self._patches.pop()
            if patch.current() is patch.value:
                patch.put(patch.previous)
