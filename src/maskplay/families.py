"""The cast: a family is a row of choices, not a class.

`ROFORMER = BERT.but("roformer", "arXiv:2104.09864", position="rotary")` is the whole idea.
"""

from dataclasses import dataclass
from typing import Any

from maskplay import masks
from maskplay.config import Config
from maskplay.errors import UserError

__all__ = [
    "ALBERT",
    "ALBERT_BRIGHTMART",
    "ALBERT_UNSHARED",
    "BERT",
    "ELECTRA",
    "ELECTRA_GENERATOR",
    "ERNIE",
    "FAMILIES",
    "Family",
    "GAU_ALPHA",
    "GPT",
    "GPT2",
    "GPT2_ML",
    "LABSE",
    "LLAMA",
    "MT5",
    "NEZHA",
    "ROBERTA",
    "ROFORMER",
    "ROFORMER_SIM",
    "ROFORMER_V2",
    "SIMBERT",
    "T5",
    "T5_1_1",
    "T5_PEGASUS",
    "WOBERT",
    "family",
]

WORDPIECE, BYTE_BPE, SENTENCEPIECE, LLAMA2C = "WordPiece", "byte-level BPE", "SentencePiece", "llama2.c"


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: as `maskplay inspect` prints it and `family=` takes it.
        config: the family's base-size choices; a checkpoint's own config replaces the sizes.
        source: paper or post.
        mask: who sees whom where a call of `Pretrained` does not say.
        heads: those it has without any weights of their own (scores tied to the token table).
        tokenizers: the kinds of vocabulary its checkpoints come with, as `Tokenizer.kind` names them.
        like: the family whose names its checkpoints have; None = its own.

    Example:
        >>> BERT.config.position, ROFORMER.config.position, GPT.mask
        ('learned', 'rotary', causal() & padding())
    """

    name: str
    config: Config
    source: str
    mask: masks.Mask = masks.padding()
    heads: tuple[str, ...] = ()
    tokenizers: tuple[str, ...] = (WORDPIECE,)
    like: str | None = None

    @property
    def tables(self) -> str:
        """The family under whose name `maskplay.checkpoints` has the tables."""
        return self.like or self.name

    def but(
        self,
        name: str,
        source: str,
        tokenizers: tuple[str, ...] | None = None,
        like: str | None = None,
        heads: tuple[str, ...] | None = None,
        **changes: Any,
    ) -> "Family":
        """Another family that differs in some choices, by the names of `Config`.

        Example:
            >>> BERT.but("small_bert", "arXiv:1908.08962", hidden_size=128, num_layers=2, num_heads=2).config.num_layers
            2
        """
        return Family(
            name,
            self.config.but(**changes),
            source,
            self.mask,
            self.heads if heads is None else heads,
            self.tokenizers if tokenizers is None else tokenizers,
            like,
        )


# Encoders
BERT = Family("bert", Config(vocab_size=21128), "arXiv:1810.04805")
SIMBERT = BERT.but("simbert", "kexue.fm/archives/7427", like="bert", vocab_size=13685, pooler_activation="linear")
WOBERT = BERT.but("wobert", "kexue.fm/archives/7758", like="bert", vocab_size=33586)
LABSE = BERT.but("labse", "arXiv:2007.01852", like="bert", vocab_size=501153)
ERNIE = BERT.but("ernie", "arXiv:1904.09223", vocab_size=18000, activation="relu")
ROBERTA = BERT.but(
    "roberta", "arXiv:1907.11692", (BYTE_BPE, SENTENCEPIECE), vocab_size=50265, position="learned_after_pad",
    max_positions=514, num_segments=1, norm_epsilon=1e-5, pad_id=1,
)  # fmt: skip
ALBERT = BERT.but(
    "albert", "arXiv:1909.11942", (WORDPIECE, SENTENCEPIECE), embedding_size=128, num_blocks=1, dropout=0.0,
    attention_dropout=0.0,
)  # fmt: skip
ALBERT_UNSHARED = ALBERT.but("albert_unshared", "arXiv:1909.11942", num_blocks=None)
ALBERT_BRIGHTMART = ALBERT.but("albert_brightmart", "github.com/brightmart/albert_zh", embedding="projected_first")
ELECTRA = BERT.but("electra", "arXiv:2003.10555")
ELECTRA_GENERATOR = ELECTRA.but("electra_generator", "arXiv:2003.10555", hidden_size=256, num_heads=4)
NEZHA = BERT.but("nezha", "arXiv:1909.00204", position="relative", max_positions=64)
ROFORMER = BERT.but("roformer", "arXiv:2104.09864", vocab_size=50000, position="rotary")
ROFORMER_SIM = ROFORMER.but(
    "roformer_sim", "kexue.fm/archives/8454", like="roformer", vocab_size=12000, pooler_activation="linear"
)
ROFORMER_V2 = ROFORMER.but(
    "roformer_v2", "kexue.fm/archives/8998", heads=("lm",), vocab_size=12000, norm="unit", norm_epsilon=1e-7
)
GAU_ALPHA = ROFORMER_V2.but(
    "gau_alpha", "kexue.fm/archives/9052", attention="gau", num_layers=24, num_heads=1, intermediate_size=1536,
    key_size=128, activation="silu",
)  # fmt: skip

# Decoders
GPT = Family(
    "gpt",
    Config(vocab_size=13088, embedding="plain", num_segments=0),
    "openai.com/research/language-unsupervised",
    masks.causal() & masks.padding(),
    ("lm",),
)
GPT2 = GPT.but(
    "gpt2", "openai.com/research/better-language-models", (BYTE_BPE, SENTENCEPIECE, WORDPIECE), vocab_size=50257,
    max_positions=1024, activation="gelu_tanh", norm_at="pre", norm_epsilon=1e-5, pad_id=None,
)  # fmt: skip
GPT2_ML = GPT.but(
    "gpt2_ml", "github.com/imcaspar/gpt2-ml", vocab_size=21128, hidden_size=1536, num_layers=48, num_heads=24,
    intermediate_size=6144, max_positions=1024, embedding="normed", norm_at="between", norm_epsilon=1e-5,
)  # fmt: skip
LLAMA = GPT.but(
    "llama", "arXiv:2302.13971", (SENTENCEPIECE, BYTE_BPE, LLAMA2C), vocab_size=32000, hidden_size=4096, num_layers=32,
    num_heads=32, intermediate_size=11008, position="rotary_halves", activation="gated_silu", norm="rms", norm_at="pre",
    norm_epsilon=1e-5, scores="own", dropout=0.0, attention_dropout=0.0, pad_id=None,
)  # fmt: skip

# Encoders with a decoder
T5 = Family(
    "t5",
    Config(
        vocab_size=32128, num_decoder_layers=12, head_size=64, embedding="plain", max_positions=128, num_segments=0,
        position="buckets", activation="relu", norm="rms", norm_at="pre", norm_epsilon=1e-6, scores="tied_scaled",
    ),
    "arXiv:1910.10683",
    heads=("lm",),
    tokenizers=(SENTENCEPIECE, WORDPIECE),
)  # fmt: skip
T5_1_1 = T5.but(
    "t5_1_1", "arXiv:2002.05202", activation="gated_gelu_tanh", scores="own", intermediate_size=2048, dropout=0.0,
    attention_dropout=0.0,
)  # fmt: skip
MT5 = T5_1_1.but("mt5", "arXiv:2010.11934", vocab_size=250112)
T5_PEGASUS = MT5.but(
    "t5_pegasus", "kexue.fm/archives/8209", (WORDPIECE,), "mt5", vocab_size=50000, position="buckets_cross",
    scores="own_scaled",
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        BERT, ERNIE, ROBERTA, ALBERT, ALBERT_UNSHARED, ALBERT_BRIGHTMART, ELECTRA, ELECTRA_GENERATOR, NEZHA, ROFORMER,
        ROFORMER_SIM, ROFORMER_V2, GAU_ALPHA, SIMBERT, WOBERT, LABSE, GPT, GPT2, GPT2_ML, LLAMA, T5,
        T5_1_1, MT5, T5_PEGASUS,
    )
}  # fmt: skip


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


def refuse_vocabulary(kind: str, size: int, name: str, rows: int) -> None:
    """Raise `UserError` for a vocabulary that cannot be a network's.

    Args:
        kind, size: of the vocabulary, as `Tokenizer.kind` and `len` say.
        name, rows: the network's family, and how many tokens it has embeddings for.
    """
    if size > rows:
        raise UserError(
            f"the vocabulary has {size} tokens, but the network has embeddings for {rows}: they do not belong together"
        )
    allowed = family(name).tokenizers
    if kind not in allowed:
        owners = [row.name for row in FAMILIES.values() if kind in row.tokenizers]
        raise UserError(
            f"the vocabulary is {kind}, as {', '.join(owners[:3])} have; {name} has {' or '.join(allowed)}"
            ": they do not belong together"
        )
