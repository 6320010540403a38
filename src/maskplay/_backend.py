"""Which Keras backend runs: chosen when nobody has, the first installed of jax, torch, tensorflow. Imported
before Keras is. Layers ask nothing but which of two ways to the same numbers is the faster, or known to the backend.
"""

import os
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from maskplay.errors import MissingExtra, UserError

BACKENDS = ("jax", "torch", "tensorflow")
NO_MEMORY = re.compile("resource_?exhausted|out of memory|can't allocate memory", re.IGNORECASE)


def choose() -> None:
    """Set KERAS_BACKEND if it is unset and Keras is not imported yet; a choice already made is obeyed.

    Raises:
        UserError: KERAS_BACKEND is none of ours.
        MissingExtra: it is not installed, or none is; the text names the extras.
    """
    if "keras" in sys.modules:
        return
    if (name := os.environ.get("KERAS_BACKEND")) is not None:
        if name in BACKENDS and find_spec(name) is None:
            raise MissingExtra(f"KERAS_BACKEND={name}", name)
        if not name.isidentifier() or find_spec(name) is None:  # Keras has others, which work as far as they go
            raise UserError(f"KERAS_BACKEND: expected one of {', '.join(BACKENDS)}, found {name!r:.40}")
        return
    installed = [name for name in BACKENDS if find_spec(name) is not None]
    if not installed:
        raise MissingExtra("maskplay", *BACKENDS)
    os.environ["KERAS_BACKEND"] = installed[0]


def fuses() -> bool:
    """Does the backend always compile, so that a formula written out costs one pass over memory? True under JAX."""
    return is_jax()


def seed(number: int) -> None:
    """Seed whatever Keras draws from outside its layers, 0 to 2³² - 1: for initial weights, and PyTorch for dropout.

    `keras.utils.set_random_seed` also seeds TensorFlow, whose generators Keras does not use. For that it imports it
    wherever it is installed, which takes seconds, and there each seed makes all compiled functions start anew.
    """
    import keras

    random.seed(number)
    np.random.seed(number)
    if keras.config.backend() == "torch":
        import_module("torch").manual_seed(number)


def is_jax() -> bool:
    import keras

    return keras.config.backend() == "jax"


def learns_faster_written_out(query: Any) -> bool:
    """Is attention faster as formulas, where gradients follow? PyTorch's own is slow on its way back on a CPU."""
    import keras

    return keras.config.backend() == "torch" and query.device.type == "cpu"


def attends_in(kind: str) -> bool:
    """Does the backend's own attention know this dtype? JAX's asks for products that only GPUs have in float16."""
    return not (is_jax() and kind == "float16" and import_module("jax").default_backend() != "gpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, which each library does in a class of its own."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(f"{type(error).__name__}: {error}") is not None


def check_exports() -> None:
    """Refuse exports for inputs of any length: JAX takes no two of the same length, PyTorch keeps the one it tried.

    Raises:
        UserError: another backend than TensorFlow runs.
    """
    import keras

    if keras.config.backend() != "tensorflow":
        raise UserError(
            f"export: needs the backend TensorFlow, found {keras.config.backend()}: save a .keras file and export what "
            "KERAS_BACKEND=tensorflow opens, or pass an input_signature"
        )


def jax_for(what: str) -> Any:
    """The module jax, for what Keras can do under JAX alone.

    Raises:
        UserError: another backend runs.
    """
    import keras

    if not is_jax():
        raise UserError(f"{what}: needs the backend JAX, found {keras.config.backend()}; set KERAS_BACKEND=jax")
    return import_module("jax")


def known(x: Any) -> np.ndarray | None:
    """The values of a tensor of ids, or None while it is traced; under PyTorch also on any device but the CPU."""
    import keras

    if keras.config.backend() == "torch":
        torch = import_module("torch")
        if torch.compiler.is_compiling() or not isinstance(x, torch.Tensor) or x.device.type != "cpu":
            return None
    try:
        return np.asarray(x)
    except Exception:  # each backend has errors of its own for a value that is not there yet
        return None


def dense(gradient: Any) -> Any:
    """A gradient as a tensor: TensorFlow gives those of an embedding as slices, the same row perhaps several times."""
    if type(gradient).__name__ == "IndexedSlices":
        return import_module("tensorflow").convert_to_tensor(gradient)
    return gradient


def compiled(function: Callable[..., Any], variables: Sequence[Any]) -> Callable[..., Any]:
    """A function of tensors (and structures of them) that runs compiled where the backend compiles.

    Args:
        function: computes with the variables and changes none.
        variables: those it reads; what they hold may change between calls.
    """
    import keras

    # By name: those that are not chosen need not be installed.
    backend = import_module(keras.config.backend())
    if keras.config.backend() == "jax":

        def run(values: list[Any], *arguments: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return function(*arguments)

        fast = backend.jit(run)
        return lambda *arguments: fast([variable.value for variable in variables], *arguments)
    if keras.config.backend() == "tensorflow":
        return backend.function(function, reduce_retracing=True)
    return backend.no_grad()(function)


@contextmanager
def keeping(model: Any) -> Iterator[None]:
    """A block in which Keras predicts or evaluates: whatever ends it, the model has its weights afterwards."""
    variables = [*model.variables, *model.metrics_variables] if is_jax() else []
    held = [(variable, variable._value) for variable in variables]
    try:
        yield
    except BaseException:
        if held:
            model.jax_state_sync()  # what the last batch left, if one was finished
            model._jax_state = None
        for variable, value in held:
            if variable._value is None:  # none was
                variable._value = value
        raise


def untraced() -> Any:
    """A block that runs at once, and once, also where TensorFlow is tracing a function around it."""
    import keras

    return import_module("tensorflow").init_scope() if keras.config.backend() == "tensorflow" else nullcontext()


def renewed(make: Callable[[], Any], variables: Callable[[], Sequence[Any]]) -> Callable[[], Any]:
    """What is compiled once, and anew when the variables have become others (LoRA came, or quantization).

    Args:
        make: gives what is compiled.
        variables: those it reads, as they are now.

    Returns:
        A function that gives what was made last; call it before each use.
    """
    known: Sequence[Any] | None = None
    made = None

    def now() -> Any:
        nonlocal known, made
        current = variables()
        if known is None or [*map(id, current)] != [*map(id, known)]:
            known, made = current, make()
        return made

    return now


def value_and_gradient(function: Callable[[list[Any]], Any], x: list[Any], again: bool) -> tuple[Any, list[Any]]:
    """What `maskplay.autodiff.value_and_gradient` promises, for a list of tensors."""
    import keras

    def scalar(result: Any) -> Any:
        return result[0] if isinstance(result, tuple) else result

    backend = import_module(keras.config.backend())
    if keras.config.backend() == "jax":

        def both(x: list[Any]) -> tuple[Any, Any]:
            result = function(x)
            return scalar(result), result

        gradient, result = backend.grad(both, has_aux=True)(x)
        return result, gradient
    # The others find gradients along whatever way a tensor went: to tensors of our own only one way leads.
    if keras.config.backend() == "tensorflow":
        x = [backend.identity(tensor) for tensor in x]
        with backend.GradientTape() as tape:
            tape.watch(x)
            result = function(x)
        gradient = tape.gradient(scalar(result), x, unconnected_gradients="zero")
        return result, [backend.convert_to_tensor(each) for each in gradient]  # dense, also for rows that were gathered

    def run() -> tuple[Any, list[Any]]:
        attention = import_module("torch.nn.attention")
        unfused = attention.sdpa_kernel(attention.SDPBackend.MATH)  # fused attention has no second derivative
        with backend.enable_grad(), unfused if again else nullcontext():
            own = [tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_() for tensor in x]
            result = function(own)
            if not scalar(result).requires_grad:  # the function is constant
                return result, [backend.zeros_like(tensor) for tensor in own]
            slopes = backend.autograd.grad(
                scalar(result), own, create_graph=again, allow_unused=True, materialize_grads=True
            )
            return result, list(slopes)

    if backend.compiler.is_compiling():  # it would get this wrong without a word
        run = backend.compiler.disable(run)
    return run()
