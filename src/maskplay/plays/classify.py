"""Text classification: what is a text, or a pair of texts, about? Sentiment, topics, paraphrase, entailment.

Examples are (text, label) or (text, text2, label). The encoder reads `[CLS] text [SEP] text2 [SEP]`; the vector of the
first token goes through BERT's pooler, dropout and one dense layer to a score per label; or the mean of all tokens'
vectors does, without the pooler. Trained with cross-entropy on the logits, as in BERT (arXiv:1810.04805, section 4.1).
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from maskplay import hosts
from maskplay.arrays import Arrays, write_arrays
from maskplay.batches import Batches
from maskplay.config import Config
from maskplay.errors import CheckpointError, UserError, listed, whole_number, within
from maskplay.examples import examples_of, names_of, row_of, texts_in, weights_of
from maskplay.language_model import LanguageModel, named_weights, token_specs, weight_values
from maskplay.layers.heads import Pooler
from maskplay.layers.initializer import Normal, to_be_filled
from maskplay.layers.pool import MaskedMean
from maskplay.layers.quantized import quantized_parts
from maskplay.losses import of_logits
from maskplay.model import Model
from maskplay.storage import MARKER, VERSION, new_folder
from maskplay.text.tokenizer import Tokenizer
from maskplay.text.words import jieba

WEIGHTS = "model.safetensors"
POOLS = ("pooler", "mean")
ENCODED_AT_ONCE = 4096  # texts; of their encodings only the ids are kept


@keras.saving.register_keras_serializable(package="maskplay")
class Classify(Model):
    """A classifier on a pretrained (or fresh) encoder, whose weights it shares.

    Args:
        bert: what `maskplay.load` returns, or anything with `.network` (a `LanguageModel`) and `.tokenizer`. It reads
            in both directions (`masks.padding()`), also where its family goes from left to right.
        labels: the names of the classes, at least two; their order is that of the scores.
        max_length: most tokens of an example, special ones included; default the encoder's positions, at most 512.
        dropout: rate before the scores while training.
        pool: what of the encoder is judged: "pooler" = the first token through BERT's pooler (a fresh one where there
            is none), "mean" = the mean of the tokens' vectors, special ones included, padding not. The mean may do
            better where pretraining had no use for the first token; with the bundled model it does.

    As a `keras.Model` it takes `{"tokens": …, "segments": …}`, ints `(batch, length)`, to logits `(batch, labels)`,
    float32 unless the dtype policy says otherwise. `fit` and `evaluate` also take examples, `predict` also texts.

    Raises:
        UserError: fewer than two labels, or a label twice; an encoder without a padding token, a vocabulary larger than
            its, or a `max_length` that does not fit; another `pool`.

    Example:
        >>> from maskplay.pretrained import Pretrained
        >>> train = [("好吃", "pos"), ("难吃", "neg"), ("真好", "pos"), ("太难", "neg")]
        >>> tokenizer = Tokenizer.from_characters([text for text, _ in train], max_size=100)
        >>> tiny = Config(vocab_size=100, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32)
        >>> play = Classify(Pretrained(LanguageModel(tiny), tokenizer), labels=["neg", "pos"])
        >>> play.compile(keras.optimizers.Adam(1e-2))
        >>> history = play.fit(train, epochs=20, verbose=0)
        >>> play.predict(["好吃", "难吃"])
        ['pos', 'neg']
    """

    def __init__(
        self,
        bert: Any,
        labels: Sequence[str],
        max_length: int | None = None,
        dropout: float = 0.1,
        pool: Literal["pooler", "mean"] = "pooler",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "classify")
        super().__init__(**kwargs)
        self.labels = names_of(labels)
        if not hasattr(bert, "network"):
            raise UserError(f"expected what mp.load returns, found {bert!r:.60}: write Classify(mp.load(…), labels)")
        network = bert.network
        self.config: Config = network.config.but(num_decoder_layers=0)  # of T5 only the encoder reads
        if self.config.condition_size is not None:
            raise UserError("a classifier has no condition to give: load the network without condition_size")
        if self.config.pad_id is None:
            name = getattr(bert, "family", "network")
            raise UserError(f"a {name} has no padding token to fill batches with: load it with pad_id=…")
        self.tokenizer: Tokenizer | None = bert.tokenizer
        if self.tokenizer is not None and len(self.tokenizer) > self.config.vocab_size:
            raise UserError(f"the vocabulary has {len(self.tokenizer)} tokens, the encoder {self.config.vocab_size}")
        longest = min(self.config.longest or 512, 512)
        asked = longest if max_length is None else max_length
        self.max_length = whole_number("max_length", asked, 3, self.config.longest or 2**20)
        if not within(dropout, 0, 1):
            raise UserError(f"dropout: expected a rate from 0 to 1, found {dropout!r}")
        if pool not in POOLS:
            raise UserError(f"pool: expected {' or '.join(map(repr, POOLS))}, found {pool!r:.40}")
        self.rate, self.pool = float(dropout), pool
        self._epochs = 0  # that examples were shuffled for: each `fit` goes on from there
        # Built by itself: its weights' paths, which optimizers may know, are then the same when a file is opened again.
        if not network.built:
            network.build()
        self._network = {"name": network.name, "heads": ["pooler"] if network.pooler else []}
        self.encoder, policy, spread = network.encoder, self.dtype_policy, self.config.initializer_range
        if pool == "mean":
            self.pooler = MaskedMean(dtype=policy, name="mean")
        else:
            size, activation = self.config.hidden_size, self.config.pooler_activation
            self.pooler = network.pooler or Pooler(size, activation, spread, dtype=policy, name="pooler")
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")
        self.classifier = keras.layers.Dense(
            len(self.labels), kernel_initializer=Normal(stddev=spread), dtype=policy, name="classifier"
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        hidden = (None, None, self.config.hidden_size)
        for layer, shape in ((self.pooler, hidden), (self.classifier, hidden[1:])):
            if not layer.built:
                layer.build(shape)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        tokens, segments = (inputs["tokens"], inputs.get("segments")) if isinstance(inputs, dict) else (inputs, None)
        # None: where "segments" are token ids (CDial-GPT), zeros would be one.
        hidden = self.encoder(tokens, segments=segments if self.config.num_segments else None, training=training)
        valid = [ops.not_equal(tokens, self.config.pad_id)] if self.pool == "mean" else []
        return self.classifier(self.dropout(self.pooler(hidden, *valid), training=training))

    # Training and using it as a Keras model, with examples in place of arrays

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`; by default AdamW at 2e-5, cross-entropy of the logits, and accuracy.

        The defaults leave out rows of weight 0, with which `Batches` may fill up a batch.

        Raises:
            UserError: a loss that takes the outputs, which are logits, for probabilities.
        """
        if optimizer is None:
            optimizer = keras.optimizers.AdamW(2e-5)
        if metrics is None and weighted_metrics is None:
            weighted_metrics = ["accuracy"]
        loss = keras.tree.map_structure(of_logits, loss)
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As `keras.Model.fit`; `x` and `validation_data` may be examples.

        Args:
            x: a list of examples, each (text, label) or (text, text2, label), or a dictionary or object with `text`,
                `label` and perhaps `text2`; or what Keras takes, except generators.
            y, validation_split: for arrays only.
            batch_size: default 32.
            sample_weight: a number for each example, or as Keras takes it.
            class_weight: of examples by label, `{"pos": 2.0}`; labels that are not named count 1.
            epochs, verbose, callbacks, validation_data, shuffle, *args, **kwargs: as for `keras.Model.fit`.

        Raises:
            UserError: `x` is neither examples nor what Keras takes, or examples come with something for arrays.
            DataError: an example has no text, or a label that is not among `labels`.
        """
        if isinstance(validation_data, tuple) and validation_data:
            if examples_of(validation_data[0], "validation_data") is not None:
                raise UserError("validation_data: expected a list of examples, or arrays (inputs, targets)")
        elif (examples := examples_of(validation_data, "validation_data")) is not None:
            validation_data = self.batches(examples, _rows(batch_size), shuffle=False, shard=hosts.place())
        examples = examples_of(x)
        if examples is not None:
            sample_weight = weights_of(examples, self.labels, class_weight, sample_weight)
            class_weight = None
        if validation_split and examples is not None:
            raise UserError("validation_split is for arrays: split the examples, pass a part as validation_data")
        x, sample_weight = self._labelled(x, y, batch_size, sample_weight, shuffle)
        if isinstance(x, Batches):
            batch_size, shuffle = None, False  # Batches draws its own order
        if examples is not None:
            x.epoch = kwargs.get("initial_epoch") or self._epochs
        history = super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            callbacks,
            validation_split,
            validation_data,
            shuffle,
            class_weight,
            sample_weight,
            *args,
            **kwargs,
        )
        if examples is not None:
            self._epochs = x.epoch
        return history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As `keras.Model.evaluate`; `x` may be a list of labelled examples, as for `fit`."""
        x, sample_weight = self._labelled(x, y, batch_size, sample_weight, shuffle=False)
        if isinstance(x, Batches):
            batch_size = None
        return super().evaluate(x, y, batch_size, verbose, sample_weight, *args, **kwargs)

    def _labelled(self, x: Any, y: Any, batch_size: int | None, weights: Any, shuffle: bool) -> tuple[Any, Any]:
        """What Keras is given for `x` and `sample_weight`; the model is compiled, at the latest, now."""
        if not self.compiled:
            self.compile()
        if (examples := examples_of(x)) is None:
            return x, weights
        if y is not None:
            raise UserError("y is for arrays: examples bring their labels, [(text, label), …]")
        shared = {"shuffle": shuffle, "weights": weights, "shard": hosts.place()}
        return self.batches(examples, _rows(batch_size), **shared), None

    def predict(self, x: Any, batch_size: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Labels of texts; for arrays what Keras predicts, logits `(n, labels)`.

        Args:
            x: a list of texts, of pairs (text, text2), or of dictionaries or objects whose labels are ignored (two
                strings are two texts, no label); or what Keras takes, except generators.
            batch_size: default 32.
            *args, **kwargs: everything else of `keras.Model.predict`, for arrays.

        Raises:
            UserError: `x` is none of these.
        """
        if (texts := examples_of(x)) is not None:
            return [self.labels[i] for i in self.probabilities(texts, _rows(batch_size)).argmax(axis=-1)]
        return super().predict(x, batch_size, *args, **kwargs)

    def probabilities(self, texts: Sequence[Any], batch_size: int = 32) -> np.ndarray:
        """The probability of each label, `(texts, labels)` float32, for texts as `predict` takes them.

        Raises:
            UserError: there is no tokenizer, `texts` is one text or no list at all, or weights are no numbers.
        """
        batch_size = _rows(batch_size)
        if not len(texts_in(texts)):
            return np.zeros((0, len(self.labels)), "float32")
        # Batches of one size, a power of two: a backend that compiles meets few shapes, and one text does not cost 32.
        rows, share = min(batch_size, 1 << (len(texts) - 1).bit_length()), hosts.sharing_devices()
        rows = -(-rows // share) * share
        batches = self.batches(texts, rows, labelled=False, shuffle=False, multiple_of=rows)
        if hosts.place()[1] > 1:  # a call for each length: each is compiled
            inputs = groupby((batches[i][0] for i in range(len(batches))), lambda each: each["tokens"].shape[1])
            alike = [keras.tree.map_structure(lambda *parts: np.concatenate(parts), *some) for _, some in inputs]
            found = np.concatenate([hosts.predict(self, each, rows) for each in alike])
        else:
            found = super().predict(batches, verbose=0)
        logits = batches.restore(found).astype("float32")
        if wrong := int((~np.isfinite(logits)).any(axis=-1).sum()):
            raise UserError(f"{wrong} of {len(logits)} texts get no numbers: training diverged, or weights are damaged")
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def batches(self, examples: Sequence[Any], batch_size: int = 32, labelled: bool = True, **kwargs: Any) -> Batches:
        """Examples as `fit`, `evaluate` and (without labels) `predict` take them, encoded and cut into batches.

        Args:
            examples: as for `fit`, or with `labelled=False` as for `predict`.
            batch_size: examples in a batch.
            labelled: whether labels are wanted.
            **kwargs: everything else of `maskplay.batches.Batches`: shuffle, seed, buckets, shard, …

        Raises:
            UserError: there is no tokenizer, or numbers that do not fit together.
            DataError: an example has no text, or a label that is not among `labels`.
        """
        if self.tokenizer is None:
            raise UserError("this play has no tokenizer (as a clone has none): it takes token ids, not texts")
        ids: list[list[int]] = []
        segments: list[list[int]] = []
        targets: list[int] = []
        for start in range(0, len(texts_in(examples)), ENCODED_AT_ONCE):
            chunk = examples[start : start + ENCODED_AT_ONCE]
            rows = [row_of(example, start + i, self.labels if labelled else None) for i, example in enumerate(chunk)]
            texts, pairs, numbers = zip(*rows)
            encodings = self.tokenizer.encode_batch(texts, pairs, self.max_length)
            ids += [encoding.ids for encoding in encodings]
            segments += [encoding.segments for encoding in encodings]
            targets += numbers
        return Batches(
            ids,
            segments if (self.config.num_segments or 0) > 1 else None,
            np.array(targets, "int32") if labelled else None,
            batch_size=batch_size,
            pad_id=self.config.pad_id or 0,
            **kwargs,
        )

    def export(self, filepath: Any, *args: Any, input_signature: Any = None, **kwargs: Any) -> None:
        """As `keras.Model.export`; by default of a dictionary of any shape, as `call` takes it, to logits.

        Raises:
            UserError: under JAX or PyTorch without an `input_signature`.
        """
        input_signature = input_signature or [token_specs(self.config)]
        super().export(filepath, *args, input_signature=input_signature, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras itself does not trust a `compile` of our own with what it stored; ours takes the same arguments.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **quantized_parts(self),
            "config": self.config.to_dict(),
            "labels": list(self.labels),
            "max_length": self.max_length,
            "dropout": self.rate,
            "pool": self.pool,
            "network": self._network,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Classify":
        config = dict(config)
        options: dict[str, Any] = {"heads": ["pooler"], "dtype": config.get("dtype"), **config.pop("network", {})}
        network = LanguageModel(Config.from_dict(config.pop("config")), **options)
        return cls(SimpleNamespace(network=network, tokenizer=None), **config)

    def save_assets(self, folder: str) -> None:
        """Keras calls this for a `.keras` file: the tokenizer goes with it."""
        if self.tokenizer is not None:
            self.tokenizer.save(folder)

    def load_assets(self, folder: str) -> None:
        self.tokenizer = Tokenizer.load(folder)

    # The folder

    def save(self, path: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write a folder with weights, labels and tokenizer, which `maskplay.load` opens; or Keras' own `.keras` file.

        Args:
            path: a folder's name, or a file's that ends in `.keras`.
            **kwargs: for a `.keras` file, what `keras.Model.save` takes; for a folder `overwrite=False`.

        Raises:
            UserError: the folder's name is taken by something else, or by anything without `overwrite`; what only a
                folder can hold, or only a file.
        """
        if Path(path).suffix == ".keras":
            if getattr(self.tokenizer, "segmenter", None) not in (None, jieba):
                raise UserError("save: a .keras file cannot be opened with a segmenter of your own: save a folder")
            super().save(path, **kwargs)
            return
        overwrite = kwargs.pop("overwrite", True)
        if kwargs:
            raise UserError(f"save: a folder takes no {listed(kwargs)}; a name that ends in .keras does")
        if not overwrite and Path(path).exists():
            raise UserError(f"{path}: is there already, and overwrite=False")
        with new_folder(path) as folder:
            self.write(folder)

    def write(self, folder: Path) -> None:
        """What `save` puts into its folder, for callers that put more beside it."""
        if self.tokenizer is None:
            raise UserError("this play has no tokenizer to save; save it as a .keras file")
        if any(layer.quantization_mode for layer in self._flatten_layers()):
            raise UserError("a quantized play is not saved as a folder: save a .keras file, or save before quantize(…)")
        description = {
            "format": "play",
            "play": "classify",
            "version": VERSION,
            "labels": list(self.labels),
            "max_length": self.max_length,
            "dropout": self.rate,
            "pool": self.pool,
            "config": self.config.to_dict(),
        }
        (folder / MARKER).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_arrays(folder / WEIGHTS, self._by_path(weight_values))
        self.tokenizer.save(folder)

    @classmethod
    def open(cls, folder: Path, description: Mapping[str, Any], segmenter: Any = None) -> "Classify":
        """The play in a folder whose `maskplay.json` has been read; see `maskplay.plays.load`."""
        where = folder / MARKER
        try:
            config = Config.from_dict(dict(description["config"]))
            labels, options = description["labels"], {name: description[name] for name in ("max_length", "dropout")}
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: not a saved classifier, or damaged ({error})") from None
        options["pool"] = description.get("pool", "pooler")  # of before there was a choice
        arrays, heads = Arrays(folder / WEIGHTS), [] if options["pool"] == "mean" else ["pooler"]
        rows = (len(labels) if isinstance(labels, list) else 0) + len(heads) * config.hidden_size
        arrays.suffice(config.least_size + rows * config.hidden_size, MARKER)
        tokenizer, network = Tokenizer.load(folder, segmenter), LanguageModel(config, heads=heads)
        try:
            with to_be_filled():
                play = cls(SimpleNamespace(network=network, tokenizer=tokenizer), labels, **options)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: not a saved classifier, or damaged ({error})") from None
        arrays.fill(play._by_path(named_weights))
        return play

    def _by_path(self, named: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """All weights (or their values) by the paths that checkpoints have, wherever the encoder was built."""
        parts = {"encoder": self.encoder, "pooler": self.pooler, "classifier": self.classifier}
        return {f"{part}/{name}": weight for part in parts for name, weight in named(parts[part]).items()}


def _rows(batch_size: int | None) -> int:
    return 32 if batch_size is None else whole_number("batch_size", batch_size, 1)
