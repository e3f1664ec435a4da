"""What functions declare of their arguments, read from their source: nothing is imported.

`epochs: Annotated[int, ">= 0"]` is where the range of a number stands; so it can be checked before
torch is loaded, which takes seconds.
"""

import ast
import sys
from functools import cache
from pathlib import Path

Definition = ast.FunctionDef | ast.ClassDef


@cache
def arguments_of(target: str) -> dict[str, str]:
    """Read the annotations of a function, or of a class's fields or `__init__`.

    Args:
        target: Its name with its module.

    Returns:
        Annotation of each argument as text; none of what is made otherwise, or cannot be read.
    """
    found = _definition(target)
    if found is None:
        return {}
    node, module = found
    if isinstance(node, ast.ClassDef):
        return _of_class(node, module)
    return _forwarded(node, module) | _arguments(node)


def docstring_of(target: str) -> str:
    """Read the docstring of a function or class, and of its `__init__`; "" if it has none."""
    found = _definition(target)
    if found is None:
        return ""
    node, _ = found
    parts = [node, *(each for each in node.body if getattr(each, "name", "") == "__init__")]
    return "\n".join(ast.get_docstring(each) or "" for each in parts)  # type: ignore[arg-type]


def _definition(target: str, via: tuple[str, ...] = ()) -> tuple[Definition, str] | None:
    """Find where something is written, and in which module; also through those that import it."""
    module, _, name = target.rpartition(".")
    file = next(filter(None, (_file_of(Path(root), module) for root in sys.path)), None)
    if file is None or target in via:
        return None
    for node in _tree(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, module
        if source := _imported_from(node, module, name, file):
            return _definition(source, (*via, target))
    return None


def _imported_from(node: ast.stmt, module: str, name: str, file: Path) -> str | None:
    """Say what a name is called where it comes from, if this statement imports it."""
    if not isinstance(node, ast.ImportFrom):
        return None
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    source = ".".join([*parts, *([node.module] if node.module else [])])
    found = [each.name for each in node.names if (each.asname or each.name) == name]
    return f"{source}.{found[0]}" if found and source and source != module else None


def _file_of(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    options = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in options if module and file.is_file()), None)


@cache
def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):  # told where it is imported
        return ast.Module([], [])


def _arguments(node: ast.FunctionDef) -> dict[str, str]:
    every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return {each.arg: ast.unparse(each.annotation) for each in every if each.annotation}


def _forwarded(node: ast.FunctionDef, module: str) -> dict[str, str]:
    """Read what a function takes for another, which it calls with its own `**numbers`."""
    rest, found = node.args.kwarg, dict[str, str]()
    for call in ast.walk(node) if rest else ():
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            given = [ast.unparse(each.value) for each in call.keywords if each.arg is None]
            if rest and rest.arg in given:
                found |= arguments_of(f"{module}.{call.func.id}")
    return found


def _of_class(node: ast.ClassDef, module: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in node.bases:
        if isinstance(base, ast.Name):
            found |= arguments_of(f"{module}.{base.id}")
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            found[each.target.id] = ast.unparse(each.annotation)
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            found |= _arguments(each)
    return found
