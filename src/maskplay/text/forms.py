"""Forms: which special tokens a family of models has, and what it puts around a text or a pair of texts.

A form is a row. Token names, not ids, stand in it, so that a shortened vocabulary keeps its form.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from maskplay.errors import UserError

ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")


@dataclass(frozen=True)
class Form:
    """The special tokens by role (None: there is none) and the frame: `before A after`, `before A between B after`.

    Attributes:
        pad, unk, cls, sep, mask, bos, eos: token names; two roles may share a token.
        before, between, after: tokens around the texts.
        second: segment of the pair's second text and of what follows it.
        others: further special tokens (T5's sentinels); like the mask, text produces them only on request.
        saved_as: the tokenizer class that `transformers` opens such files with.

    Example:
        >>> T5.framed("A", "B")
        ['A', '</s>', 'B', '</s>']
    """

    pad: str | None = None
    unk: str | None = None
    cls: str | None = None
    sep: str | None = None
    mask: str | None = None
    bos: str | None = None
    eos: str | None = None
    before: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    second: int = 0
    others: tuple[str, ...] = ()
    saved_as: str = "PreTrainedTokenizerFast"

    def but(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)

    @property
    def roles(self) -> dict[str, str]:
        """Role to token, where there is one."""
        return {role: token for role in ROLES if (token := getattr(self, role)) is not None}

    @property
    def specials(self) -> tuple[str, ...]:
        """Every special token once: those with a role, those of the frame, the others."""
        return tuple(dict.fromkeys([*self.roles.values(), *self.before, *self.between, *self.after, *self.others]))

    @property
    def gaps(self) -> tuple[str, ...]:
        """The special tokens that a text may hold on request: the mask, sentinels."""
        return tuple(dict.fromkeys([*([self.mask] if self.mask else []), *self.others]))

    def framed(self, first: str, second: str | None = None) -> list[str]:
        """Token names with the place of the texts, for messages and templates."""
        pair = [] if second is None else [*self.between, second]
        return [*self.before, first, *pair, *self.after]

    def template(self) -> tuple[str, str, list[str]]:
        """The frame as `tokenizers` writes it: single, pair, and the special tokens in them."""
        single = " ".join(f"{name}:0" for name in self.framed("$A"))
        cut = len(self.before) + 1 + len(self.between)
        pair = [f"{name}:{self.second if i >= cut else 0}" for i, name in enumerate(self.framed("$A", "$B"))]
        return single, " ".join(pair), list(dict.fromkeys([*self.before, *self.between, *self.after]))


PLAIN = Form()
BERT = Form(
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    before=("[CLS]",),
    between=("[SEP]",),
    after=("[SEP]",),
    second=1,
    saved_as="BertTokenizer",
)
ALBERT = BERT.but(pad="<pad>", unk="<unk>", saved_as="AlbertTokenizer")  # the English one, with SentencePiece
ROBERTA = Form(
    *("<pad>", "<unk>", "<s>", "</s>", "<mask>", "<s>", "</s>"),
    before=("<s>",),
    between=("</s>", "</s>"),
    after=("</s>",),
    saved_as="RobertaTokenizer",
)
GPT2 = Form(bos="<|endoftext|>", eos="<|endoftext|>", saved_as="GPT2Tokenizer")
T5 = Form(pad="<pad>", unk="<unk>", eos="</s>", between=("</s>",), after=("</s>",), saved_as="T5Tokenizer")
LLAMA = Form(unk="<unk>", bos="<s>", eos="</s>", before=("<s>",), between=("<s>",), second=1, saved_as="LlamaTokenizer")
FORMS = {
    "bert": BERT,
    "albert": ALBERT,
    "roberta": ROBERTA,
    "gpt2": GPT2,
    "t5": T5,
    "llama": LLAMA,
    "plain": PLAIN,
}


def named(form: str | None) -> Form | None:
    """A form by name; `UserError` lists the names."""
    if form is not None and form not in FORMS:
        raise UserError(f"form: expected one of {', '.join(FORMS)}, found {form!r}")
    return None if form is None else FORMS[form]
