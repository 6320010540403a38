"""What a source file may hold: its size and name, and three things that stay in one place each."""

import ast
from pathlib import Path

import pytest

from laws.house import PACKAGE, files, house, name_of, tree

LINES = 450
FORBIDDEN = {"utils", "util", "common", "misc", "helper", "helpers", "snippets", "core", "base"}
ASKS_BACKEND = {"_backend"}  # the only file that may ask which backend runs
APPLIES_MASKS = {"layers.attention", "layers.gated_attention", "layers.pool"}  # attention-like layers


def too_long(package: Path, limit: int = LINES) -> list[str]:
    """Files over the size budget."""
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files(package)}
    return [f"{name_of(path, package)}: {size} lines (at most {limit})" for path, size in sizes.items() if size > limit]


def forbidden_names(package: Path) -> list[str]:
    """Files and folders whose name says nothing."""
    found = sorted(package.rglob("*"))
    return [str(p.relative_to(package)) for p in found if p.stem.strip("_").lower() in FORBIDDEN]


def _calls(package: Path, wanted: set[str], allowed: set[str]) -> list[str]:
    """Uses of a name or attribute out of `wanted` in files not `allowed`."""
    found = []
    for path in files(package):
        name = name_of(path, package)
        if name in allowed:
            continue
        for node in ast.walk(tree(path)):
            used = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
            if isinstance(node, ast.ImportFrom):
                used = next((alias.name for alias in node.names if alias.name in wanted), None)
            if used in wanted:
                found.append(f"{name}:{node.lineno} uses {used}")
    return found


def lambda_layers(package: Path) -> list[str]:
    """Lambda layers: they hide code in a saved file and cannot be reloaded safely."""
    return _calls(package, {"Lambda"}, set())


def masks_applied(package: Path) -> list[str]:
    """Attention weights computed outside the attention-like layers, the only ones that may apply a mask."""
    return _calls(package, {"dot_product_attention", "softmax", "MultiHeadAttention"}, APPLIES_MASKS)


def backend_ifs(package: Path) -> list[str]:
    """Questions about the running backend outside the files that must ask."""
    found = []
    for path in files(package):
        name = name_of(path, package)
        if name in ASKS_BACKEND:
            continue
        for node in ast.walk(tree(path)):
            text = ast.unparse(node) if isinstance(node, ast.Call) else ""
            if text.endswith(("config.backend()", "backend.backend()")) or "'KERAS_BACKEND'" in text:
                found.append(f"{name}:{node.lineno} asks for the backend")
            if isinstance(node, ast.ImportFrom) and node.module in ("keras.config", "keras.backend"):
                if any(alias.name == "backend" for alias in node.names):
                    found.append(f"{name}:{node.lineno} asks for the backend")
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                if any(module.split(".")[0] in ("jax", "torch", "tensorflow") for module in modules):
                    found.append(f"{name}:{node.lineno} imports a backend")
    return found


@pytest.mark.parametrize("law", [too_long, forbidden_names, lambda_layers, masks_applied, backend_ifs])
def test_the_house_obeys(law) -> None:
    assert law(PACKAGE) == []


def test_flags_a_long_file(tmp_path: Path) -> None:
    assert too_long(house(tmp_path, masks="x = 1\n" * 451)) == ["masks: 451 lines (at most 450)"]


def test_flags_names_that_say_nothing(tmp_path: Path) -> None:
    assert forbidden_names(house(tmp_path, text__utils="", core__a="", text__tokenizer="", _common="")) == [
        "_common.py",
        "core",
        "text/utils.py",
    ]


def test_flags_a_lambda_layer(tmp_path: Path) -> None:
    package = house(tmp_path, encoder="import keras\nx = keras.layers.Lambda(len)\n", masks="f = lambda x: x\n")
    assert lambda_layers(package) == ["encoder:2 uses Lambda"]


def test_flags_a_mask_applied_elsewhere(tmp_path: Path) -> None:
    source = "from keras import ops\ny = ops.softmax(s + mask)\n"
    package = house(tmp_path, layers__feed=source, layers__attention=source)
    assert masks_applied(package) == ["layers.feed:2 uses softmax"]


def test_flags_a_backend_if(tmp_path: Path) -> None:
    package = house(
        tmp_path,
        config="import keras\nif keras.backend.backend() == 'jax': pass\n",
        encoder="from keras.config import backend\n",
        metrics="def f():\n    import torch.nn\n",
        text__a="import os\nx = os.environ.get('KERAS_BACKEND')\n",
        _backend="import keras\nkeras.config.backend()\n",
    )
    assert backend_ifs(package) == [
        "config:2 asks for the backend",
        "encoder:1 asks for the backend",
        "metrics:2 imports a backend",
        "text.a:2 asks for the backend",
    ]
