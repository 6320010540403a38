"""The parts a transformer is made of: each a Keras layer that serialises, none knows a model."""

from maskplay.layers.attention import Attention, Visibility
from maskplay.layers.embedding import Embedding
from maskplay.layers.feed import FeedForward
from maskplay.layers.heads import MaskedTokens, NextSentence, Pooler
from maskplay.layers.learning_rate import LearningRateMultiplier
from maskplay.layers.norm import LayerNorm
from maskplay.layers.pool import AttentionPooling, MaskedMax, MaskedMean, masked_softmax
from maskplay.layers.position import LearnedPosition, Rotary

__all__ = [
    "Attention",
    "AttentionPooling",
    "Embedding",
    "FeedForward",
    "LayerNorm",
    "LearnedPosition",
    "LearningRateMultiplier",
    "MaskedMax",
    "MaskedMean",
    "MaskedTokens",
    "NextSentence",
    "Pooler",
    "Rotary",
    "Visibility",
    "masked_softmax",
]
