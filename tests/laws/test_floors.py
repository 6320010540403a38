"""Who may import whom. ARCHITECTURE.md draws the floors; this is where they are written down.

A file imports lower floors only, or an earlier room of its own floor where the floor is an order. Inside a room that is
a folder, siblings may import each other without a circle; plays and generative may not.
"""

from pathlib import Path

from laws.house import PACKAGE, files, house, imports, name_of

# From the ground up: the rooms of a floor, and whether an earlier room of the floor counts as lower.
FLOORS = [
    ("errors storage corpus arrays memory pictures protobuf _backend hosts", True),
    (
        "masks config text tables pretext words demo bundled examples batches losses metrics callbacks decode "
        "optimizers stochastic autodiff statistics",
        False,
    ),
    ("families objectives layers regularization", False),
    ("model encoder language_model fresh starts", True),
    ("checkpoints plays generative", False),
    ("pretrained cli serve __init__ __main__", True),
]
STRANGERS = ("plays", "generative")  # rooms whose files never import a sibling
GENERATIVE_SEES = (0, 1, 2)  # floors: generative models use no encoder


def room_of(module: str) -> str:
    """The file or folder right under the package that a module stands in."""
    return module.split(".")[0] or "__init__"


def place(room: str) -> tuple[int, int] | None:
    """A room's floor and its position there."""
    for floor, (rooms, _) in enumerate(FLOORS):
        if room in rooms.split():
            return floor, rooms.split().index(room)
    return None


def broken_floors(package: Path) -> list[str]:
    """Each import that climbs, as a line that names both ends."""
    found = []
    for path in files(package):
        name = name_of(path, package)
        room = room_of(name)
        here = place(room)
        if here is None:
            found.append(f"{name}: stands on no floor; add the room to FLOORS and to ARCHITECTURE.md")
            continue
        for line, target in imports(path, package):
            other = room_of(target)
            there = place(other)
            if there is None:
                reason = "which stands on no floor"
            elif other == room:
                reason = "its sibling" if room in STRANGERS and name != room and target != room else ""
            elif there[0] == here[0]:
                ordered = FLOORS[here[0]][1] and there[1] < here[1]
                reason = "" if ordered else "a neighbour on its own floor"
            elif there[0] > here[0]:
                reason = "a higher floor"
            else:
                reason = "no part of it" if room == "generative" and there[0] not in GENERATIVE_SEES else ""
            if reason:
                found.append(f"{name or package.name}:{line} imports {target or package.name}, {reason}")
    return found


def circles(package: Path) -> list[str]:
    """Each circle of imports among files, once, as "a -> b -> a"."""
    graph = {name_of(path, package): {to for _, to in imports(path, package)} for path in files(package)}
    found: list[str] = []
    finished: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append(" -> ".join([*trail[trail.index(name) :], name]))
        elif name not in finished:
            for target in sorted(graph.get(name, ())):
                walk(target, [*trail, name])
            finished.add(name)

    for name in sorted(graph):
        walk(name, [])
    return found


def test_files_import_lower_floors_only() -> None:
    assert broken_floors(PACKAGE) == []


def test_no_circular_imports() -> None:
    assert circles(PACKAGE) == []


def test_flags_a_climbing_import(tmp_path: Path) -> None:
    package = house(tmp_path, layers__norm="def late():\n    from maskplay import encoder\n", encoder="")
    assert broken_floors(package) == ["layers.norm:2 imports encoder, a higher floor"]


def test_flags_a_relative_and_a_quoted_import(tmp_path: Path) -> None:
    quoted = "import importlib\nimportlib.import_module('maskplay.encoder')\n"
    package = house(tmp_path, text__words="from ..encoder import Encoder\n", masks=quoted, encoder="")
    assert [line.split(",")[0] for line in broken_floors(package)] == [
        "masks:2 imports encoder",
        "text.words:1 imports encoder",
    ]


def test_flags_the_package_itself(tmp_path: Path) -> None:
    assert broken_floors(house(tmp_path, config="import maskplay as mp\n")) == [
        "config:1 imports maskplay, a higher floor"
    ]


def test_flags_siblings_and_neighbours(tmp_path: Path) -> None:
    package = house(
        tmp_path,
        plays__tag="from maskplay.plays.classify import Classify\n",
        plays__classify="from maskplay import checkpoints\n",
        checkpoints__load="from maskplay.plays import classify\n",
        layers__norm="",
        layers__feed="from maskplay.layers import norm\n",
        generative__gan="from maskplay.encoder import Encoder\n",
        encoder="from maskplay.language_model import LanguageModel\n",
        language_model="from maskplay.encoder import Encoder\n",
        cupboard="",
    )
    (package / "checkpoints" / "__init__.py").touch()
    assert broken_floors(package) == [
        "checkpoints.load:1 imports plays.classify, a neighbour on its own floor",
        "cupboard: stands on no floor; add the room to FLOORS and to ARCHITECTURE.md",
        "encoder:1 imports language_model, a neighbour on its own floor",
        "generative.gan:1 imports encoder, no part of it",
        "plays.classify:1 imports checkpoints, a neighbour on its own floor",
        "plays.tag:1 imports plays.classify, its sibling",
    ]


def test_flags_a_circle(tmp_path: Path) -> None:
    package = house(
        tmp_path, layers__a="from maskplay.layers import b\n", layers__b="from maskplay.layers.a import x\n"
    )
    assert circles(package) == ["layers.a -> layers.b -> layers.a"]
