"""Golden numbers from bert4keras itself: what the original computes with the same weights and inputs.

Each file ``golden/bert4keras_<case>.npz`` holds one seed-made checkpoint under Google's variable names
(``weights/...``), the inputs (``inputs/...``), the outputs of one or more runs (``<run>/...``) and a JSON text
``config`` that says in maskplay's words what the model and each run are. The scale of the weights is far above the
usual 0.02, so that a wrong mask, activation or transposition moves the outputs by whole units and cannot hide in a
tolerance; the outputs are computed in float64. bert4keras 0.11.5 needs Keras 2, so this script runs in an environment
of its own, and the tests only read the files that it leaves behind:

    python3.11 -m venv oracle
    oracle/bin/pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 numpy six
    oracle/bin/pip install --no-deps bert4keras==0.11.5
    oracle/bin/python tests/parity/make_bert4keras_golden.py

Outputs cover every position. At padded positions they are what bert4keras computes for a padding token that reads
the valid ones; nothing reads them, and the tests compare the valid positions only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
VOCAB, POSITIONS, SEGMENTS, LAYERS, HIDDEN, HEADS, INTERMEDIATE = 60, 40, 2, 2, 32, 4, 64
KEEP = [0, 2, 3, 59, 7, 8, 9, 10, 30, 31, 32, 41]  # row order of the shrunken vocabulary
COMPOUND = [[4, 5], ([8, 9, 10], [1, 2, 3])]  # rows of the *kept* table: their mean, their weighted mean


def import_bert4keras():
    """Import bert4keras on a TensorFlow whose own ``keras`` is Keras 3.

    bert4keras does ``sys.modules["keras"] = tf.keras`` and imports sub-modules from it; TensorFlow's lazy loader then
    recurses for ever. Putting the real Keras 2 package under both names beforehand is all it takes.
    """
    os.environ.update(TF_KERAS="1", TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    import tensorflow
    import tf_keras
    import tf_keras.backend  # noqa: F401  (makes the sub-module known to sys.modules)

    vars(tensorflow)["keras"] = tf_keras
    for name in [name for name in sys.modules if name == "tf_keras" or name.startswith("tf_keras.")]:
        sys.modules[name.removeprefix("tf_")] = sys.modules[name]
    import bert4keras.backend
    import bert4keras.models

    tf_keras.backend.set_floatx("float64")  # so that a difference from these numbers is ours
    return tf_keras, bert4keras


def checkpoint(seed: int, position: bool = True, nsp: bool = True, embedding: int = HIDDEN) -> dict[str, np.ndarray]:
    """A random checkpoint, name -> float32 array, under the names of Google's BERT release."""
    random = np.random.default_rng(seed)
    table: dict[str, np.ndarray] = {}

    def put(name: str, *shape: int, std: float, mean: float = 0.0) -> None:
        table[name] = (mean + std * random.standard_normal(shape)).astype("float32")

    def dense(name: str, inputs: int, outputs: int) -> None:
        put(f"{name}/kernel", inputs, outputs, std=1.3 / inputs**0.5)  # 0.23 at width 32
        put(f"{name}/bias", outputs, std=0.2)

    def norm(name: str, size: int) -> None:
        put(f"{name}/beta", size, std=0.2)
        put(f"{name}/gamma", size, std=0.25, mean=1.0)

    put("bert/embeddings/word_embeddings", VOCAB, embedding, std=0.5)
    put("bert/embeddings/token_type_embeddings", SEGMENTS, embedding, std=0.5)
    if position:
        put("bert/embeddings/position_embeddings", POSITIONS, embedding, std=0.5)
    norm("bert/embeddings/LayerNorm", embedding)
    if embedding != HIDDEN:
        dense("bert/encoder/embedding_hidden_mapping_in", embedding, HIDDEN)
    for index in range(LAYERS):
        layer = f"bert/encoder/layer_{index}"
        for part in ("query", "key", "value"):
            dense(f"{layer}/attention/self/{part}", HIDDEN, HIDDEN)
        dense(f"{layer}/attention/output/dense", HIDDEN, HIDDEN)
        norm(f"{layer}/attention/output/LayerNorm", HIDDEN)
        dense(f"{layer}/intermediate/dense", HIDDEN, INTERMEDIATE)
        dense(f"{layer}/output/dense", INTERMEDIATE, HIDDEN)
        norm(f"{layer}/output/LayerNorm", HIDDEN)
    dense("bert/pooler/dense", HIDDEN, HIDDEN)
    if nsp:
        put("cls/seq_relationship/output_weights", 2, HIDDEN, std=0.3)  # stored (classes, hidden)
        put("cls/seq_relationship/output_bias", 2, std=0.2)
    dense("cls/predictions/transform/dense", HIDDEN, embedding)
    norm("cls/predictions/transform/LayerNorm", embedding)
    put("cls/predictions/output_bias", VOCAB, std=0.5)
    return table


def inputs(seed: int, length: int, lengths: list[int], ids: int = VOCAB) -> dict[str, np.ndarray]:
    """Token ids (padding 0 at the end, 2 first, 3 closing both segments) and segment ids, both (batch, length)."""
    random = np.random.default_rng(seed)
    tokens = np.zeros((len(lengths), length), "int32")
    segments = np.zeros_like(tokens)
    for row, size in enumerate(lengths):
        first = size // 2  # where the first segment's [SEP] stands
        tokens[row, :size] = random.integers(4, ids, size)
        tokens[row, 0], tokens[row, [first, size - 1]] = 2, 3
        segments[row, first + 1 : size] = 1
    return {"tokens": tokens, "segments": segments}


def run(table: dict, given: dict, epsilon: float = 1e-12, **options) -> dict[str, np.ndarray]:
    """Build the model in bert4keras, load ``table``, and read the outputs of its named layers.

    ``epsilon`` is not given to bert4keras: it is what the norms of its embedding and blocks are found to use.
    """
    build = bert4keras.models.build_transformer_model
    nsp = "cls/seq_relationship/output_bias" in table
    sizes = {
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": INTERMEDIATE, "hidden_act": "gelu", "max_position": POSITIONS,
        "segment_vocab_size": SEGMENTS, "embedding_size": table["bert/embeddings/word_embeddings"].shape[1],
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    }  # fmt: skip
    options = {"with_pool": True, "with_nsp": nsp, "with_mlm": "linear", **options}
    keras.backend.clear_session()
    net = build(checkpoint_path=table, **{**sizes, **options})
    layers = {f"layer_{index}": f"Transformer-{index}-FeedForward-Norm" for index in range(LAYERS - 1)}
    layers["hidden"] = f"Transformer-{LAYERS - 1}-FeedForward-Norm"
    layers |= {"pooled": "Pooler-Dense", "mlm": "MLM-Bias"} | ({"nsp_probabilities": "NSP-Proba"} if nsp else {})
    outputs = [net.get_layer(name).output for name in layers.values()]
    values = keras.Model(net.inputs, outputs)([given["tokens"], given["segments"]], training=False)
    epsilons = {layer.name: layer.epsilon for layer in net.layers if layer.name.endswith("-Norm")}
    assert epsilons.pop("MLM-Norm") == 1e-12 and set(epsilons.values()) == {epsilon}, epsilons
    return {name: np.asarray(value, "float32") for name, value in zip(layers, values, strict=True)}


def model(**changes) -> dict:
    """The model in maskplay's words."""
    words = {
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_layers": LAYERS, "num_heads": HEADS,
        "intermediate_size": INTERMEDIATE, "max_positions": POSITIONS, "num_segments": SEGMENTS,
        "position": "learned", "activation": "gelu", "norm_epsilon": 1e-12, "pooler_activation": "tanh",
    }  # fmt: skip
    return {**words, **changes}


def how(mask: str = "padding()", given: str = "inputs", **changes) -> dict:
    """What a run is in maskplay's words: its mask, the inputs it reads, the changes to the model."""
    return {"mask": mask, "inputs": given, "changes": changes}


def write(case: str, config: dict, arrays: dict[str, dict[str, np.ndarray]]) -> None:
    path = GOLDEN / f"bert4keras_{case}.npz"
    flat = {f"{group}/{name}": value for group, content in arrays.items() for name, value in content.items()}
    np.savez_compressed(path, config=np.array(json.dumps(config, sort_keys=True)), **flat)
    print(f"{path.name}: {path.stat().st_size} bytes: {', '.join(arrays)}")


def bert(given: dict[str, np.ndarray]) -> None:
    """One BERT checkpoint in every application and with every edit that bert4keras offers at loading."""
    table = checkpoint(seed=11)
    long = inputs(2, length=POSITIONS + 15, lengths=[POSITIONS + 15, POSITIONS - 2])
    kept = inputs(3, length=12, lengths=[12, 9, 7, 4], ids=len(KEEP) + len(COMPOUND))
    runs = {
        "encoder": run(table, given),
        "lm": run(table, given, application="lm"),
        "unilm": run(table, given, application="unilm"),
        "hierarchical": run(table, long, hierarchical_position=True),
        "keep": run(table, kept, keep_tokens=KEEP, compound_tokens=COMPOUND),
    }
    bert4keras.backend.set_gelu("tanh")  # a switch for the whole process
    runs["gelu_tanh"] = run(table, given)
    bert4keras.backend.set_gelu("erf")

    # Is the oracle worth comparing with? Masks and the activation move the outputs, padding does not.
    def gap(one: str, name: str = "hidden") -> float:
        return float(np.abs(runs[one][name] - runs["encoder"][name]).max())

    alone = run(table, {name: value[3:, :4] for name, value in given.items()})
    print({one: gap(one) for one in ("lm", "unilm", "gelu_tanh")})
    assert gap("lm") > 0.5 and gap("unilm") > 0.5 and gap("gelu_tanh") > 5e-4
    assert np.abs(alone["hidden"] - runs["encoder"]["hidden"][3:, :4]).max() < 1e-5, "padding is read"

    described = {
        "encoder": how(),
        "lm": how("causal() & padding()"),
        "unilm": how("prefix() & padding()"),
        "hierarchical": how(given="long", position="hierarchical"),
        "keep": how(given="kept", vocab_size=len(KEEP) + len(COMPOUND)),
        "gelu_tanh": how(activation="gelu_tanh"),
    }
    config = {"model": model(), "runs": described, "keep_tokens": KEEP, "compound_tokens": COMPOUND}
    write("bert", config, {"weights": table, "inputs": given, "long": long, "kept": kept, **runs})


def factorised(given: dict[str, np.ndarray]) -> None:
    table = checkpoint(seed=12, embedding=16)
    config = {"model": model(embedding_size=16), "runs": {"encoder": how()}}
    write("factorised", config, {"weights": table, "inputs": given, "encoder": run(table, given)})


def roformer(given: dict[str, np.ndarray]) -> None:
    """RoFormer with the linear pooler of the similar-sentence checkpoints.

    bert4keras sets no epsilon in its embedding and block norms, so Keras' 1e-7 holds there; the norm of the MLM head
    is inherited from BERT and keeps 1e-12. One epsilon of 1e-7 stands for both: at these variances the head's choice
    is below the rounding of float32.
    """
    table = checkpoint(seed=13, position=False, nsp=False)
    options = {"model": "roformer", "with_pool": "linear", "epsilon": 1e-7}
    runs = {name: run(table, given, application=name, **options) for name in ("encoder", "lm", "unilm")}
    turned = {name: value.copy() for name, value in given.items()}
    turned["tokens"][0, [4, 5]] = turned["tokens"][0, [5, 4]]
    moved = run(table, turned, **options)["hidden"][0, 0] - runs["encoder"]["hidden"][0, 0]
    assert np.abs(moved).max() > 0.1, "the order of the words is not read"
    words = model(position="rotary", pooler_activation="linear", norm_epsilon=1e-7)
    described = {"encoder": how(), "lm": how("causal() & padding()"), "unilm": how("prefix() & padding()")}
    config = {"model": words, "runs": described, "mlm_epsilon": 1e-12}
    write("roformer", config, {"weights": table, "inputs": given, **runs})


if __name__ == "__main__":
    keras, bert4keras = import_bert4keras()
    GOLDEN.mkdir(exist_ok=True)
    sentences = inputs(1, length=12, lengths=[12, 9, 7, 4])
    bert(sentences)
    factorised(sentences)
    roformer(sentences)
