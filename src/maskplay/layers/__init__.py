"""The parts a transformer is made of: each a Keras layer that serialises, none knows a model."""

from maskplay.layers.attention import Attention, Visibility
from maskplay.layers.block import Block
from maskplay.layers.embedding import Embedding
from maskplay.layers.feed import FeedForward
from maskplay.layers.gated_attention import GatedAttention
from maskplay.layers.heads import MaskedTokens, NextSentence, Pooler, ReplacedTokens, TokenScores
from maskplay.layers.learning_rate import LearningRateMultiplier
from maskplay.layers.norm import LayerNorm, RMSNorm
from maskplay.layers.pool import AttentionPooling, MaskedMax, MaskedMean, masked_softmax
from maskplay.layers.position import LearnedPosition, Places, RelativeBias, RelativeSinusoids, Rotary

__all__ = [
    "Attention",
    "AttentionPooling",
    "Block",
    "Embedding",
    "FeedForward",
    "GatedAttention",
    "LayerNorm",
    "LearnedPosition",
    "LearningRateMultiplier",
    "MaskedMax",
    "MaskedMean",
    "MaskedTokens",
    "NextSentence",
    "Places",
    "Pooler",
    "RMSNorm",
    "RelativeBias",
    "RelativeSinusoids",
    "ReplacedTokens",
    "Rotary",
    "TokenScores",
    "Visibility",
    "masked_softmax",
]
