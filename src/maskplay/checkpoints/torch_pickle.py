"""Read the pickle inside a PyTorch checkpoint without running it.

A pickle is a program for a small stack machine, and Python's own reader runs any function it names. This one knows the
few instructions a table of tensors needs, builds nothing but dicts, lists, tuples, text and numbers, and names no
function: the three constructors PyTorch uses are recognised, and anything else stops it.
"""

import struct
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from maskplay.checkpoints.tensors import quoted

MAX_PICKLE = 16 * 2**20  # bytes; a thousand tensors take some 200 kB
_MAX_STEPS = 1_000_000  # some 40 a tensor; each makes at most one small object

_ORDERED_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_STORAGES = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}


class Unreadable(ValueError):
    """The pickle is damaged, too large, or asks for something that a table of tensors does not need."""


class CutShort(Unreadable):
    """The bytes end before the pickle does."""


@dataclass(frozen=True)
class Global:
    """A name that stands for a class or function, and stays a name."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A run of `size` numbers of one kind, of which a tensor may use those from `start` to `stop`."""

    dtype: np.dtype
    key: str  # in a zip its member is `data/{key}`
    size: int
    start: int  # 0, and stop is size, but for the views of storages that PyTorch had before 0.4
    stop: int


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage: offset, sizes and strides in elements, all checked to be non-negative integers."""

    storage: Storage
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


# The instructions, by their byte: https://github.com/python/cpython/blob/main/Lib/pickletools.py
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_EMPTY = {b"}": dict, b"]": list, b")": tuple}
_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
_TEXTS = {b"X": 4, b"\x8c": 1, b"\x8d": 8, b"U": 1, b"T": 4}  # width of the length; the last two are Python 2's
_BYTES = {b"B": 4, b"C": 1, b"\x8e": 8}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}


def read_pickle(data: bytes) -> object:
    """What a pickle describes: dicts with text or integer keys, lists, tuples, text, numbers, `StoredTensor`s.

    Raises:
        Unreadable: the text says which global or instruction was refused, or where the pickle is damaged.

    Example:
        >>> import pickle
        >>> read_pickle(pickle.dumps({"a": [1, 2.5, None]}))
        {'a': [1, 2.5, None]}
        >>> read_pickle(pickle.dumps(print))
        Traceback (most recent call last):
        maskplay.checkpoints.torch_pickle.Unreadable: it names 'builtins.print', which no table of tensors needs
    """
    return Pickles(data).load()


class Pickles:
    """Pickles that follow each other; `load` reads the next, and the limits hold for all of them together.

    Attributes:
        at: where the next one begins.
        storages: those that the pickles read so far refer to, in that order and with repetitions.

    Example:
        >>> import pickle
        >>> pickles = Pickles(pickle.dumps(1) + pickle.dumps("a"))
        >>> pickles.load(), pickles.load()
        (1, 'a')
    """

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_PICKLE:
            raise Unreadable(f"a pickle of {len(data)} bytes, at most {MAX_PICKLE} are read")
        self.data = data
        self.at = 0
        self.steps = 0
        self.storages: list[Storage] = []
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.result: object = None

    def load(self) -> object:
        """What the next pickle describes. Raises `Unreadable`, as `read_pickle` does."""
        self.stack, self.marks, self.memo = [], [], {}
        while self.steps < _MAX_STEPS:
            self.steps += 1
            if self.step():
                return self.result
        raise Unreadable(f"a pickle of more than {_MAX_STEPS} instructions")

    def step(self) -> bool:
        """Follow one instruction; true at the end."""
        code = self.take(1)
        push = self.stack.append
        if code in _CONSTANTS:
            push(_CONSTANTS[code])
        elif code in _EMPTY:
            push(_EMPTY[code]())
        elif code in _NUMBERS:
            layout = _NUMBERS[code]
            push(struct.unpack(layout, self.take(struct.calcsize(layout)))[0])
        elif code == b"\x8a":  # LONG1
            push(int.from_bytes(self.take(self.number(1)), "little", signed=True))
        elif code in _TEXTS:
            push(self.text(self.take(self.number(_TEXTS[code]))))
        elif code in _BYTES:
            push(self.take(self.number(_BYTES[code])))
        elif code == b"(":
            self.marks.append(len(self.stack))
        elif code in _TUPLES:
            push(tuple(reversed([self.pop() for _ in range(_TUPLES[code])])))
        elif code == b"t":
            push(tuple(self.since_mark()))
        elif code == b"s":
            value, key = self.pop(), self.pop()
            self.set_items([key, value])
        elif code == b"u":
            self.set_items(self.since_mark())
        elif code == b"a":
            self.extend([self.pop()])
        elif code == b"e":
            self.extend(self.since_mark())
        elif code in b"qr\x94":  # BINPUT, LONG_BINPUT, MEMOIZE
            place = len(self.memo) if code == b"\x94" else self.number(1 if code == b"q" else 4)
            self.memo[place] = self.top()
        elif code in b"hj":  # BINGET, LONG_BINGET
            place = self.number(1 if code == b"h" else 4)
            if place not in self.memo:
                raise Unreadable(f"it is damaged at byte {self.at}: nothing was noted as {place}")
            push(self.memo[place])
        elif code == b"c":
            module, name = self.line(), self.line()
            push(self.known(f"{module}.{name}"))
        elif code == b"\x93":  # STACK_GLOBAL
            name, module = self.pop(), self.pop()
            push(self.known(f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""))
        elif code == b"Q":
            self.storages.append(_storage(self.pop()))
            push(self.storages[-1])
        elif code == b"R":
            arguments, function = self.pop(), self.pop()
            self.steps += _pairs(arguments)
            push(_constructed(function, arguments))
        elif code == b"b":
            self.pop()  # attributes, such as the _metadata of a module's state
            if not isinstance(self.top(), dict):
                raise Unreadable("it sets attributes of something other than a dict")
        elif code == b"0":
            self.pop()
        elif code == b"\x80":
            self.take(1)  # protocol
        elif code == b"\x95":
            self.take(8)  # frame
        elif code == b".":
            self.result = self.pop()
            return True
        else:
            raise Unreadable(f"it uses the instruction {code!r}, which no table of tensors needs")
        return False

    def take(self, size: int) -> bytes:
        self.at += size
        if self.at > len(self.data):
            raise CutShort("it is truncated")
        return self.data[self.at - size : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise CutShort("it is truncated")
        text = self.text(self.data[self.at : end])
        self.at = end + 1
        return text

    def text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise Unreadable(f"it is damaged at byte {self.at}: not UTF-8") from None

    def top(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Unreadable(f"it is damaged at byte {self.at}: its stack is empty")
        return self.stack[-1]

    def pop(self) -> object:
        value = self.top()
        self.stack.pop()
        return value

    def since_mark(self) -> list[object]:
        if not self.marks:
            raise Unreadable(f"it is damaged at byte {self.at}: a mark is missing")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def set_items(self, items: list[object]) -> None:
        _fill(self.top(), items)

    def extend(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise Unreadable("it appends to something other than a list")
        target.extend(items)

    def known(self, name: str) -> Global:
        if name not in (_ORDERED_DICT, _TENSOR, _PARAMETER) and name not in _STORAGES:
            raise Unreadable(f"it names {quoted(name)}, which no table of tensors needs")
        return Global(name)


def _fill(target: object, items: list[object]) -> None:
    """Set the dict items key, value, key, value ..."""
    if not isinstance(target, dict) or len(items) % 2:
        raise Unreadable("it sets items of something other than a dict")
    for key, value in zip(items[::2], items[1::2]):
        if not isinstance(key, str | int):  # the hash of a deep tuple would overrun the C stack
            raise Unreadable(f"it has a dict key that is neither text nor an integer but a {type(key).__name__}")
        target[key] = value


def _storage(identity: Any) -> Storage:
    match identity:
        case ("storage", Global(kind), str(key), str(), int(size), *view) if kind in _STORAGES and size >= 0:
            match view:
                case [] | [None]:
                    return Storage(_STORAGES[kind], key, size, 0, size)
                case [(str(), int(start), int(count))] if 0 <= start and 0 <= count and start + count <= size:
                    return Storage(_STORAGES[kind], key, size, start, start + count)
            raise Unreadable("it has a malformed view of a storage, or one that reaches outside")
    raise Unreadable("it refers to something that is not a tensor's storage")


def _pairs(arguments: object) -> int:
    """How many items a constructor would copy: each is work and memory, however often the same list is given."""
    return sum(len(each) for each in arguments if isinstance(each, list)) if isinstance(arguments, tuple) else 0


def _constructed(function: object, arguments: object) -> object:
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise Unreadable("it calls something that is not a constructor")
    match function.name, arguments:
        case "collections.OrderedDict", ():
            return {}
        case "collections.OrderedDict", (list(pairs),):
            made: dict[object, object] = {}
            for pair in pairs:
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    raise Unreadable("it makes an OrderedDict of something other than pairs")
                _fill(made, list(pair))
            return made
        case "torch._utils._rebuild_tensor_v2", (Storage() as storage, int(offset), tuple(sizes), tuple(strides), *_):
            if len(sizes) == len(strides) and all(
                isinstance(value, int) and value >= 0 for value in (offset, *sizes, *strides)
            ):
                return StoredTensor(storage, offset, sizes, strides)
            raise Unreadable("it has a tensor with a negative or malformed offset, size or stride")
        case "torch._utils._rebuild_parameter", (StoredTensor() as tensor, *_):
            return tensor
    raise Unreadable(f"it calls {function.name} with arguments of another kind than PyTorch writes")
