"""Optimizer tricks as wrappers around any Keras optimizer, and the schedules Keras lacks.

A wrapper sees gradients before and weights after the inner step and knows nothing of its rule, so every trick fits
every optimizer and every other trick. A stack is written outermost first; where all of them are wanted, in this order:
`Average(Lookahead(LazyRows(ParameterRates(LayerAdaptation(Adam(…))))))`. What Keras has is not here: decay, clipping,
accumulation (`gradient_accumulation_steps=`), loss scaling, Lion, Adafactor. `Muon` is Keras' own, in half precision
where that pays.
"""

from maskplay.optimizers.average import Average
from maskplay.optimizers.decay import exclude_from_decay
from maskplay.optimizers.layer_adaptation import LayerAdaptation
from maskplay.optimizers.lazy_rows import LazyRows
from maskplay.optimizers.lookahead import Lookahead
from maskplay.optimizers.muon import Muon
from maskplay.optimizers.parameter_rates import ParameterRates
from maskplay.optimizers.schedules import MicroStepSchedule, PiecewiseLinear, WithoutBiasCorrection
from maskplay.optimizers.tiger import Tiger
from maskplay.optimizers.warmup import adamw, lamb, muon
from maskplay.optimizers.wrapper import GAINS_AND_BIASES, OptimizerWrapper

__all__ = [
    "GAINS_AND_BIASES",
    "Average",
    "LayerAdaptation",
    "LazyRows",
    "Lookahead",
    "MicroStepSchedule",
    "Muon",
    "OptimizerWrapper",
    "ParameterRates",
    "PiecewiseLinear",
    "Tiger",
    "WithoutBiasCorrection",
    "adamw",
    "exclude_from_decay",
    "lamb",
    "muon",
]
