"""Pickles read as data: what they would build is written down, and nothing is imported, called or built.

Names of classes and functions stay names. Dictionaries become lists of pairs and nothing is hashed or compared, so that
no structure, however deep or entangled, makes Python itself do work that was not counted.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from modelstore.errors import UnreadableWeightsError
from modelstore.inspection.bytesource import malformed
from modelstore.inspection.limits import Budget

__all__ = ["Call", "Global", "Pairs", "Persistent", "read_pickle"]

_MOST_STEPS: Final = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A class or function by its name."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Call:
    """What a call would have returned: the function's name, the arguments, and what was set on it later.

    Attributes:
        function: Usually a `Global`.
        arguments: As they were given.
        state: Of BUILD; None for none.
        items: Of a dictionary or list made by a call.
    """

    function: Any
    arguments: Any
    state: Any = None
    items: Pairs | None = None
    elements: list[Any] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Pairs:
    """A dictionary, as the list of its pairs."""

    items: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """A reference to something outside of the pickle."""

    identity: Any


class _Mark:
    pass


_MARK: Final = _Mark()
_EMPTY: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": Pairs,
    "EMPTY_SET": list,
}
_LITERALS: Final = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8",
})  # fmt: skip


def read_pickle(name: str, data: bytes) -> Any:
    """Return what a pickle describes, as literals, lists, tuples and the classes of this module.

    Args:
        name: Of the file, for messages.
        data: The pickle.

    Raises:
        UnreadableWeightsError: It is no pickle, or far larger than that of any model.
    """
    machine = _Machine(name)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.result()
            machine.step(opcode.name, argument)
    except UnreadableWeightsError:
        raise
    except (ValueError, IndexError, OverflowError, TypeError):
        raise malformed(name, "the pickle in it is damaged") from None
    raise malformed(name, "the pickle in it is cut off")


class _Machine:
    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._budget = Budget(name, _MOST_STEPS)

    def result(self) -> Any:
        """Return what is on top at the end."""
        return self._stack.pop()

    def step(self, opcode: str, argument: Any) -> None:
        """Take one instruction."""
        self._budget.spend()
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _EMPTY:
            self._stack.append(_EMPTY[opcode]())
        elif opcode not in ("PROTO", "FRAME"):
            method = getattr(self, f"_do_{opcode.lower()}", None)
            if method is None:
                raise malformed(self._name, f"the pickle in it has the instruction {opcode}, which models do not need")
            method(argument)

    def _marked(self) -> list[Any]:
        """Take what is above the last mark."""
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                found = self._stack[at + 1 :]
                self._budget.spend(len(found))
                del self._stack[at:]
                return found
        raise malformed(self._name, "the pickle in it is damaged")

    # What is left on the stack or put there; each method is one instruction of pickle.

    def _do_mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _do_pop(self, _: Any) -> None:
        self._stack.pop()

    def _do_pop_mark(self, _: Any) -> None:
        self._marked()

    def _do_dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _do_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._marked()))

    def _do_tuple1(self, _: Any) -> None:
        self._stack[-1:] = [(self._stack[-1],)]

    def _do_tuple2(self, _: Any) -> None:
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def _do_tuple3(self, _: Any) -> None:
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def _do_list(self, _: Any) -> None:
        self._stack.append(self._marked())

    _do_frozenset = _do_list

    def _do_dict(self, _: Any) -> None:
        self._stack.append(Pairs(_paired(self._marked())))

    def _do_append(self, _: Any) -> None:
        value = self._stack.pop()
        self._extend([value])

    def _do_appends(self, _: Any) -> None:
        self._extend(self._marked())

    _do_additems = _do_appends

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        (target.elements if isinstance(target, Call) else _expect(target, list)).extend(values)

    def _do_setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([(key, value)])

    def _do_setitems(self, _: Any) -> None:
        self._set(_paired(self._marked()))

    def _set(self, items: list[tuple[Any, Any]]) -> None:
        target = self._stack[-1]
        if isinstance(target, Call):
            target.items = target.items or Pairs()
            target = target.items
        _expect(target, Pairs).items.extend(items)

    def _do_put(self, argument: Any) -> None:
        self._memo[argument] = self._stack[-1]

    _do_binput = _do_long_binput = _do_put

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _do_get(self, argument: Any) -> None:
        if argument not in self._memo:
            raise malformed(self._name, "the pickle in it is damaged")
        self._stack.append(self._memo[argument])

    _do_binget = _do_long_binget = _do_get

    def _do_global(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Global(module, name))

    def _do_stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(Global(_expect(module, str), _expect(name, str)))

    def _do_reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(Call(function, arguments))

    _do_newobj = _do_reduce

    def _do_newobj_ex(self, _: Any) -> None:
        self._stack.pop()
        self._do_reduce(None)

    def _do_inst(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Call(Global(module, name), tuple(self._marked())))

    def _do_obj(self, _: Any) -> None:
        function, *arguments = self._marked()
        self._stack.append(Call(function, tuple(arguments)))

    def _do_build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Call):
            target.state = state

    def _do_persid(self, argument: Any) -> None:
        self._stack.append(Persistent(argument))

    def _do_binpersid(self, _: Any) -> None:
        self._stack.append(Persistent(self._stack.pop()))


def _paired(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _expect(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(kind.__name__)
    return value
