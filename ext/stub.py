"""Make tracesock/_native.pyi of the extension and ext/signatures.pyi.

stub.py             write the stub
stub.py --check     fail if it is not what this would write

nanobind knows the types of what it binds. What is a PyMethodDef has its types in signatures.pyi,
which also refines what nanobind can only call a tuple or a dict. Every name that the extension has
must have types in one of the two, and signatures.pyi may have no name that the extension has not.
The submodules, which are bound when they are first named, are classes of static methods here: a
type checker knows no other module inside a module that is no package.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODULE = "tracesock._native"
STUB = ROOT / "tracesock" / "_native.pyi"
SIGNATURES = ROOT / "ext" / "signatures.pyi"
PARTS = ROOT / "ext" / "module.cpp"
HEADER = "# Made by ext/stub.py of the extension and ext/signatures.pyi.\n"
LINE_LENGTH = 100  # of pyproject.toml

# What nanobind says of a container that the code did not describe.
BARE = {
    "list": "list[Any]",
    "tuple": "tuple[Any, ...]",
    "dict": "dict[Any, Any]",
    "Callable": "Callable[..., Any]",
}


class StubError(Exception):
    """The extension and its types do not agree."""


Declarations = dict[str, list[ast.stmt]]  # a name has several where it is overloaded


def late_names() -> list[str]:
    """What the module binds when it is first named: ext/module.cpp lists it."""
    names = re.findall(r'Part\{"(\w+)"', PARTS.read_text(encoding="utf-8"))
    if not names:
        raise StubError(f"{PARTS.name}: no list of the parts that are bound late")
    return names


def public(name: str) -> bool:
    return not (name.startswith("__") and name.endswith("__"))


def runtime_names(owner: object) -> list[str]:
    """The names of a module or class, in the order of their definition, without special ones."""
    names = [name for name in vars(owner) if public(name)]
    if isinstance(owner, ModuleType):
        if owner.__name__ == MODULE:
            names += [name for name in late_names() if name not in names]
            names.append("__version__")
        names.sort(key=lambda name: isinstance(getattr(owner, name), ModuleType))
    return names


def declared(statements: list[ast.stmt]) -> Declarations:
    found: Declarations = {}
    for statement in statements:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.setdefault(name, []).append(statement)
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = [statement]
    return found


def imports(statements: list[ast.stmt]) -> list[ast.stmt]:
    return [
        statement
        for statement in statements
        if isinstance(statement, ast.Import)
        or (isinstance(statement, ast.ImportFrom) and statement.module != MODULE)
    ]


class _Parametrise(ast.NodeTransformer):
    """Parameters for generic types that have none."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        node.slice = self.visit(node.slice)
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(BARE[node.id], mode="eval").body if node.id in BARE else node


def documentation(thing: object, indent: int) -> list[ast.stmt]:
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    first, _, rest = text.partition("\n\n")
    if re.match(r"\w*\(.*\) ?", first):
        text = rest  # without the signature
    if not text or isinstance(thing, (int, str, tuple, dict)):
        return []
    width = LINE_LENGTH - indent - len('""""""')
    filled = "\n\n".join(
        paragraph
        if all(len(line) <= width for line in paragraph.splitlines())
        else "\n".join(textwrap.wrap(paragraph, width))
        for paragraph in text.split("\n\n")
    )
    if "\n" in filled:
        filled += "\n"
    return [ast.Expr(ast.Constant(textwrap.indent(filled, " " * indent).strip(" ")))]


def check_parameters(name: str, thing: Any, statements: list[ast.stmt]) -> None:
    """A signature that the extension tells of must be the one in signatures.pyi."""
    if getattr(thing, "__text_signature__", None) is None:
        return
    try:
        own = inspect.signature(thing)
    except ValueError:
        return
    function = statements[0]
    assert isinstance(function, ast.FunctionDef)
    namespace: dict[str, Any] = {}
    bare = ast.FunctionDef(function.name, function.args, [ast.Pass()], [], lineno=1)
    exec("from __future__ import annotations\n" + ast.unparse(bare), namespace)
    written = inspect.signature(namespace[function.name])
    if [(p.name, p.kind, p.default) for p in own.parameters.values()] != [
        (p.name, p.kind, p.default) for p in written.parameters.values()
    ]:
        raise StubError(f"{name}{written} in {SIGNATURES.name} is {name}{own} in the extension")


def merged(
    owner: object, nanobind: list[ast.stmt], table: list[ast.stmt], where: str, indent: int
) -> list[ast.stmt]:
    """A declaration of every name of `owner`, the table's where it has one."""
    ours, theirs = declared(table), declared(nanobind)
    names = runtime_names(owner)
    special = [
        name
        for name in dict.fromkeys([*ours, *theirs])
        if not public(name) and name not in names and not isinstance(owner, ModuleType)
    ]
    for name in ours:
        if name not in (*names, *special) and not name.startswith("_"):
            raise StubError(f"{SIGNATURES.name}: the extension has no {where}{name}")
    result: list[ast.stmt] = []
    for name in special + names:
        thing = getattr(owner, name, None)
        if isinstance(thing, ModuleType):
            result.append(submodule(name, thing, ours.get(name, []), indent))
            continue
        statements = ours.get(name) or theirs.get(name)
        if statements is None or (name not in ours and untyped(statements)):
            raise StubError(f"{where}{name} has no types: write them into {SIGNATURES.name}")
        if isinstance(statements[0], ast.ClassDef):
            inner = statements[0]
            other = [each for each in theirs.get(name, []) if isinstance(each, ast.ClassDef)]
            table_body = inner.body if name in ours else []
            nanobind_body = other[0].body if other else []
            body = merged(thing, nanobind_body, table_body, f"{where}{name}.", indent + 4)
            inner.body = [*documentation(thing, indent + 4), *body]
        elif isinstance(statements[0], ast.FunctionDef):
            if name in ours and isinstance(owner, ModuleType):
                check_parameters(where + name, thing, statements)
            for statement in statements:
                assert isinstance(statement, ast.FunctionDef)
                last = statement is statements[-1]
                doc = documentation(thing, indent + 4) if last and public(name) else []
                statement.body = doc or [ast.Expr(ast.Constant(...))]
        else:
            assert isinstance(statements[0], ast.AnnAssign)
            statements[0].value = None
        result += statements
    return result


def untyped(statements: list[ast.stmt]) -> bool:
    match statements:
        case [ast.FunctionDef(returns=None)]:
            return True
        case [ast.FunctionDef(args=ast.arguments(vararg=ast.arg()))]:
            return True
        case [ast.AnnAssign(annotation=ast.Name(id=kind) | ast.Attribute(attr=kind))]:
            return kind in ("TypeAlias", "MethodDescriptorType", "getset_descriptor")
    return False


def submodule(name: str, module: ModuleType, table: list[ast.stmt], indent: int) -> ast.stmt:
    entry = table[0].body if table and isinstance(table[0], ast.ClassDef) else []
    body = merged(module, generated(module), entry, f"{name}.", indent + 4)
    for statement in body:
        if isinstance(statement, ast.FunctionDef) and not statement.decorator_list:
            statement.decorator_list = [ast.Name("staticmethod")]
    doc = documentation(module, indent + 4)
    statement = ast.parse(f"class {name}: ...").body[0]
    assert isinstance(statement, ast.ClassDef)
    statement.body = [*doc, *body]
    return statement


def generated(module: ModuleType) -> list[ast.stmt]:
    from nanobind.stubgen import StubGen  # type: ignore[import-untyped]

    generator = StubGen(module, include_docstrings=False)
    generator.put(module)
    tree = ast.parse(generator.get())
    return [_Parametrise().visit(statement) for statement in tree.body]


def stub() -> str:
    """The text of the stub. StubError where a name lacks types or is none."""
    module = importlib.import_module(MODULE)
    for name in late_names():
        getattr(module, name)
    table = ast.parse(SIGNATURES.read_text(encoding="utf-8")).body
    own = generated(module)
    submodules = [thing for thing in vars(module).values() if isinstance(thing, ModuleType)]
    needed = imports(table) + imports(own)
    for each in submodules:
        needed += imports(generated(each))
    aliases = [
        statement
        for statement in table
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.annotation) == "TypeAlias"
    ]
    declarations = [statement for statement in table if statement not in aliases]
    body = merged(module, own, declarations, "", 0)
    tree = ast.Module([*needed, *aliases, *body], type_ignores=[])
    text = HEADER + ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    text = _ruff(text, "check", "--quiet", "--fix", "--select", "I,F401,F811")
    return _ruff(text, "format", "--quiet")


def _ruff(text: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(STUB), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise StubError(f"ruff {arguments[0]}: {done.stdout}{done.stderr}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the stub of the extension.")
    parser.add_argument("--check", action="store_true", help="fail if the stub is stale")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT))
    try:
        text = stub()
    except StubError as error:
        print(f"stub.py: {error}", file=sys.stderr)
        return 1
    if not options.check:
        STUB.write_text(text, encoding="utf-8")
    elif not STUB.exists() or STUB.read_text(encoding="utf-8") != text:
        print(f"stub.py: {STUB.relative_to(ROOT)} is stale: run ext/stub.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
