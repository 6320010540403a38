"""What every test can rely on: a backend is chosen, and tests that know no backend are marked `once`."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TESTS = Path(__file__).parent

# Where code computes no tensor: `make test` runs these under JAX, and `make test-backends` leaves them out.
ONCE = (
    "laws",
    "text",
    "test_docs.py",
    "test_errors.py",
    "test_import.py",
    "test_metrics.py",
    "test_storage.py",
    "test_tables.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).parts[0] in ONCE:
            item.add_marker("once")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets: $MASKPLAY_DATA, by default ../shared/data beside the checkout."""
    folder = Path(os.environ.get("MASKPLAY_DATA", TESTS.parent.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder} (set MASKPLAY_DATA)")
    return folder
