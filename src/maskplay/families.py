"""The cast: a family is a row of choices, not a class. `ROFORMER = BERT.but(position="rotary")` is the whole idea."""

from dataclasses import dataclass

from maskplay.config import Config
from maskplay.errors import UserError


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: as `maskplay inspect` prints it and `config.json` calls it (`model_type`).
        config: the family's base-size choices; a checkpoint's own config replaces the sizes.
        source: paper or post.
    """

    name: str
    config: Config
    source: str


BERT = Family("bert", Config(vocab_size=21128), "arXiv:1810.04805")
ROFORMER = Family("roformer", BERT.config.but(vocab_size=50000, position="rotary"), "arXiv:2104.09864")

FAMILIES: dict[str, Family] = {family.name: family for family in (BERT, ROFORMER)}


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        UserError: no such family; the text lists those there are.

    Example:
        >>> family("roformer").config.position
        'rotary'
    """
    if name not in FAMILIES:
        raise UserError(f"expected a model family, one of {', '.join(FAMILIES)}; found {name!r}")
    return FAMILIES[name]
