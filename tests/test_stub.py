"""The stub of the extension lists exactly what the extension has."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tracesock
from tracesock import _native

ROOT = Path(__file__).parent.parent
STUB = ROOT / "tracesock" / "_native.pyi"


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("tracesock_stub", ROOT / "ext" / "stub.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


def special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def stub_names(statements: list[ast.stmt], where: str = "") -> set[str]:
    """The names of a stub, of its classes as well; not its private type aliases."""
    names = set()
    for statement in statements:
        match statement:
            case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
                continue
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.FunctionDef(name=name):
                names.add(where + name)
            case ast.ClassDef(name=name, body=body):
                names.add(where + name)
                names |= stub_names(body, f"{where}{name}.")
    return names


def runtime_names(owner: object, where: str = "") -> set[str]:
    names = set()
    for name in [*vars(owner), *(script.late_names() if owner is _native else ())]:
        if special(name):
            continue
        names.add(where + name)
        thing = getattr(owner, name)
        if isinstance(thing, (type, ModuleType)):
            names |= runtime_names(thing, f"{where}{name}.")
    return names


def parsed() -> list[ast.stmt]:
    return ast.parse(STUB.read_text(encoding="utf-8")).body


def test_the_stub_lists_the_names_of_module_types_and_submodules() -> None:
    ordinary = {name for name in stub_names(parsed()) if not special(name.rpartition(".")[2])}
    assert ordinary == runtime_names(_native), "run ext/stub.py"
    assert {"Socket.send", "Lookup.run", "recorder.drain", "audit.Policy.judge"} <= ordinary


def test_every_special_method_of_the_stub_exists() -> None:
    for path in stub_names(parsed()):
        thing: Any = _native
        *owners, name = path.split(".")
        for owner in owners:
            thing = getattr(thing, owner)
        assert hasattr(thing, name), path
        if special(name) and isinstance(thing, type):
            assert name in vars(thing), f"{path} is inherited"


def test_a_name_that_nobody_binds_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"module 'tracesock\._native' has no attribute 'x'"):
        _native.x  # type: ignore[attr-defined]  # noqa: B018


def test_the_stub_is_what_the_script_makes() -> None:
    pytest.importorskip("nanobind", reason="nanobind's stub generator: pip install nanobind")
    assert STUB.read_text(encoding="utf-8") == script.stub(), "run ext/stub.py"


def test_a_name_without_types_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nanobind", reason="nanobind's stub generator: pip install nanobind")
    monkeypatch.setattr(_native, "untold", len, raising=False)
    with pytest.raises(script.StubError, match=r"untold has no types"):
        script.stub()


def test_types_of_a_name_that_is_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("nanobind", reason="nanobind's stub generator: pip install nanobind")
    table = tmp_path / "signatures.pyi"
    table.write_text(
        script.SIGNATURES.read_text(encoding="utf-8") + "\ndef missing() -> None: ...\n"
    )
    monkeypatch.setattr(script, "SIGNATURES", table)
    with pytest.raises(script.StubError, match=r"the extension has no missing"):
        script.stub()


def test_parameters_that_the_extension_has_otherwise_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("nanobind", reason="nanobind's stub generator: pip install nanobind")
    table = tmp_path / "signatures.pyi"
    text = script.SIGNATURES.read_text(encoding="utf-8")
    assert "def dup(fd: SupportsIndex, /)" in text
    table.write_text(text.replace("def dup(fd: SupportsIndex, /)", "def dup(number: int)"))
    monkeypatch.setattr(script, "SIGNATURES", table)
    with pytest.raises(script.StubError, match=r"dup\(number: .int.\) .* is dup\(fd, /\)"):
        script.stub()


def test_the_marker_of_a_typed_package_is_there() -> None:
    assert (Path(tracesock.__file__).parent / "py.typed").exists()
