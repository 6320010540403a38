"""The names of Meta's own LLaMA code, which llama2.c's files follow: weights (out, in), rotary pairs interleaved."""

from maskplay.checkpoints.dialect import Table

_OURS, _THEIRS = "encoder/block_{i}", "layers.{i}"

TABLES = (
    Table(
        "llama",
        "llama2c",
        {
            "encoder/embedding/token/embeddings": "tok_embeddings.weight",
            f"{_OURS}/attention_norm/gamma": f"{_THEIRS}.attention_norm.weight",
            **{
                f"{_OURS}/attention/{part}/kernel": f"{_THEIRS}.attention.w{part[0]}.weight | transpose"
                for part in ("query", "key", "value", "output")
            },
            f"{_OURS}/feed_norm/gamma": f"{_THEIRS}.ffn_norm.weight",
            f"{_OURS}/feed/gate/kernel": f"{_THEIRS}.feed_forward.w1.weight | transpose",
            f"{_OURS}/feed/outer/kernel": f"{_THEIRS}.feed_forward.w2.weight | transpose",
            f"{_OURS}/feed/inner/kernel": f"{_THEIRS}.feed_forward.w3.weight | transpose",
            "encoder/final_norm/gamma": "norm.weight",
            "lm/output/kernel": "output.weight | transpose",
        },
        sign=r"tok_embeddings\.weight",
        empty=r"rope\.freqs",
    ),
)
