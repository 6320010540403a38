"""Golden numbers of bert4keras for the rows of cases.py that name it as their oracle.

Runs in the environment that make_bert4keras_golden.py describes, in float64:

    PYTHONPATH=tests oracle/bin/python -m parity.make_bert4keras_cast_golden [NAME ...]

The networks return probabilities by default; here every head is built without its last activation. Each row is checked
to be worth comparing with: padding is not read, and a wrong mask, a swapped word or a changed tensor shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from parity.cases import BERT4KERAS, CASES, Case
from parity.golden_file import inputs, turned, write
from parity.make_bert4keras_golden import import_bert4keras
from parity.references import tensors

MODELS = {
    "albert_unshared": "albert_unshared", "roformer_v2": "roformer_v2", "gpt2_converted": "gpt2",
    "t5_1_1": "t5.1.1", "mt5": "mt5.1.1", "t5_pegasus": "mt5.1.1", "simbert": "bert", "wobert": "bert",
    "roformer_sim": "roformer",
}  # fmt: skip
APPLICATIONS = {"padding()": "encoder", "causal() & padding()": "lm", "prefix() & padding()": "unilm"}
DECODERS = ("gpt", "gpt2", "gpt2_ml")


def gau_alpha():
    """GAU-alpha on bert4keras' unit: RoFormerV2 whose block is one gated attention unit, a residual and a norm."""
    layers, models = bert4keras.layers, bert4keras.models

    class GAU(models.RoFormerV2):
        def apply_main_layers(self, inputs, index):
            name, bias = f"Transformer-{index}-GAU", self.compute_attention_bias(index)
            given = [inputs] + ([] if bias is None else [bias]) + [self.compute_position_bias(inputs)]
            out = self.apply(
                inputs=given, layer=layers.GatedAttentionUnit, name=name, units=self.intermediate_size,
                key_size=self.attention_key_size, activation=self.hidden_act, use_bias=False,
                normalization="softmax_plus", arguments={"a_bias": None if bias is None else True, "p_bias": "rotary"},
            )  # fmt: skip
            out = self.apply(inputs=[inputs, out], layer=layers.Add, name=f"{name}-Add")
            return self.apply(
                inputs=out, layer=layers.LayerNormalization, zero_mean=False, scale=False, offset=False,
                name=f"Transformer-{index}-FeedForward-Norm",
            )  # fmt: skip

        def variable_mapping(self):
            names = {"Embedding-Token": "word_embeddings", "Embedding-Segment": "token_type_embeddings"}
            return {layer: [f"bert/embeddings/{name}"] for layer, name in names.items()}

    return GAU


def build(case: Case, weights: tensors.Weights):
    """The network with the case's weights, and name -> symbolic output."""
    keras.backend.clear_session()
    config = {**case.config, "dropout_rate": 0, "attention_dropout_rate": 0}
    model = MODELS.get(case.name) or MODELS.get(case.family, case.family)
    options, extra = {}, None
    if case.family not in ("electra", *DECODERS) and not case.two_sided:
        options = {"with_mlm": "linear", "application": APPLICATIONS[case.mask]}
        if "bert/pooler/dense/kernel" in weights:
            options["with_pool"] = "linear" if case.family in ("simbert", "roformer_sim") else True
            options["with_nsp"] = "cls/seq_relationship/output_bias" in weights
    if case.family == "gau_alpha":
        model = gau_alpha()
    if case.family == "electra":
        options["with_discriminator"] = "linear"
    if case.family in DECODERS:
        options["final_activation"] = "linear"
    if case.two_sided:
        crossing = "position" in case.options or case.family == "t5_pegasus"
        options = {"with_lm": "linear", "cross_position_bias": crossing}
    if "attention" in case.options:
        options["residual_attention_scores"] = True
    if "condition_size" in case.options:
        extra = keras.layers.Input((case.options["condition_size"],), name="Input-Condition")
        options |= {"layer_norm_cond": extra, "additional_input_layers": extra}
    net = bert4keras.models.build_transformer_model(
        checkpoint_path=weights, model=model, return_keras_model=False, **config, **options
    )
    complete(case, net, weights)
    return net, outputs(case, net, options)


def complete(case: Case, net, weights: tensors.Weights) -> None:
    """What bert4keras' own tables do not load: the kernels of conditions, and GAU's."""
    norms = {layer: names for layer, names in net.variable_mapping().items() if names and "beta" in names[0]}
    if "condition_size" in case.options:
        for layer, names in norms.items():
            place = names[0].removesuffix("/beta")
            for part in ("beta_dense", "gamma_dense"):
                getattr(net.layers[layer], part).kernel.assign(weights[f"{place}/{part}/kernel"])
    if case.family == "gau_alpha":
        for index in range(case.config["num_hidden_layers"]):
            unit, place = net.layers[f"Transformer-{index}-GAU"], f"GAU_alpha/encoder/layer_{index}/gau"
            unit.i_dense.kernel.assign(weights[f"{place}/i_dense/kernel"])
            unit.o_dense.kernel.assign(weights[f"{place}/o_dense/kernel"])
            unit.q_scaleoffset.gamma.assign(weights[f"{place}/q_scaleoffset/gamma"])
            unit.k_scaleoffset.gamma.assign(weights[f"{place}/k_scaleoffset/gamma"])


def outputs(case: Case, net, options: dict) -> dict:
    last, layers = case.config["num_hidden_layers"] - 1, net.layers

    def of(name: str, node: int = -1):
        return layers[name].get_output_at(node)

    if case.two_sided:
        # Encoder and decoder stand alone too; the last call of a layer is the one that joins them.
        return {"encoded": net.encoder.outputs[0], "hidden": of("Decoder-Output-Norm"), "logits": net.model.output}
    if case.family in ("gpt", "gpt2", "gpt2_ml"):
        name = {"gpt2": "Output-Norm", "gpt2_ml": f"Transformer-{last}-FeedForward-Norm-1"}.get(case.family)
        return {"hidden": of(name or f"Transformer-{last}-FeedForward-Norm"), "logits": net.model.output}
    norm = "Transformer-FeedForward-Norm" if case.name in ("albert", "albert_unilm") else None
    found = {"hidden": of(norm or f"Transformer-{last}-FeedForward-Norm")}
    if case.family == "electra":
        return found | {"discriminator": of("Discriminator-Prediction")}
    if options.get("with_pool"):
        found["pooled"] = of("Pooler-Dense")
    if options.get("with_nsp"):
        found["nsp"] = of("NSP-Proba")
    return found | {"mlm": of("MLM-Activation" if "MLM-Activation" in layers else "Output-MLM-Activation")}


def runner(case: Case) -> Callable[..., dict[str, np.ndarray]]:
    """Build the network once; what comes back runs inputs through it, with the case's weights or others."""
    net, found = build(case, case.weights())
    graph = keras.Model(net.inputs, list(found.values()))
    epsilons = {layer.epsilon for layer in graph.layers if hasattr(layer, "epsilon") and layer.name != "MLM-Norm"}
    stated = case.config.get("layer_norm_eps", case.config.get("layer_norm_epsilon"))
    assert stated in epsilons and epsilons <= {stated, 1e-12}, (case.name, epsilons)

    def run(given: dict[str, np.ndarray], weights: tensors.Weights | None = None) -> dict[str, np.ndarray]:
        if weights:
            net.load_weights_from_checkpoint(weights)
            complete(case, net, weights)
        values = graph(list(given.values()), training=False)
        results = {name: np.asarray(value, "float64") for name, value in zip(found, values)}
        if "nsp" in results:  # its softmax is built in
            results["nsp"] = np.log(results["nsp"])
        if "discriminator" in results:
            results["discriminator"] = results["discriminator"][..., 0]
        return results

    return run


def check(case: Case, run: Callable, given: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    """Padding is not read, the order of the words is, and every tensor matters."""
    head = "logits" if "logits" in found else "hidden"
    last = case.lengths[-1]
    alone = {key: value[-1:, :last] if key in ("tokens", "segments") else value[-1:] for key, value in given.items()}
    size = np.flatnonzero(given["decoder_tokens"][-1])[-1] + 1 if "decoder_tokens" in given else last
    gap = np.abs(run(alone)[head][0, :size] - found[head][-1, :size]).max()
    assert gap < 1e-9, f"{case.name}: padding is read ({gap})"
    exchanged, after = turned(given)
    moved = np.abs(run(exchanged)[head][0, after:] - found[head][0, after:]).max()
    assert moved > 0.01, f"{case.name}: the order of the words is hardly read ({moved})"
    weights, shown = case.weights(), {}
    for name, value in weights.items():
        changed = run(given, weights | {name: value + 0.1 * np.cos(np.arange(value.size)).reshape(value.shape)})
        shown[name] = max(np.abs(changed[key] - found[key]).max() for key in found)
    dull = {name: f"{gap:.0e}" for name, gap in shown.items() if gap < 1e-3}
    assert all(name.endswith("key/bias") or "key_layer/bias" in name for name in dull), dull  # softmax forgets it
    print(
        f"    values to {np.abs(found[head]).max():.1f}, order moves {moved:.2f}, {len(dull)} of {len(weights)} unread"
    )


if __name__ == "__main__":
    keras, bert4keras = import_bert4keras()
    chosen = [name for name in sys.argv[1:] if not name.startswith("--")]
    for row in CASES.values():
        if row.oracle == BERT4KERAS and (not chosen or row.name in chosen):
            data = inputs(row)
            forward = runner(row)
            result = forward(data)
            write(row, data, result)
            check(row, forward, data, result)
