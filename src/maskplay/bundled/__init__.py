"""Models that come with the package, so that everything works in the first minute and without a network.

`maskplay.load("bundled:zh-small")` opens one; the README.md in its folder is its model card.
"""

from importlib.resources import files
from pathlib import Path

from maskplay.errors import UserError

__all__ = ["path"]


def path(name: str) -> Path:
    """The folder of a bundled model.

    Raises:
        UserError: there is no such model.

    Example:
        >>> path("zh-small").name
        'zh-small'
    """
    folder = Path(str(files(__name__)))
    known = sorted(each.parent.name for each in folder.glob("*/config.json"))
    if name not in known:
        raise UserError(f"bundled:{name[:80]}: expected one of {', '.join(f'bundled:{each}' for each in known)}")
    return folder / name
