"""The house rules, read off the syntax trees: arrows one way, pure core, one place that prints, small pieces."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "sweeper"
FILES = sorted(ROOT.rglob("*.py"))

# group -> (its modules, the groups that it may import besides itself)
GROUPS: dict[str, tuple[set[str], set[str]]] = {
    "base": ({"errors", "result", "nearest"}, set()),
    "model": (
        {
            "schemas", "reading", "planning", "nodes", "workflow", "template", "values", "expressions", "axes",
            "experiment", "planner", "slots", "trial",
        },
        {"base"},
    ),
    "comfy": ({"comfy"}, {"base", "model"}),
    "store": ({"store"}, {"base", "model"}),
    "pictures": ({"metrics", "images", "comparing"}, {"base", "store"}),
    "loading": ({"loading"}, {"base", "model", "pictures"}),
    "table": ({"table", "formats", "grouping"}, {"base", "model", "store", "loading"}),
    "embedded": ({"embedded"}, {"base"}),
    "reporting": ({"reporting"}, {"base", "model", "store", "pictures", "table", "loading"}),
    "catalogue": ({"catalogue"}, {"base", "model", "comfy", "embedded"}),
    "runner": (
        {"runner", "running"},
        {"base", "model", "comfy", "store", "pictures", "loading", "table", "embedded", "catalogue"},
    ),
    "regression": (
        {"regression"},
        {"base", "model", "comfy", "store", "pictures", "loading", "table", "embedded", "catalogue", "runner"},
    ),
    "cluster": (
        {"cluster"},
        {
            "base", "model", "comfy", "store", "pictures", "loading", "table", "embedded", "catalogue", "runner",
            "regression",
        },
    ),
    "viewing": ({"viewing"}, {"base", "model", "store", "pictures", "table", "loading", "reporting", "runner"}),
    "doors": (
        {"cli", "__main__", "pytest_plugin"},
        {
            "base", "model", "comfy", "store", "pictures", "loading", "table", "embedded", "catalogue", "runner",
            "reporting", "regression", "viewing", "cluster",
        },
    ),
}  # fmt: skip
IMPURE = {
    "aiohttp", "asyncio", "glob", "httpx", "os", "pandas", "random", "shutil", "socket", "sqlite3", "subprocess",
    "tempfile", "threading", "time", "uuid",
}  # fmt: skip


ERRORS = ROOT / "errors.py"


def group_of(module: str) -> str:
    return next(name for name, (modules, _) in GROUPS.items() if module in modules)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> list[str]:
    """Every module that a file imports, in functions too."""
    names = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names += [node.module] if node.module != "sweeper" else [f"sweeper.{alias.name}" for alias in node.names]
    return names


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


INSIDE = [path for path in FILES if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", INSIDE, ids=short)
def test_imports_go_one_way(path: Path) -> None:
    own = group_of(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    allowed = {own} | GROUPS[own][1]
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "sweeper" and rest and not rest.startswith("__"):
            used = group_of(rest.split(".")[0])
            assert used in allowed, f"{short(path)} ({own}) imports {name} ({used})"


def test_no_module_belongs_to_two_groups() -> None:
    modules = [module for names, _ in GROUPS.values() for module in names]
    assert len(modules) == len(set(modules))


PURE = [path for path in INSIDE if group_of(path.relative_to(ROOT).parts[0].removesuffix(".py")) in ("base", "model")]


@pytest.mark.parametrize("path", PURE, ids=short)
def test_the_model_is_pure(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & IMPURE
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id == "open")
            assert not (
                isinstance(node.func, ast.Attribute) and node.func.attr in ("read_bytes", "write_text", "unlink")
            )


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.relative_to(ROOT).parts[0] not in ("cli", "__main__.py")], ids=short
)
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "sys.exit", "exit", "quit", "os._exit"), f"{short(path)}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in ("sys.stdout", "sys.stderr"), f"{short(path)}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=short)
def test_files_and_functions_are_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    assert ast.get_docstring(tree(path)), "every module says what lives there"
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{short(path)}:{node.lineno} {node.name} has {length} lines"


def test_of_all_that_serves_one_module_waits_for_signals() -> None:
    serving = [path for path in FILES if short(path).startswith(("cli/", "embedded/", "viewing/"))]
    assert [short(path) for path in serving if "signal" in imported(path)] == ["cli/stopping.py"]


def test_every_error_is_raised_somewhere() -> None:
    classes = {node.name: node for node in ast.walk(tree(ERRORS)) if isinstance(node, ast.ClassDef)}
    bases = {base.id for node in classes.values() for base in node.bases if isinstance(base, ast.Name)}
    called = {
        node.func.id
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert set(classes) - bases - {"Problem"} <= called


def test_the_words_of_error_type_are_written_in_one_place() -> None:
    from sweeper import errors

    words = {value for name, value in vars(errors).items() if name.endswith("_ERROR")}
    assert "TimedOutError" in words
    assert [
        f"{short(path)}:{node.lineno}: {node.value}"
        for path in FILES
        if path != ERRORS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in words
    ] == []
