"""Every constant: its name, value and type, on this platform by running and on the others by what
is generated for them and by their own headers."""

from __future__ import annotations

import _socket
import ast
import copy
import importlib.util
import json
import pickle
import platform
import re
import shutil
import socket as stock
import subprocess
import sys
from enum import IntFlag
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import tracesock
from tracesock import _constants, _native, _stock

ROOT = Path(__file__).resolve().parent.parent
GENERATE = ROOT / "ext" / "constants" / "generate.py"
REFERENCE = ROOT / "tests" / "data" / "socket_constants_linux_3.14.json"

ENUMERATIONS = ("AddressFamily", "AddressInfo", "MsgFlag", "SocketKind")
PYTHON_PLATFORM = {
    "linux": "linux",
    "macos": "darwin",
    "freebsd": "freebsd14",
    "netbsd": "netbsd10",
    "openbsd": "openbsd7",
    "windows": "win32",
}
# With whose headers the table is compared. Those of MinGW stand for Windows.
TARGETS = (
    "x86_64-linux-gnu",
    "aarch64-linux-gnu",
    "aarch64-macos",
    "x86_64-freebsd",
    "x86_64-netbsd",
    "x86_64-openbsd",
    "x86_64-windows-gnu",
)
STRICT = ("-std=c++20", "-Wall", "-Wextra", "-Werror")


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("constants_generate", GENERATE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look the module up
    spec.loader.exec_module(module)
    return module


generate = load_generator()
GROUPS = generate.load(generate.TABLE.read_text(encoding="utf-8"))
ROWS = {row.name: row for group in GROUPS for row in group.constants}


def on_linux_as_the_reference() -> bool:
    return sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")


def described(value: Any) -> tuple[str, Any]:
    return type(value).__name__, int(value) if isinstance(value, int) else value


# --- names, values and types ---


@pytest.mark.skipif(
    not on_linux_as_the_reference(), reason="the reference is of Linux on x86-64 or AArch64"
)
def test_every_name_of_3_14_has_its_value_and_type() -> None:
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    del reference["about"]
    expected = {
        name: (kind, value) for kind, values in reference.items() for name, value in values.items()
    }
    assert len(expected) == 458
    assert {name: described(getattr(_constants, name)) for name in _constants.__all__} == expected


def test_the_package_has_every_constant() -> None:
    for name in _constants.__all__:
        assert getattr(tracesock, name) is getattr(_constants, name)
    assert set(_constants.__all__) <= set(tracesock.__all__)
    assert len(set(tracesock.__all__)) == len(tracesock.__all__)


def test_what_the_standard_library_has_is_the_same() -> None:
    constants = [
        name
        for name, value in vars(_socket).items()
        if type(value) in (int, str) and not name.startswith("__")
    ]
    assert len(constants) > 100
    # The only numbers that depend on the C library's age or kind: musl has 128 and 255, and a name
    # more, an older glibc has 128. Here they are those of the reference on every Linux.
    if sys.platform == "linux":
        library = (
            {"SOMAXCONN"}
            if platform.libc_ver()[0] == "glibc"
            else {"SOMAXCONN", "NI_MAXHOST", "IPPROTO_MAX"}
        )
        constants = [name for name in constants if name not in library]
    for name in constants:
        theirs = getattr(stock, name)
        if name not in vars(tracesock) and sys.version_info >= (3, 15):
            continue  # a name that came after 3.14
        ours = getattr(tracesock, name)
        assert described(ours) == described(theirs), name
        if type(theirs).__name__ in ENUMERATIONS:
            assert ours is theirs, name


def test_a_build_without_the_current_windows_has_fewer_names() -> None:
    everything = _native.constants()
    first = _native.constants(windows_build=0)
    later = {name for name, row in ROWS.items() if row.windows_build}
    assert later == {"AF_UNIX", "TCP_FASTOPEN", "TCP_KEEPCNT", "TCP_KEEPIDLE", "TCP_KEEPINTVL"}
    missing = {name for kind in everything for name in everything[kind].keys() - first[kind].keys()}
    assert missing == (later if sys.platform == "win32" else set())


# --- enumerations ---


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_enumerations_are_the_standard_librarys(name: str) -> None:
    assert getattr(tracesock, name) is getattr(stock, name)


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_a_member_that_the_standard_library_lacks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    enumeration: Any = getattr(stock, name)
    before = vars(enumeration)["_member_map_"].copy(), len(enumeration)
    constant, value = "TEST_CONSTANT", 1 << 29
    for lookup in (_stock._families, _stock._kinds):
        monkeypatch.delitem(lookup, value, raising=False)
    member = _stock.members(enumeration, {constant: value})[constant]
    monkeypatch.setattr(tracesock, constant, member, raising=False)

    assert type(member) is enumeration
    assert (member.name, member.value, int(member)) == (constant, value, value)
    assert member == value and hash(member) == hash(value)
    assert repr(member) == f"<{name}.{constant}: {value}>"
    assert (str(member), f"{member}", json.dumps(member)) == (str(value),) * 3
    assert copy.copy(member) is copy.deepcopy(member) is member
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(member, protocol)) is member
        assert pickle.loads(pickle._dumps(member, protocol)) is member  # type: ignore[attr-defined]
    assert before == (vars(enumeration)["_member_map_"], len(getattr(stock, name)))


def test_a_flag_that_the_standard_library_lacks_combines() -> None:
    flag = _stock.members(stock.MsgFlag, {"MSG_TEST": 1 << 29})["MSG_TEST"]
    for combined in (flag | stock.MSG_PEEK, stock.MSG_PEEK | flag):
        assert isinstance(combined, stock.MsgFlag) and isinstance(combined, IntFlag)
        assert combined == (1 << 29) | stock.MSG_PEEK
        assert combined & flag == flag and combined & ~flag == stock.MSG_PEEK


@pytest.mark.skipif(sys.platform != "linux", reason="AF_BLUETOOTH is 31 on Linux")
def test_bluetooth_whatever_the_interpreter_was_built_with() -> None:
    family = tracesock.AF_BLUETOOTH
    assert repr(family) == "<AddressFamily.AF_BLUETOOTH: 31>"
    assert isinstance(family, stock.AddressFamily)
    assert pickle.loads(pickle.dumps(family)) is family
    assert _stock.family_enum(31) is family


def test_numbers_become_members() -> None:
    for member in stock.AddressFamily:
        assert _stock.family_enum(int(member)) is member
    for kind in stock.SocketKind:
        assert _stock.kind_enum(int(kind)) is kind
    for unknown in (-1, 12345, 2**31 - 1, 2**80):
        assert _stock.family_enum(unknown) is unknown
        assert _stock.kind_enum(unknown) is unknown


# --- what is generated ---


def test_generated_files_are_current() -> None:
    run = subprocess.run(
        [sys.executable, GENERATE, "--check"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_a_stale_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    assert generate.stale({file: "new"}) == [file]
    file.write_text("old", encoding="utf-8")
    assert generate.stale({file: "new"}) == [file]
    file.write_text("new", encoding="utf-8")
    assert generate.stale({file: "new"}) == []


def stub_names(python_platform: str) -> dict[str, str]:
    """The names of the stub on a platform, with the type of each, as a type checker reads it."""
    known = {"sys": SimpleNamespace(platform=python_platform)}
    listed: list[str] = []
    types: dict[str, str] = {}

    def read(body: list[ast.stmt]) -> None:
        for statement in body:
            match statement:
                case ast.If(test=test, body=inner, orelse=[]):
                    if eval(compile(ast.Expression(test), "stub", "eval"), dict(known)):
                        read(inner)
                case ast.Assign(value=value) | ast.AugAssign(value=value):
                    listed.extend(ast.literal_eval(value))
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    assert name not in types
                    types[name] = ast.unparse(annotation)
                case ast.Import() | ast.ImportFrom():
                    pass
                case _:
                    raise AssertionError(ast.unparse(statement))

    read(ast.parse(generate.STUB.read_text(encoding="utf-8")).body)
    assert sorted(listed) == sorted(types)
    return types


@pytest.mark.parametrize("name", PYTHON_PLATFORM)
def test_the_stub_has_the_names_of_each_platform(name: str) -> None:
    expected = {row.name: f"Final[{row.kind}]" for row in ROWS.values() if name in row.platforms}
    assert stub_names(PYTHON_PLATFORM[name]) == expected


def test_the_stub_agrees_with_what_runs() -> None:
    running = {
        name: f"Final[{type(getattr(_constants, name)).__name__}]" for name in _constants.__all__
    }
    assert stub_names(sys.platform) == running


def test_no_build_has_a_name_that_the_standard_librarys_builds_lack() -> None:
    absent = [row for row in ROWS.values() if row.absent]
    assert len(ROWS) == 458 + 118 and len(absent) == 28
    assert not {row.name for row in absent} & set(_constants.__all__)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("X = { linux = 1.5 }", "X: linux must be an integer"),
        ("X = { linux = true }", "X: linux must be an integer"),
        ('X = { linux = 1, macos = "1" }', "X: macos must be an integer"),
        ("X = { linux = 0x100000000 }", "X: linux does not fit into 32 bits: 4294967296"),
        ('X = { linux = "\\"; evil()" }', "X: linux is not an address or an identifier"),
        ("X = { plan9 = 1 }", "X: unknown key 'plan9'"),
        ("X = {}", "X: no platform has it"),
        ('X = { linux = 1, kind = "float" }', "X: unknown kind 'float'"),
        ("X = { linux = 1, windows_build = 3 }", "X: windows_build without a value for Windows"),
        ("X = { macos = 1, by_architecture = true }", "X: by_architecture without a value for Lin"),
        ('X = { linux = 1, by_architecture = "yes" }', "X: by_architecture must be of type bool"),
        ('"X Y" = { linux = 1 }', "X Y: not a name of a constant"),
    ],
)
def test_a_wrong_row_is_named(row: str, complaint: str) -> None:
    head = '[[group]]\ntitle = "T"\nkind = "int"\nsource = "s"\ntext = "t"\n[group.names]\n'
    with pytest.raises(generate.TableError, match=re.escape(complaint)):
        generate.load(head + row)


def test_a_name_in_two_groups_is_refused() -> None:
    group = (
        '[[group]]\ntitle = "T"\nkind = "int"\nsource = "s"\ntext = "t"\n'
        "[group.names]\nX = { linux = 1 }\n"
    )
    with pytest.raises(generate.TableError, match="X: twice"):
        generate.load(group * 2)


# --- C++ ---


def host_compiler() -> list[str]:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on the path: install g++ or clang++")
    return [compiler]


def cross_compiler(target: str) -> list[str]:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("the package ziglang, which has the headers of other platforms, is missing")
    return [sys.executable, "-m", "ziglang", "c++", "-target", target]


def compile_source(compiler: list[str], source: Path, build: Path, *options: str) -> str:
    """The diagnostics of compiling a source against the project's headers, empty for none."""
    run = subprocess.run(
        [*compiler, *STRICT, *options, f"-I{build}", f"-I{ROOT / 'ext'}"]
        + ["-c", str(source), "-o", str(build / f"{source.stem}.o")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 or run.stderr
    return run.stderr


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A directory with what the build would generate."""
    probes = (ROOT / "ext" / "config.hpp.in").read_text(encoding="utf-8")
    config = re.sub(r"#cmakedefine01 (\w+)", r"#define \1 0", probes)
    (tmp_path / "config.hpp").write_text(config, encoding="utf-8")
    (tmp_path / "constants_table.inc").write_text(generate.include(GROUPS), encoding="utf-8")
    (tmp_path / "header_check.cpp").write_text(generate.header_check(GROUPS), encoding="utf-8")
    return tmp_path


TABLE_SOURCE = ROOT / "ext" / "constants" / "constants.cpp"


@pytest.mark.parametrize("target", TARGETS)
def test_the_table_compiles_for_each_platform(target: str, build: Path) -> None:
    assert compile_source(cross_compiler(target), TABLE_SOURCE, build) == ""


@pytest.mark.parametrize("target", TARGETS)
def test_the_table_agrees_with_the_headers_of_each_platform(target: str, build: Path) -> None:
    assert compile_source(cross_compiler(target), build / "header_check.cpp", build) == ""


def is_glibc() -> bool:
    return on_linux_as_the_reference() and platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not is_glibc(), reason="the table has the values of glibc")
def test_the_table_agrees_with_the_headers_of_this_machine(build: Path) -> None:
    check = build / "header_check.cpp"
    assert compile_source(host_compiler(), check, build) == ""
    wrong = check.read_text(encoding="utf-8").replace("same(AF_INET, 2)", "same(AF_INET, 3)", 1)
    check.write_text(wrong, encoding="utf-8")
    assert "AF_INET" in compile_source(host_compiler(), check, build)


@pytest.mark.skipif(not is_glibc(), reason="the table has the values of glibc")
def test_a_platform_without_a_table_takes_the_headers_constants(build: Path) -> None:
    main = build / "main.cpp"
    main.write_text(
        """
        #include <cstdio>
        #include "constants/constants.hpp"
        int main() {
            for (const auto& constant : tracesock::constants::all())
                std::printf("%s %lld\\n", constant.name.data(),
                            static_cast<long long>(constant.value));
        }
        """,
        encoding="utf-8",
    )
    compiler = host_compiler()
    program = build / "list"
    assert compile_source(compiler, TABLE_SOURCE, build, "-DTRACESOCK_TABLE_HEADERS") == ""
    assert compile_source(compiler, main, build) == ""
    objects = [build / "constants.o", build / "main.o"]
    subprocess.run([*compiler, *objects, "-o", program], check=True)
    listing = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in (line.split() for line in listing.splitlines())}
    # Headers of Linux have names that belong to other platforms here, such as IPPROTO_L2TP.
    ours = {name: value for name, value in found.items() if name in _constants.__all__}
    assert len(ours) > 200
    assert ours == {name: int(getattr(_constants, name)) for name in ours}
