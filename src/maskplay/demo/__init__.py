"""The data that comes with the package: short Chinese reviews, so that a first model trains without a download.

`reviews_train.tsv` and `reviews_test.tsv` have a header and three columns: text, label (好评 or 差评), domain.
README.md beside them says who wrote them and how they were checked.
"""

from importlib.resources import files
from pathlib import Path

from maskplay.errors import UserError

__all__ = ["path"]


def path(name: str) -> Path:
    """Where a file of the demo lies.

    Raises:
        UserError: there is no such file.

    Example:
        >>> path("reviews_train.tsv").name
        'reviews_train.tsv'
    """
    folder = Path(str(files(__name__)))
    known = sorted(file.name for file in folder.glob("*.tsv"))
    if name not in known:
        raise UserError(f"demo data: expected one of {', '.join(known)}; found {name!r}")
    return folder / name
