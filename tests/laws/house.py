"""How the laws read the house: its files, and what each imports. No law is stated here.

Imports are taken from the syntax tree, so one inside a function or under `TYPE_CHECKING` counts like any other.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "maskplay"


def files(package: Path) -> list[Path]:
    """Every Python file under a package folder, in order."""
    return sorted(package.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path, package: Path) -> str:
    """`layers/norm.py` -> "layers.norm"; the package's own `__init__.py` -> "" ."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """The package's own modules that a file imports, as `(line, "layers.norm")`; "" is the package itself.

    `from package.layers import norm` names the module `layers.norm` where there is such a file, else `layers`.
    """
    known = {name_of(file, package) for file in files(package)}
    here = [package.name, *path.relative_to(package).with_suffix("").parts]

    def inside(dotted: str) -> str | None:
        return dotted.removeprefix(package.name).lstrip(".") if dotted.split(".")[0] == package.name else None

    for node in ast.walk(tree(path)):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(here[: len(here) - node.level]) if node.level else ""
            origin = ".".join(part for part in (start, node.module) if part)
            deeper = [f"{origin}.{alias.name}" for alias in node.names]
            targets = sorted({full if inside(full) in known else origin for full in deeper})
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            targets = [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        for target in targets:
            module = inside(target)
            if module is not None:
                yield node.lineno, module


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def house(folder: Path, **sources: str) -> Path:
    """A small house for a negative control: `house(tmp_path, layers__norm="import os")` writes layers/norm.py."""
    package = folder / "maskplay"
    for name, source in sources.items():
        path = package / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    (package / "__init__.py").touch()
    return package
