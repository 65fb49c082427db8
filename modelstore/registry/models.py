"""Models: what can be done with them, apart from their bytes.

Every change is one transaction that reads what it depends on, checks it, and writes. Fields that are not named are not
touched, so two objects that edit different fields of one model never undo each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from modelstore.errors import (
    InvalidMetadataError,
    InvalidRequestError,
    MissingWeightsError,
    ModelInUseError,
    ModelNotFoundError,
    PublishedModelError,
)
from modelstore.index import ops, reader
from modelstore.journal import Draft
from modelstore.records.entities import HistoryEntry, Link, ModelRecord
from modelstore.records.operations import FROZEN_FIELDS, MODEL_FIELDS
from modelstore.records.values import decode
from modelstore.registry import rules
from modelstore.registry.creating import (
    BATCH_SIZE,
    checked_id,
    create_many,
    creation_drafts,
    refuse_known,
    refuse_unknown_tasks,
)
from modelstore.registry.history import entries_of
from modelstore.storage import uris

if TYPE_CHECKING:
    from modelstore.registry.registry import Registry

__all__ = ["UNSET", "Models", "Unset"]


class Unset:
    """The type of `UNSET`: an argument that was not given, as opposed to None, "" or []."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()

_FIELDS: Final = frozenset(MODEL_FIELDS) - {"deleted"}


class Models:
    """The models of one registry.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._database = registry.database

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, model_id: str, *, deleted: bool = False) -> ModelRecord:
        """Return one model as it stands.

        Args:
            model_id: 32 hex digits.
            deleted: Also return a model that was removed.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        self._registry.refresh()
        record = reader.model(self._database, checked_id(model_id))
        if record is None:
            raise ModelNotFoundError(f"There is no model {model_id} in {self._registry.place}", "Check the id.")
        if record.deleted and not deleted:
            raise ModelNotFoundError(
                f"The model {model_id} was removed from {self._registry.place}", "Its history can still be read."
            )
        return record

    def by_uri(self, uri: str, *, archived: bool = False) -> ModelRecord | None:
        """Return the model with exactly this URI that was registered first; None when there is none.

        One that is not archived goes before those that are.

        Args:
            uri: As registered; a path of bytes that the registry holds itself is recognised too.
            archived: Also consider archived models.
        """
        self._registry.refresh()
        wanted = self._registry.weights.logical(uri)
        redirects = self._registry.weights.redirects
        rows = self._database.all(
            "SELECT key FROM models WHERE uri = ? AND state <= ? ORDER BY state, created, key LIMIT 1",
            (wanted, int(archived)),
        ) or [
            row
            for former in redirects.formerly(wanted)
            for row in self._database.all(
                "SELECT m.key, o.stamp FROM models AS m JOIN ops AS o ON o.seq = m.published_op"
                " WHERE m.uri = ? AND m.state <= ? ORDER BY m.state, m.created, m.key",
                (former, int(archived)),
            )
            if redirects(former, row[1]) == wanted
        ]
        return reader.models(self._database, [rows[0][0]])[0] if rows else None

    def history(self, model_id: str) -> list[HistoryEntry]:
        """Return every change of a model, oldest first; those of removed models too.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        self.get(model_id, deleted=True)
        operations = sorted((o for _, o in ops.of_entity(self._database.connection, model_id)), key=lambda o: o.stamp)
        known = {operation.stamp: operation for operation in operations}
        return [entry for operation in operations for entry in entries_of(operation, known.get)]

    def links(self, model_id: str, direction: str | None = None) -> list[Link]:
        """Return the links that tasks have to a model ("input" uses it, "output" made it), oldest first."""
        self._registry.refresh()
        return reader.links_of_model(self._database, checked_id(model_id), direction)

    # -- creating --------------------------------------------------------------------------------------------------

    def create(
        self,
        *,
        model_id: str | None = None,
        name: str,
        tags: Iterable[str] = (),
        system_tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        links: Sequence[tuple[str, str, str]] = (),
        **fields: Any,
    ) -> ModelRecord:
        """Register a model.

        Args:
            model_id: Its id; None makes one.
            name: What people call it; need not be unique.
            tags: Its tags.
            system_tags: "archived" and the like.
            metadata: Key to value.
            links: Task id, direction and link name of tasks that are to refer to it, in the same transaction.
            **fields: project, task, parent, comment, framework, uri, digest, size, package, labels, config, iteration;
                None means none.

        Returns:
            The model.

        Raises:
            InvalidRequestError: A value is not acceptable, or the id is taken; nothing was changed.
            TaskNotFoundError: A link is of a task that was never created; nothing was changed.
        """
        drafts = creation_drafts(
            self._registry, model_id=model_id, name=name, tags=tags, system_tags=system_tags, metadata=metadata,
            links=links, **fields,
        )  # fmt: skip
        with self._database.write():
            if model_id is not None:
                refuse_known(self._registry, [drafts[0].entity])
            refuse_unknown_tasks(self._registry, drafts[1:])
            self._registry.commit(drafts)
            return self.get(drafts[0].entity)

    def create_many(self, models: Iterable[Mapping[str, Any]], *, batch_size: int = BATCH_SIZE) -> int:
        """Register many models, each exactly as `create` would, ten to a hundred times as fast.

        They are read, checked and written batch by batch, so that memory does not grow with their number; they may
        come from a generator. Each batch is one transaction: a process that dies leaves whole batches. Inside
        `Registry.transaction` all are one.

        Args:
            models: For each model the arguments of `create` by name. Who needs the ids later gives them: `model_id`
                takes what `modelstore.ids.new_id` makes.
            batch_size: Models to a transaction. More are a little faster; others who write wait for it meanwhile
                (about a second for 10,000).

        Returns:
            How many were registered.

        Raises:
            InvalidRequestError: A model is not acceptable; the message says the how manieth. The batches before its
                own are registered, its own is not.
        """
        return create_many(self._registry, models, batch_size)

    # -- editing ---------------------------------------------------------------------------------------------------

    def edit(self, model_id: str, **fields: Any) -> ModelRecord:
        """Set fields of a model; those not named keep their values, a field set to None is cleared.

        Raises:
            ModelNotFoundError: There is no such model.
            PublishedModelError: A content field of a published model would change.
            InvalidRequestError: A value is not acceptable; nothing was changed.
        """
        checked = self.described(self.checked(fields))
        with self._editing(model_id) as (record, drafts):
            current = self._current(record)
            changes = {k: v for k, v in checked.items() if current[k] != v}
            frozen = sorted(set(changes) & set(FROZEN_FIELDS))
            if record.published and frozen:
                raise PublishedModelError(
                    f"The model {record.name!r} ({record.id}) is published; its {', '.join(frozen)} cannot change",
                    "Register a new model instead.",
                )
            if changes:
                drafts.append(Draft("model", record.id, "edit", changes))
        return self.get(model_id)

    def tag(
        self,
        model_id: str,
        *,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        replace: Iterable[str] | None = None,
        system: bool = False,
    ) -> ModelRecord:
        """Add and remove tags, or replace them all; tags added or removed by others at the same time stay so.

        Args:
            model_id: The model.
            add: Tags to add.
            remove: Tags to take away; those it does not carry are ignored.
            replace: The complete new set; [] removes every tag. None leaves the rest alone.
            system: Work on the system tags.

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidRequestError: A tag is not acceptable; nothing was changed.
        """
        what = "system tags" if system else "tags"
        added, removed = rules.check_tags(add, what), rules.check_tags(remove, what)
        wanted = None if replace is None else rules.check_tags(replace, what)
        prefix = "systag:" if system else "tag:"
        with self._editing(model_id) as (record, drafts):
            present = set(record.system_tags if system else record.tags)
            target = (present if wanted is None else set(wanted)) - set(removed) | set(added)
            changes: dict[str, Any] = {f"{prefix}{tag}": True for tag in sorted(target - present)}
            changes |= {f"{prefix}{tag}": None for tag in sorted(present - target)}
            if changes:
                drafts.append(Draft("model", record.id, "edit", changes))
        return self.get(model_id)

    def set_metadata(
        self, model_id: str, values: Mapping[str, tuple[str | None, Any]], *, replace: bool = False
    ) -> ModelRecord:
        """Set metadata values; published models too keep an editable metadata.

        Args:
            model_id: The model.
            values: Key to (type name or None, value).
            replace: Remove every key that is not in ``values``.

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidMetadataError: A key, type or value is not acceptable; nothing was changed.
        """
        pairs = {rules.check_metadata_key(k): rules.metadata_pair(k, v, t) for k, (t, v) in values.items()}
        with self._editing(model_id) as (record, drafts):
            current = record.metadata
            changes: dict[str, Any] = {
                f"meta:{key}": pair
                for key, pair in pairs.items()
                if key not in current or not _same(current[key].type, current[key].value, pair)
            }
            if replace:
                changes |= {f"meta:{key}": None for key in current if key not in pairs}
            if changes:
                drafts.append(Draft("model", record.id, "edit", changes))
        return self.get(model_id)

    def delete_metadata(self, model_id: str, keys: Iterable[str]) -> ModelRecord:
        """Remove metadata keys; those it does not have are ignored.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        if isinstance(keys, str):
            raise InvalidMetadataError(f"Metadata keys must be a list, not the string {keys!r}", "Put it in a list.")
        unwanted = [rules.check_metadata_key(key) for key in keys]
        with self._editing(model_id) as (record, drafts):
            changes = {f"meta:{key}": None for key in unwanted if key in record.metadata}
            if changes:
                drafts.append(Draft("model", record.id, "edit", changes))
        return self.get(model_id)

    # -- life cycle ------------------------------------------------------------------------------------------------

    def publish(self, model_id: str, *, require_weights: bool = True) -> ModelRecord:
        """Fix a model's content for good; publishing again changes nothing.

        Args:
            model_id: The model.
            require_weights: Refuse a model without weights.

        Raises:
            ModelNotFoundError: There is no such model.
            MissingWeightsError: It has no weights, or they are still being uploaded.
        """
        with self._editing(model_id) as (record, drafts):
            if not record.published:
                self._check_publishable(record, require_weights=require_weights)
                current = self._current(record) | self._identity(record)
                drafts.append(Draft("model", record.id, "publish", {field: current[field] for field in FROZEN_FIELDS}))
        return self.get(model_id)

    def _identity(self, record: ModelRecord) -> dict[str, Any]:
        """Return digest and size of somebody else's bytes, where they were fetched here: from now on they are meant."""
        seen = self._registry.weights.seen(record.uri) if record.digest is None and record.uri is not None else None
        return {} if seen is None else {"digest": seen[0], "size": seen[1]}

    def _check_publishable(self, record: ModelRecord, *, require_weights: bool) -> None:
        pending = reader.uploads(self._database, record.id)
        if pending:
            raise MissingWeightsError(
                f"The weights of model {record.name!r} ({record.id}) are still being uploaded to "
                f"{uris.redact(pending[0].destination)} ({pending[0].status})",
                "Wait for the upload, or resume it with `modelstore uploads --resume`.",
            )
        if require_weights and record.uri is None:
            raise MissingWeightsError(
                f"The model {record.name!r} ({record.id}) has no weights to publish",
                "Give it some with update_weights(), or publish with require_weights=False.",
            )

    def archive(self, model_id: str, *, archived: bool = True) -> ModelRecord:
        """Hide a model from queries that do not ask for archived ones, or bring it back.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        if archived:
            return self.tag(model_id, add=["archived"], system=True)
        return self.tag(model_id, remove=["archived"], system=True)

    def delete(self, model_id: str, *, force: bool = False) -> ModelRecord:
        """Remove a model: it is found no more, its history stays. Its bytes are another matter (`Weights.release`).

        Args:
            model_id: The model.
            force: Also when a task uses it as input, or the task that made it is published.

        Returns:
            The model as it was.

        Raises:
            ModelNotFoundError: There is no such model.
            ModelInUseError: Something refers to it, and ``force`` was not given.
        """
        with self._editing(model_id) as (record, drafts):
            if not force:
                self.check_unused(record)
            drafts.append(Draft("model", record.id, "delete", {"deleted": True}))
            for link in self.links(model_id):
                drafts.append(Draft("task", link.task, "edit", {f"link:{link.direction}:{link.name}": None}))
        return record

    def check_unused(self, record: ModelRecord) -> None:
        """See that nothing speaks against removing a model.

        Raises:
            ModelInUseError: A task uses it as input, or the task that made it is published.
        """
        users = self.links(record.id, "input")
        if users:
            raise ModelInUseError(
                f"The model {record.name!r} ({record.id}) is the input of task {users[0].task}"
                + (f" and {len(users) - 1} more" if len(users) > 1 else ""),
                "Remove it with force=True to drop those links.",
            )
        task = reader.task(self._database, record.task) if record.task else None
        if task is not None and task.published:
            raise ModelInUseError(
                f"The model {record.name!r} ({record.id}) was made by the published task {task.id}",
                "Remove it with force=True.",
            )

    def restore(self, model_id: str) -> ModelRecord:
        """Bring a removed model back as it was; one that is there stays as it is.

        Raises:
            ModelNotFoundError: There never was such a model.
        """
        with self._database.write():
            record = self.get(model_id, deleted=True)
            if record.deleted:
                self._registry.commit([Draft("model", record.id, "restore", {"deleted": False})])
        return self.get(model_id)

    # -- inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _editing(self, model_id: str) -> Iterator[tuple[ModelRecord, list[Draft]]]:
        """Give the model as it is inside the transaction that will commit what the block adds to the list."""
        self.get(model_id)  # a wrong id is told apart from a locked registry, and costs no lock
        with self._database.write():
            drafts: list[Draft] = []
            yield self.get(model_id), drafts
            if drafts:
                self._registry.commit(drafts)

    def _current(self, record: ModelRecord) -> dict[str, Any]:
        return {
            "name": record.name,
            "project": record.project,
            "task": record.task,
            "parent": record.parent,
            "comment": record.comment,
            "uri": record.uri,
            "digest": record.digest,
            "size": record.size,
            "package": record.package,
            "labels": record.labels or None,
            "config": record.config,
            "framework": record.framework,
            "iteration": record.iteration,
        }

    def described(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Let digest and size go with the address: known for the registry's own objects, unknown for others."""
        if "uri" not in fields or fields.get("digest") is not None:
            return fields
        known = (
            {"digest": None, "size": None} if fields["uri"] is None else self._registry.weights.described(fields["uri"])
        )
        return fields | {k: v for k, v in known.items() if fields.get(k) is None}

    def checked(self, fields: Mapping[str, Any]) -> dict[str, Any]:  # noqa: C901 - one branch a field
        """Return fields of a model in the form in which they are kept; see `create`.

        Raises:
            InvalidRequestError: There is no such field, or a value is not acceptable.
        """
        checked: dict[str, Any] = {}
        for field, value in fields.items():
            if field not in _FIELDS:
                raise InvalidRequestError(f"A model has no field {field!r}")
            if value is None and field != "name":
                checked[field] = False if field == "package" else None
            elif field == "name":
                checked[field] = rules.check_name("model name", value)
            elif field == "project":
                checked[field] = rules.check_project(value)
            elif field == "labels":
                checked[field] = rules.check_labels(value) or None
            elif field == "uri":
                checked[field] = self._registry.weights.logical(value)
            elif field in ("size", "iteration"):
                checked[field] = rules.check_integer(field, value)
                if field == "size" and checked[field] < 0:
                    raise InvalidRequestError(f"A size is a number of bytes, not {checked[field]}")
            elif field == "package":
                checked[field] = bool(value)
            elif field == "config":
                checked[field] = value
            else:
                checked[field] = rules.check_text(field, value)
        return checked


def _same(kind: str, value: Any, pair: list[Any]) -> bool:
    # repr tells 1 from True and 0.0 from -0.0, and finds NaN equal to itself, which == does not.
    return kind == pair[0] and repr(value) == repr(decode(pair[1]))


def dump_config(config: Mapping[str, Any] | None) -> str:
    """Return a configuration as text: the text given, or a dictionary as indented JSON; "" for none."""
    if not config:
        return ""
    if "text" in config:
        return str(config["text"])
    return json.dumps(_readable(decode(config["dict"])), ensure_ascii=False, indent=4)


def _readable(value: Any) -> Any:
    """Return a configuration as JSON can say it to people: tuples as lists, keys and what else there is as text."""
    if isinstance(value, dict):
        return {k if isinstance(k, str) else str(k): _readable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(v) for v in value]
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
