"""Golden numbers of transformers for the rows of cases.py that name it as their oracle.

Written with torch 2.13.0 and transformers 5.23.0, in float64 (RMS norms and rotary angles stay in float32 there):

    PYTHONPATH=tests python -m parity.make_huggingface_cast_golden [NAME ...]

A row that names an older transformers is made when that version runs this (4.49.0, torch 2.13.0 as well).

Each row's table of tensors is checked to be, name for name and shape for shape, what `save_pretrained` writes.
"""

from __future__ import annotations

import sys

import transformers

from parity import twins
from parity.cases import CASES
from parity.golden_file import inputs, write

if __name__ == "__main__":
    for row in CASES.values():
        if row.oracle == f"transformers {transformers.__version__}" and (row.name in sys.argv[1:] or not sys.argv[1:]):
            twin, given = twins.of_row(row), inputs(row)
            result = twins.outputs(twin, given, row.config.get("pad_token_id", 0))
            write(row, given, result)
            twins.check(row, twin, given, result)
