"""One layer of a transformer: its sub-layers, their additions, and where it is normalized."""

from typing import Any

import keras

from maskplay.config import BUCKETS, Config
from maskplay.layers.attention import Attention
from maskplay.layers.feed import FeedForward
from maskplay.layers.gated_attention import GatedAttention
from maskplay.layers.norm import conditioned, norm_of
from maskplay.layers.position import Rotary
from maskplay.layers.quantized import quantized_parts


@keras.saving.register_keras_serializable(package="maskplay")
class Block(keras.layers.Layer):
    """Attention (, attention to a memory) and feed-forward, each added to its input, normalized where the config says.

    Args:
        config: a `Config`, or its dictionary.
        cross: whether it looks at a memory too.

    Call arguments and results as `Attention`, where `memory` is for the second attention, with `memory_visible` and
    `memory_bias`; `condition` is for conditional layer normalization.

    Example:
        >>> from keras import ops
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16)
        >>> Block(tiny)(ops.ones((1, 3, 8))).shape
        (1, 3, 8)
    """

    def __init__(self, config: Config | dict[str, Any], cross: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, Config) else Config.from_dict(config)
        self.has_cross = cross
        policy = self.dtype_policy
        rotary = None
        if config.position.startswith("rotary"):
            rotary = Rotary(config.rotary_base, config.position == "rotary", dtype=policy, name="rotary")
        self.cross: Any = None
        self.cross_norm: Any = None
        self.feed: Any = None
        self.feed_norm: Any = None
        if config.attention == "gau":
            self.attention: keras.layers.Layer = GatedAttention(
                config.intermediate_size,
                config.size_per_key,
                config.activation,
                position=rotary,
                dropout=config.attention_dropout,
                initializer_range=config.initializer_range,
                use_bias=config.has_bias,
                dtype=policy,
                name="attention",
            )
        else:
            self.attention = self._attention("attention", rotary)
            self.feed = FeedForward(
                config.intermediate_size,
                config.activation,
                config.initializer_range,
                use_bias=config.has_bias,
                dtype=policy,
                name="feed",
            )
            self.feed_norm = norm_of(config, dtype=policy, name="feed_norm")
        self.attention_norm = norm_of(config, dtype=policy, name="attention_norm")
        if cross:
            self.cross = self._attention("cross", None)
            self.cross_norm = norm_of(config, dtype=policy, name="cross_norm")
        self.dropout = keras.layers.Dropout(config.dropout, dtype=policy, name="dropout")

    def _attention(self, name: str, position: keras.layers.Layer | None) -> Attention:
        config = self.config
        return Attention(
            config.num_heads,
            config.size_per_head,
            output_size=config.hidden_size,
            position=position,
            dropout=config.attention_dropout,
            initializer_range=config.initializer_range,
            num_kv_heads=config.num_kv_heads,
            key_size=config.key_size,
            use_bias=config.has_bias,
            scaled=config.position not in BUCKETS,
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: Any = None) -> None:
        for layer in (self.attention, self.attention_norm, self.cross, self.cross_norm, self.feed, self.feed_norm):
            if layer is not None and not layer.built:
                layer.build((None, None, self.config.hidden_size))

    def call(
        self,
        x: Any,
        memory: Any = None,
        visible: Any = None,
        memory_visible: Any = None,
        causal: bool = False,
        positions: Any = None,
        bias: Any = None,
        memory_bias: Any = None,
        relative: Any = None,
        condition: Any = None,
        cache: dict[str, Any] | None = None,
        start: Any = None,
        details: bool = False,
        training: bool | None = None,
    ) -> Any:
        place = "pre" if self.config.norm_at == "pre_open" else self.config.norm_at
        extra = {name: value for name, value in (("bias", bias), ("relative", relative)) if value is not None}
        mixed = self.attention(
            conditioned(self.attention_norm, x, condition) if place == "pre" else x,
            visible=visible,
            causal=causal,
            positions=positions,
            cache=cache and {name: cache[name] for name in ("keys", "values")},
            start=start,
            details=details,
            training=training,
            **extra,
        )
        mixed, *found = mixed if isinstance(mixed, tuple) else (mixed,)
        results: list[Any] = list(found)
        x = x + self.dropout(mixed, training=training)
        if place == "post":
            x = conditioned(self.attention_norm, x, condition)
        if self.cross is not None:
            remembered = cache["memory"] if cache is not None else self.cross.remember(memory)
            mixed, *_ = self.cross(
                conditioned(self.cross_norm, x, condition) if place == "pre" else x,
                visible=memory_visible,
                bias=memory_bias,
                cache=remembered,
                training=training,
            )
            x = x + self.dropout(mixed, training=training)
            x = x if place == "pre" else conditioned(self.cross_norm, x, condition)
            if cache is not None:
                results[0] = {**results[0], "memory": remembered}
        if self.feed is not None:
            inner = x
            if place != "post":
                inner = conditioned(self.feed_norm if place == "pre" else self.attention_norm, x, condition)
            x = x + self.dropout(self.feed(inner), training=training)
            if place != "pre":
                x = conditioned(self.feed_norm, x, condition)
        return (x, *results) if results else x

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        config = {"config": self.config.to_dict(), "cross": self.has_cross}
        return {**super().get_config(), **quantized_parts(self), **config}
