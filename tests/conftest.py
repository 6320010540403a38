"""What every test can rely on: a backend is chosen, and tests that know no backend are marked `once`."""

import gc
import importlib.metadata
import os
import random
import sys
from pathlib import Path

import hypothesis
import pytest

# How busy the machine is says nothing of an example, and a change is judged by the same examples wherever it is tried.
# `pytest --hypothesis-profile search` looks for new ones.
HOUSE = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("house", **HOUSE, derandomize=True)
hypothesis.settings.register_profile("search", **HOUSE)
hypothesis.settings.load_profile("house")

random.seed(0)  # Keras asks it for the seed of every initializer: also of layers that are made as tests are imported

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's threads wait for each other longer than tiny tensors take

# Tests compile thousands of small programs and run each a few times: XLA shall not polish them, and for JAX its older
# emitters, one after the other, are twice as fast. A process ends where one of these two flags is unknown, so they are
# for the version that constraints.txt names.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
PINNED = any(found.version.startswith("0.10.") for found in importlib.metadata.distributions(name="jaxlib"))
if os.environ["KERAS_BACKEND"] == "jax" and PINNED:
    FLAGS += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("XLA_FLAGS", FLAGS)

TESTS = Path(__file__).parent

# Where code computes no tensor, or much that is Keras' own: `make test` runs these under JAX, `make test-backends` not.
ONCE = (
    "checkpoints/test_crc32c.py",
    "checkpoints/test_npz_files.py",
    "checkpoints/test_safetensors_files.py",
    "checkpoints/test_snappy.py",
    "checkpoints/test_tensorflow_bundle.py",
    "checkpoints/test_torch_files.py",
    "checkpoints/test_torch_legacy.py",
    "cli/test_words.py",
    "laws",
    "parity/test_cast_precision.py",
    "pretext",
    "test_arrays.py",
    "test_command.py",
    "test_config.py",
    "test_corpus.py",
    "test_demo_data.py",
    "test_docs.py",
    "test_import.py",
    "test_pictures.py",
    "test_tables.py",
    "test_zh_small.py",
    "text",
    "words",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(TESTS / name) for name in ONCE):
            item.add_marker("once")


def pytest_collection_finish() -> None:
    gc.freeze()  # what imports made stays: no look at it again at every collection, and fewer of those
    gc.set_threshold(50_000, 10, 10)


def pytest_sessionfinish() -> None:
    gc.freeze()  # pytest's last collection would look through all that TensorFlow left, longer than xdist waits


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test draws the same numbers wherever and after whatever else it runs."""
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(0)
    if torch := sys.modules.get("torch"):  # Keras seeds it only where it is the backend
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets: $MASKPLAY_DATA, by default ../shared/data beside the checkout."""
    folder = Path(os.environ.get("MASKPLAY_DATA", TESTS.parent.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder} (set MASKPLAY_DATA)")
    return folder
