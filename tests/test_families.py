"""The cast: every row is whole, and the page about them is the rows'."""

import importlib.util
from pathlib import Path

from maskplay.checkpoints.match import TABLES
from maskplay.families import FAMILIES

ROOT = Path(__file__).resolve().parents[1]


def test_every_family_has_names_in_some_dialect() -> None:
    written = {table.family for table in TABLES}
    assert written <= set(FAMILIES)
    # Unshared is how an ALBERT is read, not how it is written.
    assert {family.tables for family in FAMILIES.values()} - written == {"albert_unshared"}


def test_the_page_is_made_from_the_rows() -> None:
    spec = importlib.util.spec_from_file_location("make_families", ROOT / "docs" / "make_families.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    lines = (ROOT / "docs" / "families.md").read_text("utf-8").splitlines()
    shown = {line.split(" ")[1]: line for line in lines if line.startswith("| ") and "---" not in line}
    shown.pop("family")
    made = maker.rows()
    assert list(shown) == list(made), "run python docs/make_families.py"
    for name, line in made.items():
        assert shown[name].startswith(line), "run python docs/make_families.py"
        assert float(shown[name].removeprefix(line).strip(" |")) <= 1e-5
