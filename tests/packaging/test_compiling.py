"""What mypyc compiles wrongly without a word, or what fails only once it runs, found in the source by its syntax."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from llmgw_packaging.compiling import COMPILED, PACKAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

ALLOWED = frozenset({"Exception", "ValueError", "typing.Generic", "typing.Protocol"})
"""Bases from outside whose objects a native class may extend: mypyc knows how they lie in memory."""
STRUCT = "msgspec.Struct"
CALLABLE = "collections.abc.Callable"
LEAVE = "or take {module} out of COMPILED (packaging/llmgw_packaging/compiling.py)"


def imported(tree: ast.Module) -> dict[str, str]:
    """By the name that a module uses, what it imported under it, with the module that it came from."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.asname or each.name: each.name for each in node.names}
    return found


def bases(tree: ast.Module, module: str) -> Iterator[tuple[ast.ClassDef, list[str]]]:
    """Each class with the full names of what it inherits from; a parameter such as `[T]` is left out."""
    names = imported(tree)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names |= {each.name: f"{module}.{each.name}" for each in classes}
    for node in classes:
        found = []
        for base in node.bases:
            stated = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
            first, dot, rest = stated.partition(".")
            found.append(f"{names.get(first, first)}{dot}{rest}")
        yield node, found


def members(tree: ast.Module, module: str) -> Iterator[tuple[str, str, str]]:
    """Class, member and type of what dataclasses hold whose type is imported for checking alone."""
    names = imported(ast.Module([each for each in tree.body if isinstance(each, ast.If)], []))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(each) for each in node.decorator_list):
            for each in node.body:
                if isinstance(each, ast.AnnAssign):
                    stated = each.annotation.value if isinstance(each.annotation, ast.Subscript) else each.annotation
                    if (name := ast.unparse(stated)) in names:
                        yield f"{module}.{node.name}", ast.unparse(each.target), names[name]


def waits(node: ast.AST) -> Iterator[int]:
    """The lines in which it waits itself; functions in it wait for themselves."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield each.lineno
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from waits(each)


def waiting_faults(tree: ast.Module, module: str) -> list[str]:
    """A compiled coroutine forgets what it handles while it waits, and raises something else then, or crashes."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            first = min(waits(node), default=None)
            raised = [each.lineno for each in ast.walk(node) if isinstance(each, ast.Raise) and each.exc is None]
            if first is not None and any(line > first for line in raised):
                found.append(f"{module} waits in line {first}, in a handler that raises again after it")
        elif isinstance(node, ast.Try):
            found += [
                f"{module} waits in line {line}, in a finally"
                for each in node.finalbody
                for line in waits(ast.Module([each], []))
            ]
    return [f"{each}: wait after it, {LEAVE.format(module=module)}" for each in found]


def member_faults(modules: Mapping[str, str], compiled: Collection[str]) -> list[str]:
    """Members of compiled dataclasses whose class is not there when the module is loaded; aliases are not looked up."""
    ours = {f"{module}.{node.name}" for module, text in modules.items() for node, _ in bases(ast.parse(text), module)}
    return [
        f"{where} has the member {member} of {kind}, which is imported for checking alone, but looked up when the "
        f"module is loaded. Import it always (`# noqa: TC001 -- mypyc looks it up`), {LEAVE.format(module=module)}"
        for module in sorted(compiled)
        for where, member, kind in members(ast.parse(modules.get(module, "")), module)
        if kind in ours or (kind != CALLABLE and kind.rpartition(".")[0] not in modules)
    ]


def faults(modules: Mapping[str, str], compiled: Collection[str]) -> list[str]:
    """What must not be: one sentence each. `modules` are texts by full name, `compiled` the names that mypyc gets."""
    found = member_faults(modules, compiled)
    for module in sorted(compiled):
        found += waiting_faults(ast.parse(modules.get(module, "")), module)
    for module, text in modules.items():
        for node, inherited in bases(ast.parse(text), module):
            where = f"{module}.{node.name}"
            for base in inherited:
                native = base.rpartition(".")[0] in compiled
                if module not in compiled and native:
                    found.append(
                        f"{where} inherits from {base}, which is compiled, and would fail when it is made. Hold one "
                        f"instead, add {module} to COMPILED, {LEAVE.format(module=base.rpartition('.')[0])}"
                    )
                elif module in compiled and base == STRUCT:
                    found.append(
                        f"{where} is a Struct, which mypyc makes an ordinary class. Move it to a module that is not "
                        f"compiled, {LEAVE.format(module=module)}"
                    )
                elif module in compiled and not native and base not in ALLOWED:
                    found.append(
                        f"{where} inherits from {base}, which is not compiled: the layouts of the two may collide, and "
                        f"the process with them. Hold one instead, {LEAVE.format(module=module)}"
                    )
            if module in compiled and node.keywords:
                stated = ", ".join(ast.unparse(each) for each in node.keywords)
                found.append(
                    f"{where} is defined with {stated}, which mypyc drops. Say it otherwise, "
                    f"move the class to a module that is not compiled, {LEAVE.format(module=module)}"
                )
    return found


def test_no_class_is_one_that_mypyc_gets_wrong() -> None:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    modules = {name: path.read_text(encoding="utf-8") for path, name in names.items()}
    compiled = {f"llmgw_gateway.{each.replace('/', '.')}" for each in COMPILED}
    found = faults(modules, compiled)
    assert not found, "\n".join(found)


def test_every_module_that_is_compiled_is_a_file_and_they_are_sorted() -> None:
    gone = [each for each in COMPILED if not (ROOT / "llmgw_gateway" / f"{each}.py").is_file()]
    assert not gone, (
        f"no files of llmgw_gateway: {gone}. Take them out of COMPILED, or name them as they are called now"
    )
    assert list(COMPILED) == sorted(set(COMPILED)), (
        "sort COMPILED, each name once, so that two changes meet in one line"
    )


NATIVE = "class Native:\n    pass\n"
CHECKED = "if TYPE_CHECKING:\n    from collections.abc import"
TRIED = "async def f():\n    try:\n        await g()\n    "
MEMBER = "\n@dataclass(frozen=True)\nclass X:\n    a:"


@pytest.mark.parametrize(
    ("fast", "slow", "said"),
    [
        ("from collections import OrderedDict\nclass X(OrderedDict[str, int]): ...", "", "X inherits from collections"),
        ("import collections\nclass X(collections.OrderedDict): ...", "", "X inherits from collections.OrderedDict"),
        ("class X(dict): ...", "", "fast.X inherits from dict, which is not compiled"),
        ("from slow import Y\nclass X(Y): ...", "class Y: ...", "fast.X inherits from slow.Y, which is not compiled"),
        ("from msgspec import Struct\nclass X(Struct): ...", "", "fast.X is a Struct"),
        ("import msgspec as m\nclass X(m.Struct): ...", "", "fast.X is a Struct"),
        ("class X(Native, frozen=True): ...", "", "fast.X is defined with frozen=True"),
        ("def f():\n    class X(metaclass=M): ...", "", "fast.X is defined with metaclass=M"),
        (f"{CHECKED} Sequence{MEMBER} Sequence[int]", "", "fast.X has the member a of collections.abc.Sequence"),
        (
            f"if TYPE_CHECKING:\n    from slow import Y{MEMBER} Y",
            "class Y: ...",
            "fast.X has the member a of slow.Y",
        ),
        (
            f"{TRIED}except OSError:\n        await g()\n        raise",
            "",
            "fast waits in line 7, in a handler that raises",
        ),
        (f"{TRIED}finally:\n        async with g(): ...", "", "fast waits in line 7, in a finally"),
        ("", "from fast import Native\nclass Y(Native): ...", "slow.Y inherits from fast.Native, which is compiled"),
        ("", "from fast import Native as N\nclass Y(N[int]): ...", "slow.Y inherits from fast.Native"),
        ("", "import fast\nclass Y(fast.Native): ...", "slow.Y inherits from fast.Native, which is compiled"),
    ],
)
def test_each_of_them_is_found(fast: str, slow: str, said: str) -> None:
    (found,) = faults({"fast": NATIVE + fast, "slow": slow}, {"fast"})
    assert said in found
    assert "COMPILED" in found


@pytest.mark.parametrize(
    "fast",
    [
        "from typing import Generic, Protocol\nclass X(Generic[T]): ...\nclass Y(Protocol): ...",
        "class X(Exception): ...\nclass Y(ValueError): ...",
        "class X(Native): ...",
        f"{TRIED}except OSError:\n        if x:\n            raise\n        await g()",
        f"{CHECKED} Callable, Sequence{MEMBER} Callable[[], None]\n    b: Sequence[int] | None",
        f"from collections.abc import Sequence{MEMBER} Sequence[int]",
        f"if TYPE_CHECKING:\n    from slow import Alias{MEMBER} Alias",
    ],
)
def test_what_works_is_let_be(fast: str) -> None:
    slow = "from msgspec import Struct\nclass Native(Struct, frozen=True): ...\nclass Z(Native): ..."
    slow += "\nAlias = Literal[1]"
    assert faults({"fast": NATIVE + fast, "slow": slow}, {"fast"}) == []
