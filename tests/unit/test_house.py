"""The house law: the sizes and shapes that keep every file readable, held for `app/` and `bench/`.

Codebases do not rot in their median file but in their largest ones, so the tail is what is policed. A limit that is
exceeded asks for a look at the design; it is never raised.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSES = ("app", "bench")

MOST_LINES = 400
# Structs that mirror a wire format or a settings section are long lists, and splitting a list helps nobody.
MOST_LINES_OF_STRUCTS = 600
LISTS_OF_STRUCTS = {"wire.py", "settings.py"}
MOST_FUNCTION_LINES = 50
MOST_IMPORTS = 20
# Names that say nothing about what is inside.
FORBIDDEN = ("util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "base_")

# What is declared as one of these cannot be changed: the type checker refuses it.
READ_ONLY = {"Mapping", "Sequence", "Collection"}

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
CONTAINER = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
MAKES_STATE = {
    "list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict", "count", "Event", "Lock",
    "Semaphore", "Condition", "Queue", "WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "Random",
}  # fmt: skip
MUTATES = {
    "append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault", "add", "discard",
    "appendleft", "popleft", "sort", "reverse",
}  # fmt: skip


def breaches(name: str, text: str) -> Iterator[str]:
    """What `text`, the file called `name`, does against the law: a line each."""
    tree = ast.parse(text)
    yield from _name(Path(name))
    yield from _length(Path(name), text)
    yield from _functions(tree)
    yield from _imports(tree)
    yield from _state(tree)


def _name(path: Path) -> Iterator[str]:
    for part in (*path.parts[:-1], path.stem):
        if part in FORBIDDEN or part.startswith("base_"):
            yield f"{part!r} says nothing about what is inside"


def _length(path: Path, text: str) -> Iterator[str]:
    most = MOST_LINES_OF_STRUCTS if path.name in LISTS_OF_STRUCTS else MOST_LINES
    lines = len(text.splitlines())
    if lines > most:
        yield f"{lines} lines, at most {most}"


def _functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, FUNCTION):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > MOST_FUNCTION_LINES:
            yield f"line {node.lineno}: {node.name} has {lines} lines, at most {MOST_FUNCTION_LINES}"
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                yield f"line {inner.lineno}: an import inside {node.name}"
            elif isinstance(inner, ast.Global):
                yield f"line {inner.lineno}: {node.name} changes the globals {', '.join(inner.names)}"


def _imports(tree: ast.Module) -> Iterator[str]:
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    count = sum(not (isinstance(node, ast.ImportFrom) and node.module == "__future__") for node in imports)
    if count > MOST_IMPORTS:
        yield f"{count} imports, at most {MOST_IMPORTS}"


def _state(tree: ast.Module) -> Iterator[str]:
    """State that lives as long as the process: a container with a variable's name, an empty one, one that is filled."""
    containers: set[str] = set()
    aliases = dict(_aliases(tree))
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(annotation=kind) if _is_read_only(kind, aliases):
                continue
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        if name == "__all__" or not _is_mutable(value):
            continue
        containers.add(name)
        if _is_empty(value):
            yield f"line {node.lineno}: {name} is empty, so somebody means to fill it"
        elif name != name.upper():
            yield f"line {node.lineno}: {name} is mutable and not named as a constant"
    for node in ast.walk(tree):
        if (changed := _changed(node)) in containers:
            yield f"line {getattr(node, 'lineno', '?')}: {changed} is changed, and belongs to the module"


def _aliases(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        match node:
            case ast.AnnAssign(
                target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias"), value=ast.expr() as value
            ):
                yield name, value


def _is_read_only(kind: ast.expr, aliases: dict[str, ast.expr]) -> bool:
    match kind:
        case ast.Name(id=name) if name in aliases:
            return _is_read_only(aliases[name], aliases)
        case ast.Subscript(value=ast.Name(id=name)):
            return name in READ_ONLY
        case _:
            return False


def _is_mutable(value: ast.expr) -> bool:
    return isinstance(value, CONTAINER) or (isinstance(value, ast.Call) and _called(value) in MAKES_STATE)


def _is_empty(value: ast.expr) -> bool:
    match value:
        case ast.List(elts=[]) | ast.Dict(keys=[]):
            return True
        case ast.Call():
            return not value.args
        case _:
            return False


def _called(call: ast.Call) -> str | None:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(value=ast.Name(id=name)):
            return name
        case _:
            return None


def _changed(node: ast.AST) -> str | None:
    """The name whose container `node` changes."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if method in MUTATES:
            return name
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
            return name
        case ast.AugAssign(target=ast.Name(id=name)):
            return name
        case _:
            return None


@pytest.mark.parametrize("house", HOUSES)
def test_the_law_is_kept(house: str) -> None:
    files = sorted((ROOT / house).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(ROOT)}: {breach}"
        for path in files
        for breach in breaches(str(path.relative_to(ROOT)), path.read_text("utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("app/room/utils.py", "", "'utils' says nothing"),
        ("app/common/idea.py", "", "'common' says nothing"),
        ("app/room/base_client.py", "", "'base_client' says nothing"),
        ("app/room/idea.py", "x = 1\n" * 401, "401 lines, at most 400"),
        ("app/room/wire.py", "x = 1\n" * 601, "601 lines, at most 600"),
        ("a.py", "def f():\n" + "    x = 1\n" * 50, "f has 51 lines"),
        ("a.py", "class A:\n    async def f(self):\n" + "        x = 1\n" * 50, "f has 51 lines"),
        ("a.py", "def f():\n    import os\n", "an import inside f"),
        ("a.py", "def f():\n    global x\n    x = 1\n", "changes the globals x"),
        ("a.py", "".join(f"import a{n}\n" for n in range(21)), "21 imports"),
        ("a.py", "seen = {1: 2}\n", "seen is mutable"),
        ("a.py", "SEEN: dict[int, int] = {}\n", "SEEN is empty"),
        ("a.py", "Fields: TypeAlias = dict[int, int]\nSEEN: Fields = {}\n", "SEEN is empty"),
        ("a.py", "SEEN = defaultdict[int, int]()\n", "SEEN is empty"),
        ("a.py", "TABLE = {1: 2}\ndef f():\n    TABLE[3] = 4\n", "TABLE is changed"),
        ("a.py", "TABLE = [1]\ndef f():\n    TABLE.append(4)\n", "TABLE is changed"),
        ("a.py", "TABLE = [1]\nTABLE += [2]\n", "TABLE is changed"),
    ],
)
def test_a_breach_is_found(name: str, text: str, complaint: str) -> None:
    assert complaint in "\n".join(breaches(name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("app/room/settings.py", "x = 1\n" * 600),
        ("a.py", "from __future__ import annotations\n" + "".join(f"import a{n}\n" for n in range(20))),
        ("a.py", "TABLE = {1: 2}\ndef f():\n    return {**TABLE, 3: 4}\n"),
        ("a.py", "def f():\n    seen = []\n    seen.append(1)\n    return seen\n"),
        ("a.py", "__all__ = ['main']\n"),
        ("a.py", "NOTHING: Mapping[int, int] = {}\n"),
        ("a.py", "Fields: TypeAlias = Mapping[int, int]\nNOTHING: Fields = {}\n"),
        ("a.py", "def f():\n" + "    x = 1\n" * 49),
    ],
)
def test_what_is_lawful_is_left_alone(name: str, text: str) -> None:
    assert list(breaches(name, text)) == []
