"""The rows of transformers' own files, computed by whatever transformers is installed: still the golden numbers."""

from __future__ import annotations

import numpy as np
import pytest

from parity.cases import CASES, TRANSFORMERS

pytest.importorskip("torch", reason="live parity needs torch; the goldens cover the rest")
pytest.importorskip("transformers", reason="live parity needs transformers; the goldens cover the rest")

from parity import twins  # noqa: E402

pytestmark = pytest.mark.once


@pytest.mark.parametrize("name", [name for name, row in CASES.items() if row.oracle == TRANSFORMERS])
def test_transformers_still_says_so(name: str) -> None:
    case = CASES[name]
    found = twins.outputs(twins.of_row(case), case.inputs(), case.pad)
    expected = case.expected()
    assert set(found) == set(expected)
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-5, err_msg=key)
