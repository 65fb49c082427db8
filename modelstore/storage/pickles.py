"""What a pickle would import, found by walking its opcodes; nothing is imported, called or built.

A pickle is a program for a small stack machine. Its only way to code is an import followed by a call, so what it can do
is decided by what it imports. The walk follows the stack as far as names depend on it: strings, the memo, tuples.
"""

from __future__ import annotations

import io
import math
import pickletools
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Walk", "walk"]

_LONGEST_KEPT: Final = 1 << 20
_WRAPPER: Final = ("joblib.numpy_pickle", "NumpyArrayWrapper")


@dataclass(slots=True)
class Walk:
    """One stream of pickles, walked.

    Attributes:
        imports: Module and name of everything that it imports, in order, without repetitions.
        pickles: How many pickles came to their end.
        problem: Why the walk ended before; empty when all was well.
    """

    imports: dict[tuple[str, str], None] = field(default_factory=dict)
    pickles: int = 0
    problem: str = ""


def walk(stream: IO[bytes], size: int) -> Walk:
    """Walk the pickles at the position of a seekable stream, one behind the other.

    joblib puts the bytes of arrays between the opcodes, where `joblib.load` skips them and `pickle.load` would take
    them for opcodes. Whoever made the file knows which one will be used, so both readings count.

    Args:
        stream: Seekable.
        size: Where it ends.
    """
    begin = stream.tell()
    found = _walk_all(stream, size, arrays=False)
    if _WRAPPER in found.imports:
        stream.seek(begin)
        other = _walk_all(stream, size, arrays=True)
        found.imports |= other.imports
        found.pickles = max(found.pickles, other.pickles)
        found.problem = other.problem
    return found


def _walk_all(stream: IO[bytes], size: int, *, arrays: bool) -> Walk:
    found = Walk()
    source = _Source(stream, size)
    while stream.tell() < size:
        machine = _Machine(source, found, arrays=arrays)
        known = len(found.imports)
        try:
            machine.run()
        except (ValueError, IndexError, KeyError, EOFError, RecursionError, OverflowError, MemoryError) as error:
            # What follows a whole pickle may be anything, as in PyTorch's old format: bytes of tensors.
            if not found.pickles or len(found.imports) > known:
                found.problem = f"it breaks off at byte {stream.tell()}: {' '.join(str(error).split())[:100]}"
            break
        found.pickles += 1
    return found


class _Mark:
    """Where a MARK lies on the stack."""


_MARK: Final = _Mark()
_SOMETHING: Final = object()
"""A value that no name can come from."""


@dataclass(frozen=True, slots=True)
class _Imported:
    """What an import gave."""

    module: str
    name: str


@dataclass(slots=True)
class _Made:
    """What calling an import gave."""

    what: Any
    arguments: Any = None
    state: Any = None


class _Skipped(bytes):
    """A long text or block of bytes whose content is not kept; says that it is as long as it was."""

    length: int

    def __len__(self) -> int:
        return self.length


class _Source:
    """A stream that opcodes are read from: never further than its end, never much into memory."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size = stream, size
        self.tell = stream.tell

    def read(self, count: int) -> bytes:
        left = self._size - self._stream.tell()
        if count < 0 or count > left:
            raise ValueError(f"{count} bytes are wanted, and {left} are left")
        if count <= _LONGEST_KEPT:
            return self._stream.read(count)
        self.skip(count)
        skipped = _Skipped()
        skipped.length = count
        return skipped

    def skip(self, count: int) -> None:
        if not 0 <= count <= self._size - self._stream.tell():
            raise ValueError(f"{count} bytes are to be skipped, and fewer are left")
        self._stream.seek(count, io.SEEK_CUR)

    def readline(self) -> bytes:
        line = self._stream.readline(_LONGEST_KEPT)
        if not line.endswith(b"\n") or self._stream.tell() > self._size:
            raise ValueError("a line has no end")
        return line[:-1]


class _Machine:
    """The stack of one pickle."""

    def __init__(self, source: _Source, found: Walk, *, arrays: bool) -> None:
        self._source, self._found, self._arrays = source, found, arrays
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._protocol = 0

    def run(self) -> None:
        """Walk to the STOP.

        Raises:
            ValueError, IndexError, KeyError, EOFError: It is no pickle, or broken.
        """
        for opcode, argument in self._opcodes():
            handler = _HANDLERS.get(opcode.name)
            if handler is not None:
                handler(self, argument)
            elif opcode.name in _CONSTANTS:
                self._stack.append(argument)
            else:
                self._generic(opcode)

    def _opcodes(self) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
        opcode = None
        while opcode is None or opcode.name != "STOP":
            code = self._source.read(1).decode("latin-1")
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise ValueError(f"{code!r} is no opcode")
            yield opcode, self._argument(opcode)

    def _argument(self, opcode: pickletools.OpcodeInfo) -> Any:
        """Read what follows an opcode. Lines are not left to pickletools, which refuses some that loaders take."""
        if opcode.arg is None:
            return None
        kind = opcode.arg.name
        if kind == "stringnl_noescape_pair":
            return self._source.readline().decode(), self._source.readline().decode()
        if kind == "decimalnl_short" and opcode.name != "INT":
            return int(self._source.readline())
        if kind not in _LINES:
            return opcode.arg.reader(self._source)  # type: ignore[arg-type] # it asks for read, readline and tell only
        line = self._source.readline()
        if kind == "stringnl":
            line = line.strip()[1:-1]  # of its quotes
        return _SOMETHING if b"\\" in line else line.decode("latin-1")

    def _generic(self, opcode: pickletools.OpcodeInfo) -> None:
        for wanted in reversed(opcode.stack_before):
            if wanted is pickletools.stackslice:
                self._down_to_mark()
            elif wanted is not pickletools.markobject:
                self._stack.pop()
        self._stack.extend([_SOMETHING] * len(opcode.stack_after))

    def _down_to_mark(self) -> list[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                taken = self._stack[index + 1 :]
                del self._stack[index:]
                return taken
        raise ValueError("a mark is missing")

    def _import(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            module, name = "?", "?"  # a name that is worked out by the pickle itself
        if self._protocol < 3:
            module, name = _modern(module, name)
        self._found.imports[module, name] = None
        self._stack.append(_Imported(module, name))

    def set_protocol(self, argument: Any) -> None:
        self._protocol = int(argument)

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def pop(self, _: Any) -> None:
        self._stack.pop()

    def pop_mark(self, _: Any) -> None:
        self._down_to_mark()

    def dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def put(self, argument: Any) -> None:
        self._memo[int(argument)] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, argument: Any) -> None:
        self._stack.append(self._memo[int(argument)])

    def import_named(self, argument: Any) -> None:
        self._import(*argument)

    def import_from_stack(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._import(module, name)

    def instance(self, argument: Any) -> None:
        self._down_to_mark()
        self.import_named(argument)
        self._stack.append(_Made(self._stack.pop()))

    def extension(self, argument: Any) -> None:
        self._import("copyreg extension", str(argument))

    def call(self, _: Any) -> None:
        arguments = self._stack.pop()
        self._stack.append(_Made(self._stack.pop(), arguments))

    def call_with_keywords(self, _: Any) -> None:
        self._stack.pop()
        self.call(_)

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if not isinstance(target, _Made):
            return
        target.state = state
        if self._arrays and isinstance(target.what, _Imported) and (target.what.module, target.what.name) == _WRAPPER:
            self._skip_array(state)

    def empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _set(self._stack[-1], [key, value])

    def set_items(self, _: Any) -> None:
        items = self._down_to_mark()
        _set(self._stack[-1], items)

    def new_dict(self, _: Any) -> None:
        items = self._down_to_mark()
        self._stack.append({})
        _set(self._stack[-1], items)

    def new_tuple(self, _: Any) -> None:
        items = tuple(self._down_to_mark())
        self._stack.append(items)

    def tuple_of(self, count: int) -> None:
        items = tuple(self._stack[-count:]) if count else ()
        if len(items) < count:
            raise IndexError("the stack is too short")
        if count:
            del self._stack[-count:]
        self._stack.append(items)

    def _skip_array(self, state: Any) -> None:
        """Do as joblib's NumpyArrayWrapper.read_array: padding, then the bytes; or a pickle, for objects."""
        if not isinstance(state, dict):
            raise ValueError("an array of joblib has no description")  # noqa: TRY004 - told as a broken pickle
        item_bytes = _item_bytes(state.get("dtype"))
        if item_bytes is None:
            _Machine(self._source, self._found, arrays=True).run()
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            self._source.skip(self._source.read(1)[0])
        shape = state.get("shape")
        if not isinstance(shape, tuple) or not all(isinstance(side, int) for side in shape):
            raise ValueError("an array of joblib has no shape")
        self._source.skip(math.prod(shape) * item_bytes)


def _set(target: Any, items: list[Any]) -> None:
    if isinstance(target, dict):
        target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str)


def _item_bytes(dtype: Any) -> int | None:
    """Return how many bytes an element has, by the pickled form of its dtype; None for objects."""
    code = dtype.arguments[0] if isinstance(dtype, _Made) and isinstance(dtype.arguments, tuple) else None
    if not isinstance(code, str) or not code:
        raise ValueError("an array of joblib has no type")
    if code[0] == "O" or (isinstance(dtype.state, tuple) and len(dtype.state) > 7 and _flags(dtype.state[7]) & 1):
        return None
    # Lengths of texts are in code points, and the state tells the bytes.
    told = dtype.state[5] if isinstance(dtype.state, tuple) and len(dtype.state) > 5 else -1
    if isinstance(told, int) and told > 0:
        return told
    digits = code.lstrip("<>|=").lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ?")
    return int(digits) if digits.isdigit() else 1


def _flags(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _modern(module: str, name: str) -> tuple[str, str]:
    """Return what Python 3 imports for a name of Python 2."""
    import _compat_pickle

    moved = _compat_pickle.NAME_MAPPING.get((module, name))
    return moved if moved is not None else (_compat_pickle.IMPORT_MAPPING.get(module, module), name)


_OPCODES: Final = {opcode.code: opcode for opcode in pickletools.opcodes}
_LINES: Final = frozenset(
    {"stringnl", "stringnl_noescape", "unicodestringnl", "decimalnl_short", "decimalnl_long", "floatnl"}
)
_CONSTANTS: Final = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
        "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
        "BINUNICODE8", "NONE", "FLOAT", "BINFLOAT",
    }
)  # fmt: skip
_HANDLERS: Final[dict[str, Any]] = {
    "PROTO": _Machine.set_protocol,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.dup,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.import_named,
    "STACK_GLOBAL": _Machine.import_from_stack,
    "INST": _Machine.instance,
    "EXT1": _Machine.extension,
    "EXT2": _Machine.extension,
    "EXT4": _Machine.extension,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "BUILD": _Machine.build,
    "EMPTY_DICT": _Machine.empty_dict,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "DICT": _Machine.new_dict,
    "TUPLE": _Machine.new_tuple,
    "EMPTY_TUPLE": lambda machine, _: machine.tuple_of(0),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
}
