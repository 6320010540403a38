"""The cast beside whatever transformers is installed: its own numbers still hold, and it opens what we save."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parity.cases import CASES, TRANSFORMERS

pytest.importorskip("torch", reason="live parity needs torch; the goldens cover the rest")
transformers = pytest.importorskip("transformers", reason="live parity needs transformers; the goldens cover the rest")

from parity import twins  # noqa: E402
from parity.opened import REFUSED, compared, opened  # noqa: E402

pytestmark = pytest.mark.once
# transformers has no masks but these two.
SAVED = [
    name
    for name, case in CASES.items()
    if name not in REFUSED["huggingface"] and "prefix" not in case.mask and not name.endswith("_lm")
]


@pytest.mark.parametrize("name", [name for name, row in CASES.items() if row.oracle == TRANSFORMERS])
def test_transformers_still_says_so(name: str) -> None:
    case = CASES[name]
    found = twins.outputs(twins.of_row(case), case.inputs(), case.pad)
    expected = case.expected()
    assert set(found) == set(expected)
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", SAVED)
def test_transformers_opens_what_is_saved(name: str, tmp_path: Path) -> None:
    """With nothing missing and nothing over, and with the original's numbers, whoever the original was."""
    case = CASES[name]
    opened(name).save(tmp_path / "out", format="huggingface")
    said = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    architecture = getattr(transformers, said["architectures"][0])
    twin, report = architecture.from_pretrained(tmp_path / "out", output_loading_info=True, attn_implementation="eager")
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    found = twins.outputs(twin.eval(), case.inputs(), case.pad)
    expected = case.expected()
    assert set(expected) <= set(found), set(expected) ^ set(found)
    for key, theirs in expected.items():
        where = compared(case, key)
        ours = found[key] if where is None else found[key][where]
        np.testing.assert_allclose(ours, theirs if where is None else theirs[where], rtol=0, atol=1e-5, err_msg=key)
