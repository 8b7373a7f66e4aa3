"""The house rules, read from the syntax trees: imports one way, pure core, one place that prints, plain names."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent / "sweeper"
FILES = sorted(ROOT.rglob("*.py"))

IMPURE = {
    "asyncio", "glob", "httpx", "os", "pandas", "random", "shutil", "socket", "sqlite3", "subprocess",
    "tempfile", "threading", "time", "uuid",
}  # fmt: skip


ERRORS = ROOT / "errors.py"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree(path)))


def imported(path: Path) -> list[str]:
    """Every module that a file imports, in functions too."""
    names = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names += [node.module] if node.module != "sweeper" else [f"sweeper.{alias.name}" for alias in node.names]
    return names


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_imports_go_one_way_and_in_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    # It would disable every logger that exists by now, and later tests could not see what is logged.
    monkeypatch.setattr("logging.config.dictConfig", lambda _config: None)
    assert lint_imports(config_filename=str(ROOT.parent / "pyproject.toml"), no_cache=True) == 0


def test_the_model_is_pure() -> None:
    found = []
    for path in FILES:
        if short(path).split("/")[0] not in ("model", "planning", "schemas", "errors.py", "wording.py"):
            continue
        found += [f"{short(path)}: imports {name}" for name in imported(path) if name.split(".")[0] in IMPURE]
        for function in (node.func for node in nodes(path) if isinstance(node, ast.Call)):
            opens = isinstance(function, ast.Name) and function.id == "open"
            if opens or (
                isinstance(function, ast.Attribute) and function.attr in ("read_bytes", "write_text", "unlink")
            ):
                found.append(f"{short(path)}:{function.lineno}: {ast.unparse(function)}")
    assert found == []


def test_only_the_command_line_prints_and_exits() -> None:
    found = []
    for path in FILES:
        if short(path).split("/")[0] in ("cli", "__main__.py"):
            continue
        for node in nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
                wrong, name = ("print", "sys.exit", "exit", "quit", "os._exit"), dotted_name(node.func)
            elif isinstance(node, ast.Attribute):
                wrong, name = ("sys.stdout", "sys.stderr"), dotted_name(node)
            else:
                continue
            if name in wrong:
                found.append(f"{short(path)}:{node.lineno}: {name}")
    assert found == []


def dotted_name(node: ast.expr) -> str:
    """`a` or `a.b` of such an expression; empty for any other."""
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(ast.Name(owner), name):
            return f"{owner}.{name}"
    return ""


def test_files_and_functions_are_small_and_say_what_they_are() -> None:
    found = []
    for path in FILES:
        lines = path.read_text("utf-8").count("\n")
        found += [f"{short(path)}: {lines} lines"] if lines > 500 else []
        found += [] if ast.get_docstring(tree(path)) else [f"{short(path)}: does not say what lives there"]
        for node in nodes(path):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                found += [f"{short(path)}:{node.lineno}: {node.name} has {length} lines"] if length > 60 else []
    assert found == []


def test_whoever_opens_a_picture_or_film_names_the_formats() -> None:
    """Otherwise Pillow starts Ghostscript for PostScript, and FFmpeg reads the files that a list names."""
    wanted = {"Image.open": "formats=PICTURE_FORMATS", "av.open": "options=FILM_OPTIONS"}
    found = []
    for path in FILES:
        for node in (node for node in nodes(path) if isinstance(node, ast.Call)):
            name = ast.unparse(node.func).replace("_import_av()", "av").replace("load_av()", "av")
            given = {ast.unparse(keyword) for keyword in node.keywords}
            if name in wanted and wanted[name] not in given and "mode='w'" not in given:
                found.append(f"{short(path)}:{node.lineno}: without {wanted[name]}")
            elif name.endswith((".ImageFile.Parser", "Image.init", "PIL.Image.open", "container.open")):
                found.append(f"{short(path)}:{node.lineno}: {name}")
    imports = [(path, name) for path in FILES for name in imported(path) if name.startswith(("PIL.Image.", "av."))]
    assert [*found, *imports] == []


def test_of_all_that_serves_one_module_waits_for_signals() -> None:
    serving = [
        path
        for path in FILES
        if short(path).startswith(("cli/", "embedded/", "reporting/live/", "serving/", "voting/"))
    ]
    assert [short(path) for path in serving if "signal" in imported(path)] == ["cli/wait_for_signal.py"]


def test_every_error_is_raised_somewhere() -> None:
    classes = {node.name: node for node in ast.walk(tree(ERRORS)) if isinstance(node, ast.ClassDef)}
    bases = {base.id for node in classes.values() for base in node.bases if isinstance(base, ast.Name)}
    called = {
        node.func.id
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert set(classes) - bases - {"Problem", "Trouble"} <= called


def test_the_words_of_error_type_are_written_in_one_place() -> None:
    from sweeper import errors

    words = {value for name, value in vars(errors).items() if name.endswith("_ERROR")}
    assert "TimedOutError" in words
    assert [
        f"{short(path)}:{node.lineno}: {node.value}"
        for path in FILES
        if path != ERRORS
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in words
    ] == []


def test_no_public_class_name_stands_twice() -> None:
    names = Counter(
        node.name
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_module_name_stands_twice() -> None:
    """A command may share the name of the module that does its work: `cli/commands/run.py` and `running/run.py`."""
    names = Counter(path.stem for path in FILES if not short(path).startswith("cli/commands/"))
    del names["__init__"]
    assert [name for name, count in names.items() if count > 1] == []


# Participles and the like, which name values. Functions are verbs.
PARTICIPLE = re.compile(
    r"(?!feed|seed|embed|proceed|exceed|need|shed)[a-z]+ed|told|kept|held|shown|made|given|taken|sent|found|left|at|said|"
    r"known|seen|written|drawn|gone|done|built|brought|met|heard|lost|whole|twice|alone|elsewhere"
)
PUBLIC_PARTICIPLES = {"written", "reordered"}  # of `sweeper.Plan`, which users call


def test_functions_are_verbs() -> None:
    """Outside the nodes and the painter, whose functions bear ComfyUI's names and those of formulas."""
    assert [
        f"{short(path)}:{node.lineno}: {node.name}"
        for path in FILES
        if not short(path).startswith(("embedded/nodes/", "embedded/diffusion/"))
        for node in nodes(path)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name not in PUBLIC_PARTICIPLES
        and PARTICIPLE.fullmatch(node.name.strip("_").split("_")[0])
        and not any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
    ] == []


def test_the_doors_load_no_experiment_with_everything_that_it_names() -> None:
    """`load` and `load_template` trust their caller's file. A command's file may be a stranger's, so it has a scope."""
    assert [
        f"{short(path)}: {name.name}"
        for path in FILES
        if short(path).startswith(("cli/", "reporting/", "tables/", "voting/"))
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module == "sweeper.loading.load"
        for name in node.names
        if name.name == "load" or (name.name == "load_template" and short(path) != "cli/trust_check.py")
    ] == []


def test_the_package_has_at_most_24_names_at_its_top() -> None:
    """So that `ls sweeper` tells the story: folders and modules, without what Python asks for and without README.md."""
    names = {path.name for path in ROOT.iterdir() if path.suffix in (".py", "") and path.name != "__pycache__"}
    assert len(names - {"__init__.py", "__main__.py"}) <= 24
