"""In which order results come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelstore.errors import InvalidRequestError
from modelstore.query.evaluate import Subject, number_of
from modelstore.query.expressions import _Comparable as Comparable
from modelstore.query.fields import FIELDS, KINDS, Kind, check_field, check_text
from modelstore.query.tree import FieldTarget, MetaTarget, MetricTarget, Stat, Target

__all__ = ["NEWEST_FIRST", "Order", "order_key", "parse_order"]

_STATS: Final[tuple[Stat, ...]] = ("last", "min", "max", "mean")


@dataclass(frozen=True, slots=True)
class Order:
    """One term of an order.

    What is absent, or cannot be compared (NaN, lists), comes last in either direction; of metadata, numbers come
    before text.
    """

    target: Target
    descending: bool = False


NEWEST_FIRST: Final = (Order(FieldTarget("updated"), descending=True),)
"""The order of everything that does not ask for another."""


def parse_order(term: object, fields: Mapping[str, Kind] = FIELDS) -> Order:
    """Read one term of ``order_by``.

    Args:
        term: ``"name"``, ``"metadata.accuracy"``, ``"metrics.val.iou"`` or ``"metrics.val.iou.max"``, with a leading
            dash for descending; or what such a text cannot say: an `Order`, a `Field`, a `Meta`, a `Metric`.
        fields: The fields that there are.

    Raises:
        InvalidRequestError: It is none of these.
    """
    if isinstance(term, Order):
        return term
    if isinstance(term, Comparable):
        return Order(term._target)  # noqa: SLF001 - the package's own
    text = check_text(term, "An order")
    descending, name = text.startswith("-"), text.removeprefix("-")
    if name.startswith("metadata."):
        return Order(MetaTarget(check_text(name.removeprefix("metadata."), "A metadata key")), descending)
    if name.startswith("metrics."):
        return Order(_metric(name), descending)
    return Order(FieldTarget(check_field(name, fields)), descending)


def _metric(name: str) -> MetricTarget:
    title, _, series = name.removeprefix("metrics.").partition(".")
    head, _, tail = series.rpartition(".")
    if not title or not series:
        raise InvalidRequestError(f"{name!r} names no metric", "Write metrics.<title>.<series>, or pass a Metric.")
    for stat in _STATS:
        if head and tail == stat:
            return MetricTarget(title, head, stat)
    return MetricTarget(title, series)


def order_key(order: Order, subject: Subject) -> tuple[Any, ...]:
    """Return what a model is sorted by: the specification of an order, ascending tuples.

    Every second element is to be compared the other way round when the order descends (see `Order`): the ranks, which
    put the absent last, never are.
    """
    target = order.target
    match target:
        case FieldTarget(name):
            value = subject.fields.get(name)
            neutral = "" if KINDS[name] == "text" else 0
            return (value is None, neutral if value is None else value)
        case MetricTarget(title, series, stat):
            number = number_of(subject.metrics.get((title, series, stat)))
            return (number is None, number or 0.0)
        case MetaTarget(key):
            value = subject.metadata.get(key)
            number = number_of(value)
            if number is not None:
                return (0, number, 0, "")
            return (1, 0.0, 0, value) if isinstance(value, str) else (2, 0.0, 0, "")
    raise InvalidRequestError(f"Results cannot be ordered by {target!r}")
