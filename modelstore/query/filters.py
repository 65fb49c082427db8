"""Everything that a query for models may ask, as plain data, and the one condition that it amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelstore.errors import InvalidRequestError
from modelstore.query.fields import FIELDS, check_fields, check_text, constant
from modelstore.query.order import NEWEST_FIRST, Order
from modelstore.query.simplify import simplify
from modelstore.query.tree import Compare, FieldTarget, Node, Op, Target, TextTarget, all_of

__all__ = ["Cursor", "ModelQuery", "condition"]

Cursor = tuple[bool | int | float | str | None, ...]
"""Where a page ended: what its last model is sorted by, then its key."""


@dataclass(frozen=True, slots=True)
class ModelQuery:
    """A question to the registry; every part that is given must hold.

    Attributes:
        where: A condition; None for none.
        project: Full name of the project, exactly. None: any.
        name: The name, exactly. None: any.
        name_regex: A regular expression found in the name (`re.search`). None: any.
        task: Id of the task that made the model. None: any.
        uri: Where the weights are, exactly. None: any.
        ids: The models to choose from. None: all; empty: none.
        metadata: Key to text (or to several, any of which will do) that the metadata value must be as text.
        only_published: Leave out drafts.
        include_archived: Take archived models too.
        order_by: Sorting, most significant first; newest change first when not given. Models that tie come by id;
            of two changes at one reading of the clock, which only different writers make, that of the model that came
            to this registry last comes first.
        limit: At most so many, 1 or more. None: all.
        after: Continue behind this point of the same order. None: from the start.
    """

    where: Node | None = None
    project: str | None = None
    name: str | None = None
    name_regex: str | None = None
    task: str | None = None
    uri: str | None = None
    ids: tuple[str, ...] | None = None
    metadata: Mapping[str, str | list[str] | tuple[str, ...]] = field(default_factory=dict)
    only_published: bool = False
    include_archived: bool = False
    order_by: tuple[Order, ...] = NEWEST_FIRST
    limit: int | None = None
    after: Cursor | None = None

    def __post_init__(self) -> None:
        limit: Any = self.limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit < 2**63):
            raise InvalidRequestError(f"A limit is a number of 1 or more, not {self.limit!r}", "None asks for all.")
        where: Any = self.where
        if where is not None and not isinstance(where, Node):
            raise InvalidRequestError(
                f"where takes a condition, not {self.where!r}", "Write Meta('x') > 1, or parse_where('x > 1')."
            )


def condition(query: ModelQuery) -> Node:
    """Return the one condition that a query's filters amount to, except for archived models, order and limit.

    Raises:
        InvalidRequestError: A filter has the wrong type or a malformed pattern.
    """
    parts: list[Node] = []

    def require(target: Target, op: Op, value: Any) -> None:
        parts.append(Compare(target, op, constant(target, op, value)))

    if query.ids is not None:
        require(FieldTarget("id"), "in", query.ids)
    for name, wanted in (("uri", query.uri), ("task", query.task), ("project", query.project), ("name", query.name)):
        if wanted is not None:
            require(FieldTarget(name), "==", wanted)
    if query.where is not None:
        check_fields(query.where, FIELDS, "model")
        parts.append(query.where)
    if query.only_published:
        parts.append(Compare(FieldTarget("published"), "==", value=True))
    for key, value in _metadata(query.metadata).items():
        require(TextTarget(key), "in", value)
    if query.name_regex is not None:
        require(FieldTarget("name"), "matches", query.name_regex)
    return simplify(all_of(parts))


def _metadata(filters: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    if not isinstance(filters, Mapping):
        raise InvalidRequestError(f"metadata takes a dictionary of keys and texts, not {filters!r}")
    wanted: dict[str, tuple[str, ...]] = {}
    for key, value in filters.items():
        several = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        for member in several:
            if not isinstance(member, str):
                raise InvalidRequestError(
                    f"metadata compares text, and {key!r} was given {member!r}",
                    f"Write {str(member)!r}, or compare by type: where=Meta({key!r}) == {member!r}.",
                )
        wanted[check_text(key, "A metadata key")] = several
    return wanted
