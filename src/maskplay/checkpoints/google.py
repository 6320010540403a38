"""Google's dialect: the variable names of the original BERT code, which bert4keras and most Chinese checkpoints keep.

Kernels are stored (in, out) like ours; only the next-sentence weights are stored transposed.
"""

from typing import Any

from maskplay.checkpoints.dialect import Dialect, write_config
from maskplay.config import Config

_LAYER = "bert/encoder/layer_{i}"

ENCODER = {
    "encoder/embedding/token/embeddings": "bert/embeddings/word_embeddings",
    "encoder/embedding/segment/embeddings": "bert/embeddings/token_type_embeddings",
    "encoder/embedding/norm/gamma": "bert/embeddings/LayerNorm/gamma",
    "encoder/embedding/norm/beta": "bert/embeddings/LayerNorm/beta",
    "encoder/embedding/projection/kernel": "bert/encoder/embedding_hidden_mapping_in/kernel",
    "encoder/embedding/projection/bias": "bert/encoder/embedding_hidden_mapping_in/bias",
    "encoder/block_{i}/attention/query/kernel": f"{_LAYER}/attention/self/query/kernel",
    "encoder/block_{i}/attention/query/bias": f"{_LAYER}/attention/self/query/bias",
    "encoder/block_{i}/attention/key/kernel": f"{_LAYER}/attention/self/key/kernel",
    "encoder/block_{i}/attention/key/bias": f"{_LAYER}/attention/self/key/bias",
    "encoder/block_{i}/attention/value/kernel": f"{_LAYER}/attention/self/value/kernel",
    "encoder/block_{i}/attention/value/bias": f"{_LAYER}/attention/self/value/bias",
    "encoder/block_{i}/attention/output/kernel": f"{_LAYER}/attention/output/dense/kernel",
    "encoder/block_{i}/attention/output/bias": f"{_LAYER}/attention/output/dense/bias",
    "encoder/block_{i}/attention_norm/gamma": f"{_LAYER}/attention/output/LayerNorm/gamma",
    "encoder/block_{i}/attention_norm/beta": f"{_LAYER}/attention/output/LayerNorm/beta",
    "encoder/block_{i}/feed/inner/kernel": f"{_LAYER}/intermediate/dense/kernel",
    "encoder/block_{i}/feed/inner/bias": f"{_LAYER}/intermediate/dense/bias",
    "encoder/block_{i}/feed/outer/kernel": f"{_LAYER}/output/dense/kernel",
    "encoder/block_{i}/feed/outer/bias": f"{_LAYER}/output/dense/bias",
    "encoder/block_{i}/feed_norm/gamma": f"{_LAYER}/output/LayerNorm/gamma",
    "encoder/block_{i}/feed_norm/beta": f"{_LAYER}/output/LayerNorm/beta",
}
HEADS = {
    "pooler/dense/kernel": "bert/pooler/dense/kernel",
    "pooler/dense/bias": "bert/pooler/dense/bias",
    "nsp/dense/kernel": "cls/seq_relationship/output_weights | transpose",
    "nsp/dense/bias": "cls/seq_relationship/output_bias",
    "mlm/transform/kernel": "cls/predictions/transform/dense/kernel",
    "mlm/transform/bias": "cls/predictions/transform/dense/bias",
    "mlm/norm/gamma": "cls/predictions/transform/LayerNorm/gamma",
    "mlm/norm/beta": "cls/predictions/transform/LayerNorm/beta",
    "mlm/bias": "cls/predictions/output_bias",
}
POSITION = {"encoder/embedding/position/embeddings": "bert/embeddings/position_embeddings"}

GOOGLE = Dialect(
    name="google",
    sign="bert/embeddings/word_embeddings",
    tables={"bert": {**ENCODER, **POSITION, **HEADS}, "roformer": {**ENCODER, **HEADS}},
    empty=lambda name: name.endswith("position_ids"),
)


def config_file(config: Config, family: str) -> dict[str, Any]:
    """The content of `bert_config.json`."""
    return write_config(config, family)
