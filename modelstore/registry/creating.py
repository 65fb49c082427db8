"""Registering models: from the arguments that people give to the operations of the journal, one or many at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import InvalidRequestError, ModelNotFoundError, NotFoundError, TaskNotFoundError
from modelstore.ids import is_id, new_id
from modelstore.journal import Draft
from modelstore.registry import rules

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["BATCH_SIZE", "checked_id", "create_many", "creation_drafts", "refuse_known", "refuse_unknown_tasks"]

BATCH_SIZE: Final = 10_000
"""Models that are registered in one transaction; they, and their rows, are held in memory meanwhile."""


def create_many(registry: Registry, models: Iterable[Mapping[str, Any]], batch_size: int) -> int:
    """Register models batch by batch; see `Models.create_many`."""
    size = rules.check_integer("batch size", batch_size)
    if size < 1:
        raise InvalidRequestError(f"A batch has 1 model or more, not {size}")
    if isinstance(models, Mapping) or not isinstance(models, Iterable):
        raise InvalidRequestError(
            f"Many models are a list or generator of dictionaries, not a {type(models).__name__}", "Put it in a list."
        )
    done = 0
    source = iter(models)
    while batch := list(islice(source, size)):
        # Everything is checked before the registry is locked.
        made = [_numbered(registry, number, model) for number, model in enumerate(batch, done + 1)]
        links = [link for drafts in made for link in drafts[1:]]
        with registry.transaction() if links else registry.database.write():
            refuse_known(registry, [drafts[0].entity for drafts in made])
            for number, drafts in enumerate(made, done + 1) if links else ():
                with _numbered_errors(number):
                    refuse_unknown_tasks(registry, drafts[1:])
            registry.commit([drafts[0] for drafts in made])
            for link in links:
                registry.commit([link])  # one by one: the next may replace what this one writes
        done += len(batch)
    return done


def _numbered(registry: Registry, number: int, model: Mapping[str, Any]) -> list[Draft]:
    if not isinstance(model, Mapping):
        raise InvalidRequestError(f"Model number {number} is no dictionary but a {type(model).__name__}")
    with _numbered_errors(number):
        return creation_drafts(registry, **model)


@contextmanager
def _numbered_errors(number: int) -> Iterator[None]:
    """Say of which model an error is."""
    try:
        yield
    except (InvalidRequestError, NotFoundError, TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"Model number {number} cannot be registered: {error}", "Batches before its own are registered."
        ) from error


def creation_drafts(
    registry: Registry,
    /,
    *,
    model_id: str | None = None,
    name: str,
    tags: Iterable[str] = (),
    system_tags: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    links: Sequence[tuple[str, str, str]] = (),
    **fields: Any,
) -> list[Draft]:
    """Return the changes that register a model; see `Models.create` for the arguments.

    Raises:
        InvalidRequestError: A value is not acceptable.
    """
    model_id = checked_id(model_id) if model_id is not None else new_id()
    models = registry.models
    changes: dict[str, Any] = {"name": rules.check_name("model name", name)}
    described = models.described(models.checked(fields))
    changes |= {k: v for k, v in described.items() if v is not None and v is not False}
    changes |= {f"tag:{tag}": True for tag in rules.check_tags(tags)}
    changes |= {f"systag:{tag}": True for tag in rules.check_tags(system_tags, "system tags")}
    for key, value in (metadata or {}).items():
        changes[f"meta:{rules.check_metadata_key(key)}"] = rules.metadata_pair(key, value, None)
    drafts = [Draft("model", model_id, "create", changes)]
    for task, direction, link in links:
        if direction not in ("input", "output"):
            raise InvalidRequestError(f"A link is an 'input' or an 'output', not {direction!r:.80}")
        change = {f"link:{direction}:{rules.check_name('link name', link)}": model_id}
        drafts.append(Draft("task", task, "edit", change))
    return drafts


def refuse_unknown_tasks(registry: Registry, links: Sequence[Draft]) -> None:
    """See, inside the transaction that links them, that these tasks were created; a removed one will do.

    What comes from elsewhere may come in any order, and is not held to this.

    Raises:
        TaskNotFoundError: One was not.
    """
    if not links:
        return
    rows = registry.database.all(
        "SELECT wanted.value FROM json_each(?) AS wanted LEFT JOIN tasks AS t ON t.id = wanted.value"
        " WHERE t.created_op IS NULL LIMIT 1",
        (json.dumps([draft.entity for draft in links]),),
    )
    if rows:
        raise TaskNotFoundError(f"There is no task {rows[0][0]!r:.80} in {registry.place}", "Create it first.")


def refuse_known(registry: Registry, ids: Sequence[str]) -> None:
    """See, inside the transaction that registers them, that no model has one of these ids.

    Raises:
        InvalidRequestError: One has, also a removed one; or an id is there twice.
    """
    rows = registry.database.all(
        "SELECT m.id FROM json_each(?) AS wanted CROSS JOIN models AS m ON m.id = wanted.value LIMIT 1",
        (json.dumps(ids),),
    )
    known = rows[0][0] if rows else next((one for one, times in Counter(ids).items() if times > 1), None)
    if known is not None:
        raise InvalidRequestError(
            f"The id {known} is taken", "Leave the id out, or edit the model that has it; an id is given once."
        )


def checked_id(model_id: object) -> str:
    """Return a model id without the blanks around it.

    Raises:
        ModelNotFoundError: It is none.
    """
    if isinstance(model_id, str) and is_id(model_id.strip()):
        return model_id.strip()
    raise ModelNotFoundError(f"{model_id!r:.80} is no model id", "An id has 32 hexadecimal digits.")
