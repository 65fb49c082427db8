"""What all model classes share: properties, tags, life cycle, metadata, weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError, ModelStoreError
from modelstore.records.entities import HistoryEntry, ModelRecord
from modelstore.records.values import decode
from modelstore.registry import rules
from modelstore.registry.models import dump_config
from modelstore.sdk._context import Registry
from modelstore.sdk.configuration import parse_configuration
from modelstore.sdk.model_looking import ModelLooking
from modelstore.sdk.model_metadata import ModelMetadata
from modelstore.sdk.model_weights import ModelWeights
from modelstore.sdk.reported import Reported
from modelstore.sdk.reporting_files import ReportingFiles

if TYPE_CHECKING:
    from datetime import datetime

    from modelstore.registry.reports import Owner, Reports

__all__ = ["BaseModel", "model_to_dict"]

logger = logging.getLogger("modelstore")


class BaseModel(ModelMetadata, ModelLooking, ModelWeights, ReportingFiles, Reported):
    """What `Model`, `InputModel` and `OutputModel` have in common.

    Two objects are equal when they stand for the same model of the same registry.

    An object keeps a copy of its model's row. Reading a property costs nothing while this process has not written;
    after any write of this process the row is read again, so an object always sees what its own process did. What other
    processes did shows after `refresh`.
    """

    _archived_tag = "archived"
    _package_tag = "package"

    def __init__(
        self, registry: Registry, model_id: str | None, record: ModelRecord | None = None, version: int = -1
    ) -> None:
        self._registry = registry
        self._model_id = model_id
        # `version` is what the registry's was before the row was read: a write in between makes it be read again.
        self._cached = record
        self._cached_version = version

    # -- the record ------------------------------------------------------------------------------------------------

    def _record(self) -> ModelRecord:
        """Return the row, read again when this process has written since.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        version = self._registry.version
        if self._cached is None or self._cached_version != version:
            self._cached = self._registry.models.get(self._require_id())
            self._cached_version = version
        return self._cached

    def _require_id(self) -> str:
        if self._model_id is None:
            raise InvalidRequestError(
                "Missing model ID: this object refers to no model yet",
                "An OutputModel is registered by its first update_weights() or set_metadata().",
            )
        return self._model_id

    def refresh(self) -> None:
        """Read the model again, so that changes made by other processes show.

        Raises:
            ModelNotFoundError: The model was removed meanwhile.
        """
        self._cached = None
        if self._model_id is not None:
            self._record()

    # -- properties ------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The model's id: 32 hexadecimal digits. Reading it does not ask whether there is such a model."""
        return self._require_id()

    @property
    def name(self) -> str | None:
        """The model's name; names need not be unique. Setting it changes the registry at once."""
        return self._record().name

    @name.setter
    def name(self, value: str) -> None:
        self._edit(name=value)

    @property
    def project(self) -> str | None:
        """Id of the model's project; None for none. Setting takes an id or a project's full name."""
        return self._record().project_id

    @project.setter
    def project(self, value: str | None) -> None:
        self._edit(project=None if value is None else self._project_name(value))

    def _project_name(self, value: str) -> str:
        return self._registry.tasks.project_name(value)

    @property
    def project_name(self) -> str | None:
        """Full name of the model's project; None for none."""
        return self._record().project

    @property
    def comment(self) -> str | None:
        """Free text about the model; setting "" clears it."""
        return self._record().comment

    @comment.setter
    def comment(self, value: str | None) -> None:
        self._edit(comment=value or None)

    @property
    def tags(self) -> list[str]:
        """The model's tags, sorted. Setting replaces them all; [] removes them all."""
        return list(self._record().tags)

    @tags.setter
    def tags(self, value: Iterable[str] | None) -> None:
        self._registry.models.tag(self._ensured_id(), replace=[] if value is None else value)

    @property
    def system_tags(self) -> list[str]:
        """Tags that say what state the model is in: "archived", "package"."""
        return _system_tags(self._record())

    @system_tags.setter
    def system_tags(self, value: Iterable[str] | None) -> None:
        wanted = rules.check_tags([] if value is None else value, "system tags")
        packaged = self._package_tag in self.system_tags
        if (self._package_tag in wanted) != packaged:
            raise InvalidRequestError(
                'The system tag "package" says what the weights are and cannot be set',
                "Use update_weights_package().",
            )
        wanted = [tag for tag in wanted if tag != self._package_tag]
        self._registry.models.tag(self._ensured_id(), replace=wanted, system=True)

    @property
    def config_text(self) -> str:
        """The model's configuration as text, "" for none; a dictionary shows as JSON."""
        return dump_config(self._config())

    @property
    def config_dict(self) -> dict[str, Any]:
        """The model's configuration as a dictionary, {} for none.

        A dictionary comes back as it went in; a text is read as JSON or, with `pyhocon` installed, as HOCON.

        Raises:
            InvalidConfigurationError: The text is neither.
        """
        config = self._config()
        if not config:
            return {}
        if "dict" in config:
            value: dict[str, Any] = decode(config["dict"])
            return value
        return parse_configuration(config["text"])

    def _config(self) -> dict[str, Any] | None:
        return self._record().config

    @property
    def labels(self) -> dict[str, int]:
        """The label enumeration: names to integers, {} for none."""
        return dict(self._record().labels)

    @property
    def task(self) -> str | None:
        """Id of the task that made the model; None for an imported one."""
        return self._record().task

    @property
    def original_task(self) -> str | None:
        """Id of the task that made the model; None for an imported one."""
        return self._record().task

    @property
    def parent(self) -> str | None:
        """Id of the model that this one was made from (its task's input of the same name); None for none."""
        return self._record().parent

    @property
    def url(self) -> str | None:
        """URI of the weights; None when there are none yet. Bytes kept by the registry show as a `file://` URI."""
        return self._registry.weights.address(self._record())

    @property
    def published(self) -> bool:
        """Whether the content is fixed for good."""
        return self._record().published

    @property
    def archived(self) -> bool:
        """Whether the model is hidden from queries that do not ask for archived ones."""
        return self._record().archived

    @property
    def framework(self) -> str | None:
        """The framework that the weights are for; None when it is not known."""
        return self._record().framework

    @property
    def archived_tag(self) -> str:
        """The system tag of archived models: "archived"."""
        return self._archived_tag

    @property
    def digest(self) -> str | None:
        """Identity of the weights as "sha256:…"; None while it is not known."""
        return self._record().digest

    @property
    def size(self) -> int | None:
        """Size of the weights in bytes; None while it is not known."""
        return self._record().size

    @property
    def iteration(self) -> int | None:
        """The training iteration that the weights were saved at; None when it was not said."""
        return self._record().iteration

    @property
    def created(self) -> datetime:
        """When the model was registered (aware, UTC)."""
        self._require_id()
        return self._record().created_at

    @property
    def last_update(self) -> datetime:
        """When the model was last changed (aware, UTC)."""
        self._require_id()
        return self._record().updated_at

    def _ensured_id(self) -> str:
        """Return the id, after making the record where that is still to be done."""
        return self._require_id()

    def _reports(self) -> tuple[Reports, Owner, str]:
        return self._registry.reports, "model", self._ensured_id()

    def _home(self) -> Registry:
        return self._registry

    def _reported_id(self) -> str | None:
        return self._model_id

    def _edit(self, **fields: Any) -> None:
        """Set fields of the row."""
        self._registry.models.edit(self._ensured_id(), **fields)

    # -- tags and life cycle ---------------------------------------------------------------------------------------

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Add tags; what others add or remove at the same time stays so.

        Args:
            tags: One tag or several.

        Raises:
            InvalidRequestError: A tag is not acceptable; none was added.
        """
        self._registry.models.tag(self._ensured_id(), add=_as_list(tags))

    def remove_tags(self, tags: str | Iterable[str]) -> None:
        """Take tags away; those that the model does not carry are ignored.

        Args:
            tags: One tag or several.
        """
        self._registry.models.tag(self._ensured_id(), remove=_as_list(tags))

    def publish(self, *, require_weights: bool = True) -> None:
        """Fix the model's content for good: weights, configuration, labels, framework, iteration.

        The registry itself refuses later changes, whoever tries. Name, comment, tags, project and metadata stay
        editable. Uploads of this process are waited for, but not inside a transaction. Publishing again does nothing.

        Args:
            require_weights: Refuse a model without weights; False publishes it all the same.

        Raises:
            MissingWeightsError: It has no weights, or another process is still uploading them.
            UploadError: The upload that was waited for failed.
        """
        model_id = self._ensured_id()
        if not self._registry.database.in_transaction:
            self._registry.weights.wait(model_id)
        self._registry.models.publish(model_id, require_weights=require_weights)

    def archive(self) -> None:
        """Hide the model from queries that do not ask for archived ones; again does nothing.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        self._registry.models.archive(self._ensured_id())

    def unarchive(self) -> None:
        """Bring an archived model back; again does nothing.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        self._registry.models.archive(self._ensured_id(), archived=False)

    def history(self) -> list[HistoryEntry]:
        """Return every change of the model, oldest first: when, who, what, the value before and after."""
        return self._registry.models.history(self._require_id())

    def consumers(self) -> list[str]:
        """Return the ids of the tasks that use this model as input, in the order in which they were linked."""
        return list(dict.fromkeys(link.task for link in self._registry.models.links(self._require_id(), "input")))

    # -- the rest ---------------------------------------------------------------------------------------------------

    def get_offline_mode_folder(self) -> str | None:
        """Return None: nothing here depends on a network, so there is no offline session."""
        return None

    # -- looking ---------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        if self._model_id is None:
            return f"<{type(self).__name__} not registered yet>"
        try:
            record = self._record()
        except ModelStoreError:
            return f"<{type(self).__name__} {self._model_id} (not found)>"
        return f"<{type(self).__name__} {record.id} {record.name!r}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the model as a dictionary of plain values, as the command line's `--json` prints it."""
        self._require_id()
        return model_to_dict(self._record(), self.url)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseModel):
            return NotImplemented
        if self._model_id is None or other._model_id is None:
            return self is other
        return self._model_id == other._model_id and self._registry.folder == other._registry.folder

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> str | int:
        """What the hash is made of; must not change when a draft is registered."""
        return self._model_id if self._model_id is not None else id(self)


def model_to_dict(record: ModelRecord, url: str | None) -> dict[str, Any]:
    """Return a record as plain values; the stable form of the command line's `--json`."""
    return {
        "id": record.id,
        "name": record.name,
        "project": record.project,
        "framework": record.framework,
        "url": url,
        "digest": record.digest,
        "size": record.size,
        "package": record.package,
        "tags": list(record.tags),
        "system_tags": _system_tags(record),
        "comment": record.comment,
        "labels": record.labels,
        "config": dump_config(record.config) or None,
        "iteration": record.iteration,
        "metadata": {key: {"type": i.type, "value": i.text} for key, i in sorted(record.metadata.items())},
        "published": record.published,
        "archived": record.archived,
        "task": record.task,
        "parent": record.parent,
        "created": record.created_at.isoformat(timespec="milliseconds"),
        "last_update": record.updated_at.isoformat(timespec="milliseconds"),
    }


def _system_tags(record: ModelRecord) -> list[str]:
    return sorted({*record.system_tags, *(["package"] if record.package else [])})


def _as_list(tags: str | Iterable[str]) -> list[str]:
    return [tags] if isinstance(tags, str) else list(tags)
