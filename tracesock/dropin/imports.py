"""A call as soon as a module has been imported, now or later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

Call = Callable[[ModuleType], None]


class _CallingLoader:
    """The module's own loader, and a call after it."""

    def __init__(self, loader: Any, call: Call) -> None:
        self._loader = loader
        self._call = call

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        # The module is to show its own loader, to itself as well.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._call(module)


def settle(names: Iterable[str]) -> None:
    """Wait for other threads that are importing one of the modules just now."""
    for name in names:
        if name in sys.modules:
            import_module(name)


class ImportWatch:
    """A finder that calls a function with a module once that is imported.

    Stands in sys.meta_path from `start()` to `stop()`; the modules that are there already get
    their call from `start()`.
    """

    def __init__(self, calls: Mapping[str, Call]) -> None:
        self._calls = dict(calls)

    def start(self) -> None:
        """Call for the modules that are there, and wait for the others."""
        sys.meta_path.insert(0, self)
        for name, call in self._calls.items():
            module = sys.modules.get(name)
            if module is not None:
                call(module)

    def stop(self) -> None:
        """Wait no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders have, with the call in it. See importlib.abc."""
        call = self._calls.get(name)
        if call is None:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _CallingLoader(spec.loader, call)  # type: ignore[assignment]
                return spec
        return None
