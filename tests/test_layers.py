"""Imports go to lower layers only.

What is directly inside ``byzerllm`` (a file or a folder) has one level, and may import what has
a lower one; inside a folder anything goes. Imports in functions count, and so do plain calls of
``import_module``; those under ``if TYPE_CHECKING:`` do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "byzerllm"
SOURCE = Path(__file__).parent.parent / "src" / PACKAGE

LEVELS = {
    name: level
    for level, names in enumerate(
        [
            "types errors config",
            "templates messages math_answers prompts events sandbox params legacy capture portal",
            "structured engines saas training images models",
            "runtime human store",
            "client",
            "server cli testing __init__ __main__",
        ]
    )
    for name in names.split()
}
"""What is not named here is an old import path: aliases only, and nobody imports it."""

EDGES = {
    ("types", "errors"),  # a record that refuses bad values raises our errors
    ("templates", "messages"),  # a template lays out messages
    ("templates", "prompts"),  # a Template's formatters default to our prompt texts
    ("saas", "engines"),  # nearly all vendors are the OpenAI wire engine with a few words changed
    ("human", "store"),  # tickets outlive a restart
    ("__main__", "cli"),  # `python -m byzerllm` is the command
    ("__main__", "cli"),  # `python -m byzerllm` is the command
    ("cli", "server"),  # `byzerllm serve` starts it
}
"""Imports allowed beside those to lower levels, as (who imports, what)."""


def violations(source: Path) -> list[str]:
    """Every import and every definition in the tree that the rule forbids."""
    files = sorted(source.rglob("*.py"))
    return [problem for file in files for problem in check_file(source, file)]


def check_file(source: Path, file: Path) -> Iterator[str]:
    where = file.relative_to(source)
    unit = where.parts[0].removesuffix(".py")
    tree = ast.parse(file.read_text("utf-8"), str(file))
    if unit not in LEVELS:
        yield from check_aliases_only(where, tree)
        return
    for line, target in imports(tree, package_of(where)):
        other = unit_of(target, source)
        if other is None or other == unit or (unit, other) in EDGES:
            continue
        if other not in LEVELS:
            yield f"{where}:{line} imports {target}, an old import path: import the real place"
        elif LEVELS[other] >= LEVELS[unit]:
            yield (
                f"{where}:{line} imports {target}: "
                f"{unit} has level {LEVELS[unit]}, {other} has {LEVELS[other]}"
            )


def check_aliases_only(where: Path, tree: ast.Module) -> Iterator[str]:
    for node in definitions(tree):
        if node.name not in ("__getattr__", "__dir__"):
            yield (
                f"{where}:{node.lineno} defines {node.name}: an old import path holds aliases "
                "only, and a new module needs a level in tests/test_layers.py"
            )


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(node: ast.AST) -> Iterator[Definition]:
    """The outermost functions and classes below ``node``, under ``if`` and ``try`` too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield child
        else:
            yield from definitions(child)


def imports(node: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything of ours that is imported below ``node``."""
    match node:
        case ast.If() if is_type_checking(node.test):
            for statement in node.orelse:
                yield from imports(statement, package)
            return
        case ast.Import():
            names = [alias.name for alias in node.names]
        case ast.ImportFrom():
            base = absolute(node, package)
            # "from byzerllm import errors": what is imported is byzerllm.errors
            names = [f"{base}.{alias.name}" for alias in node.names] if base == PACKAGE else [base]
        case ast.Call(args=[first, *_]) if called_name(node) in ("import_module", "__import__"):
            names = [leading_text(first)]
        case _:
            names = []
    for name in names:
        if name.split(".")[0] == PACKAGE:
            yield node.lineno, name  # type: ignore[attr-defined]
    for child in ast.iter_child_nodes(node):
        yield from imports(child, package)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def absolute(node: ast.ImportFrom, package: tuple[str, ...]) -> str:
    """The module's full name, with the dots in front of it resolved."""
    if not node.level:
        return node.module or ""
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def called_name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def leading_text(argument: ast.expr) -> str:
    """The text an argument begins with: all of a literal, the first piece of an f-string."""
    if isinstance(argument, ast.JoinedStr) and argument.values:
        argument = argument.values[0]
    return str(argument.value) if isinstance(argument, ast.Constant) else ""


def package_of(where: Path) -> tuple[str, ...]:
    """The package whose ``.`` a file means."""
    return (PACKAGE, *where.parts[:-1])


def unit_of(target: str, source: Path) -> str | None:
    """What directly inside the package holds ``byzerllm.…``; the package itself is __init__."""
    _, _, rest = target.partition(".")
    first = rest.partition(".")[0]
    if not first or first.startswith("__"):
        return "__init__"
    if (source / first).is_dir() or (source / f"{first}.py").is_file():
        return first
    return "__init__"  # a name that the package's __init__ offers


def test_imports_go_to_lower_layers_only() -> None:
    assert violations(SOURCE) == []


def test_no_edge_is_left_over() -> None:
    for importer, imported in EDGES:
        assert LEVELS[importer] <= LEVELS[imported], f"{importer} may import {imported} anyway"


TREE = {
    "__init__.py": "from byzerllm.client import ByzerLLM",
    "errors.py": "",
    "messages.py": "from byzerllm.errors import ConfigError",
    "client/__init__.py": "from . import calls\nfrom .. import errors",
    "client/calls.py": "from ..runtime.pool import Pool",
    "runtime/pool.py": "from byzerllm import errors\nimport byzerllm.messages\nimport logging",
    "human/__init__.py": "from byzerllm.store import Store",
    "store/__init__.py": "",
    "utils/__init__.py": "from byzerllm.client import ByzerLLM\ndef __getattr__(name): ...",
}


def tree(folder: Path, **changed: str) -> Path:
    """Write the small made-up package above, with some files changed."""
    source = folder / PACKAGE
    for name, text in {**TREE, **changed}.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return source


def test_a_tree_that_keeps_the_rule_has_no_violations(tmp_path: Path) -> None:
    assert violations(tree(tmp_path)) == []


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("messages.py", "import byzerllm.client", "messages.py:1 imports byzerllm.client: "),
        ("messages.py", "from byzerllm import client", "messages.py:1 imports byzerllm.client: "),
        ("messages.py", "from byzerllm import ByzerLLM", "imports byzerllm.ByzerLLM: "),
        ("messages.py", "import byzerllm", "imports byzerllm: "),
        ("messages.py", "from .client import x", "imports byzerllm.client: "),
        ("messages.py", "from . import client", "imports byzerllm.client: "),
        ("messages.py", "def f():\n    from .client import x", "messages.py:2 imports"),
        ("messages.py", "import_module('byzerllm.client')", "imports byzerllm.client: "),
        ("messages.py", "importlib.import_module(f'byzerllm.client.{x}')", "byzerllm.client.: "),
        ("messages.py", "if TYPE_CHECKING:\n  pass\nelse:\n  from .client import x", ":4 imports"),
        ("errors.py", "from byzerllm import config", "imports byzerllm.config: "),
        ("runtime/pool.py", "from ..human import x", "runtime has level 3, human has 3"),
        ("store/__init__.py", "from byzerllm.human import x", "imports byzerllm.human: "),
        ("client/calls.py", "from byzerllm.utils import x", "an old import path"),
        ("utils/__init__.py", "try:\n  import x\nexcept E:\n  def f(): ...", ":4 defines f"),
        ("extra.py", "class Extra: ...", "extra.py:1 defines Extra"),
        ("messages.py", "if TYPE_CHECKING:\n  from .client import x", None),
        ("messages.py", "import byzerllm_other", None),
        ("extra.py", "from byzerllm.client import x\n__all__ = ['x']", None),
    ],
)
def test_a_forbidden_import_is_found(
    tmp_path: Path, file: str, text: str, problem: str | None
) -> None:
    found = violations(tree(tmp_path, **{file: text, "config.py": ""}))

    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]
