"""The shape of every weight that a config promises, without building anything.

A config file is untrusted too: what it claims is compared with the arrays that are really in the checkpoint before a
network is allocated.
"""

from collections.abc import Iterable

from maskplay.config import BUCKETS, TABLES, Config


class _Shapes(dict[str, tuple[int, ...]]):
    """Weight paths and shapes, written down part by part."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def dense(self, name: str, before: int, after: int, bias: bool | None = None) -> None:
        self[f"{name}/kernel"] = (before, after)
        if self.config.has_bias if bias is None else bias:
            self[f"{name}/bias"] = (after,)

    def norm(self, name: str, width: int) -> None:
        if self.config.norm != "unit":
            self[f"{name}/gamma"] = (width,)
        if self.config.norm == "layer":
            self[f"{name}/beta"] = (width,)
        if self.config.condition_size is not None:
            self[f"{name}/gamma_kernel"] = self[f"{name}/beta_kernel"] = (self.config.condition_size, width)

    def attention(self, name: str) -> None:
        config = self.config
        hidden, keys = config.hidden_size, config.num_kv_heads or config.num_heads
        self.dense(f"{name}/query", hidden, config.num_heads * config.size_per_key)
        self.dense(f"{name}/key", hidden, keys * config.size_per_key)
        self.dense(f"{name}/value", hidden, keys * config.size_per_head)
        self.dense(f"{name}/output", config.num_heads * config.size_per_head, hidden)

    def block(self, name: str, cross: bool) -> None:
        config = self.config
        hidden, inner = config.hidden_size, config.intermediate_size
        if config.attention == "gau":
            self.dense(f"{name}/attention/inner", hidden, 2 * inner + config.size_per_key)
            self.dense(f"{name}/attention/outer", inner, hidden)
            for part in ("query", "key"):
                self[f"{name}/attention/{part}_gamma"] = (config.size_per_key,)
                if config.has_bias:
                    self[f"{name}/attention/{part}_beta"] = (config.size_per_key,)
        else:
            self.attention(f"{name}/attention")
            for part in ("gate", "inner") if config.activation.startswith("gated_") else ("inner",):
                self.dense(f"{name}/feed/{part}", hidden, inner)
            self.dense(f"{name}/feed/outer", inner, hidden)
            self.norm(f"{name}/feed_norm", hidden)
        self.norm(f"{name}/attention_norm", hidden)
        if cross:
            self.attention(f"{name}/cross")
            self.norm(f"{name}/cross_norm", hidden)

    def stack(self, name: str, layers: int, cross: bool) -> None:
        if self.config.position in BUCKETS:
            self[f"{name}/relative/embeddings"] = (self.config.num_buckets, self.config.num_heads)
        for i in range(layers):
            self.block(f"{name}/block_{i}", cross)
        if self.config.norm_at == "pre":
            self.norm(f"{name}/final_norm", self.config.hidden_size)

    def embedding(self, name: str) -> int:
        config = self.config
        hidden, size = config.hidden_size, config.size_of_embedding
        first = config.embedding == "projected_first"
        width = hidden if first else size
        self[f"{name}/token/embeddings"] = (config.vocab_size, size)
        if config.num_segments:
            self[f"{name}/segment/embeddings"] = (config.num_segments, width)
        if config.position in TABLES:
            self[f"{name}/position/embeddings"] = (config.max_positions, width)
        if config.embedding != "plain":
            self.norm(f"{name}/norm", width)
        if config.embedding_size is not None:
            self.dense(f"{name}/projection", size, hidden, bias=config.has_bias and not first)
        return width

    def head(self, name: str, width: int) -> None:
        config = self.config
        hidden = config.hidden_size
        if name == "pooler":
            self.dense("pooler/dense", hidden, hidden, bias=True)
        elif name == "nsp":
            self.dense("nsp/dense", hidden, 2, bias=True)
        elif name == "mlm":
            self.dense("mlm/transform", hidden, width, bias=True)
            self["mlm/norm/gamma"] = self["mlm/norm/beta"] = (width,)
            if config.condition_size is not None:
                self["mlm/norm/gamma_kernel"] = self["mlm/norm/beta_kernel"] = (config.condition_size, width)
            self["mlm/bias"] = (config.vocab_size,)
        elif name == "rtd":
            self.dense("rtd/transform", hidden, hidden, bias=True)
            self.dense("rtd/output", hidden, 1, bias=True)
        elif name == "lm" and not config.scores.startswith("tied"):
            self.dense("lm/output", hidden, config.vocab_size, bias=False)


def weight_shapes(config: Config, heads: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Weight paths of a `LanguageModel` and their shapes.

    Example:
        >>> weight_shapes(Config(vocab_size=21128), [])["encoder/block_11/feed/inner/kernel"]
        (768, 3072)
    """
    shapes = _Shapes(config)
    width = shapes.embedding("encoder/embedding")
    shapes.stack("encoder", config.blocks, cross=False)
    if config.num_decoder_layers:
        shapes.stack("decoder", config.num_decoder_layers, cross=True)
    for head in heads:
        shapes.head(head, width)
    return dict(shapes)
