"""`OutputModel`: what an experiment makes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstore.errors import InvalidRequestError, PublishedModelError
from modelstore.ids import new_id
from modelstore.records.entities import ModelRecord
from modelstore.registry import rules
from modelstore.registry.models import dump_config
from modelstore.registry.weights import Snapshot, Source
from modelstore.sdk._context import state
from modelstore.sdk.framework import guess_framework
from modelstore.sdk.model import BaseModel

if TYPE_CHECKING:
    from modelstore.sdk.task import Task

__all__ = ["OutputModel", "Waitable"]

logger = logging.getLogger("modelstore")

_PACKAGE_NAME = "model_package.zip"


class Waitable:
    """The result of a change that ClearML makes in the background; here it has happened when the call returns."""

    def wait(self, *_: object, **__: object) -> bool:
        """Return True at once."""
        return True

    def __bool__(self) -> bool:
        return True


class OutputModel(BaseModel):
    """A model that a task makes.

    Making the object changes nothing in the registry: the model is registered, whole, by the first call that has
    something to keep (weights, metadata, a report, archiving, publishing).

    Args:
        task: The task that makes it; None takes the current one.
        config_text: Its configuration as text.
        config_dict: Its configuration as a dictionary; only one of the two.
        label_enumeration: Names to integers; None takes the task's.
        name: Its name; None takes the task's.
        tags: Its tags.
        comment: Free text.
        framework: A constant of `Framework` or any string; None guesses from the weights' file name.
        base_model_id: Go on with this model instead of making one; the other arguments then change it at once.

    Raises:
        InvalidRequestError: No task was given and there is no current one, or an argument is not acceptable.
        ModelNotFoundError: There is no model ``base_model_id``.
        PublishedModelError: ``base_model_id`` is published, and an argument would change its content.
    """

    _default_upload_uri: str | None = None

    def __init__(
        self,
        task: Task | None = None,
        config_text: str | None = None,
        config_dict: Mapping[str, Any] | None = None,
        label_enumeration: Mapping[str, int] | None = None,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        comment: str | None = None,
        framework: str | None = None,
        base_model_id: str | None = None,
    ) -> None:
        task = task if task is not None else state.main_task
        if task is None:
            raise InvalidRequestError(
                "task object was not provided, and no current task was found", "Call Task.init() first."
            )
        super().__init__(task._registry, None)
        self._task = task
        self._link_name: str | None = None
        self._upload_uri: str | None = None
        self._draft: dict[str, Any] = {
            "name": None if name is None else rules.check_name("model name", name),
            "tags": rules.check_tags(tags or ()),
            "comment": comment,
            "framework": None if framework is None else rules.check_text("framework", framework),
            "config": rules.check_config(config_text, config_dict),
            "labels": None if label_enumeration is None else rules.check_labels(label_enumeration),
        }
        if base_model_id is not None:
            self._continue(base_model_id)

    def _continue(self, base_model_id: str) -> None:
        record = self._registry.models.get(base_model_id)
        self._model_id = record.id
        fields = {k: v for k, v in self._draft.items() if v is not None and k != "tags"}
        with self._registry.transaction():
            if fields:
                record = self._registry.models.edit(record.id, **fields)
            if self._draft["tags"]:
                record = self._registry.models.tag(record.id, add=self._draft["tags"])
        self._keep(self._registry.models.get(record.id))

    # -- the record ------------------------------------------------------------------------------------------------

    def _ensured_id(self) -> str:
        """Register the model when that is still to be done, and return its id."""
        if self._model_id is None:
            record = self._register({})
            self._model_id = record.id
            self._keep(record)
        return self._model_id

    def _register(self, fields: dict[str, Any], link: str | None = None) -> ModelRecord:
        draft = self._draft
        values = {
            "task": self._task.id,
            "project": draft.get("project", self._task.get_project_name()),
            "comment": draft["comment"] or None,
            "framework": draft["framework"],
            "config": draft["config"] or self._task._model_config(),
            "labels": draft["labels"] if draft["labels"] is not None else self._task.get_labels_enumeration() or None,
            "parent": self._task._input_named(link),
        }
        links = [(self._task.id, "output", link)] if link else []
        return self._registry.models.create(
            model_id=new_id(),
            name=draft["name"] or self._task.name or "Model",
            tags=draft["tags"],
            links=links,
            **(values | fields),
        )

    def _edit(self, **fields: Any) -> None:
        if self._model_id is not None:
            super()._edit(**fields)
            return
        checked = {k: v for k, v in fields.items() if k not in ("labels", "config")}
        if checked.get("name") is not None:
            rules.check_name("model name", checked["name"])
        if checked.get("project") is not None:
            rules.check_project(checked["project"])
        self._draft |= fields

    def _drafted(self, key: str) -> Any:
        return self._draft.get(key) if self._model_id is None else None

    # -- properties ------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str | None:  # type: ignore[override]
        """The model's id; None until it is registered."""
        return self._model_id

    @property
    def name(self) -> str | None:
        """The model's name; the task's until one is given."""
        if self._model_id is None:
            return self._draft["name"] or self._task.name
        return self._record().name

    @name.setter
    def name(self, value: str) -> None:
        self._edit(name=value)

    @property
    def project(self) -> str | None:
        """Id of the model's project; the task's unless another was set."""
        if self._model_id is None:
            from modelstore.ids import project_id

            name = self._draft.get("project", self._task.get_project_name())
            return None if name is None else project_id(name)
        return self._record().project_id

    @project.setter
    def project(self, value: str | None) -> None:
        self._edit(project=None if value is None else self._project_name(value))

    @property
    def comment(self) -> str | None:
        """Free text about the model; setting "" clears it."""
        return self._drafted("comment") if self._model_id is None else self._record().comment

    @comment.setter
    def comment(self, value: str | None) -> None:
        self._edit(comment=value or None)

    @property
    def tags(self) -> list[str]:
        """The model's tags, sorted. Setting replaces them all; [] removes them all."""
        return sorted(self._draft["tags"]) if self._model_id is None else list(self._record().tags)

    @tags.setter
    def tags(self, value: Iterable[str] | None) -> None:
        if self._model_id is None:
            self._draft["tags"] = rules.check_tags([] if value is None else value)
        else:
            self._keep(self._registry.models.tag(self._model_id, replace=[] if value is None else value))

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Add tags; see `Model.add_tags`. Before the model is registered they wait for that."""
        if self._model_id is not None:
            super().add_tags(tags)
            return
        added = rules.check_tags([tags] if isinstance(tags, str) else tags)
        self._draft["tags"] = list(dict.fromkeys([*self._draft["tags"], *added]))

    def remove_tags(self, tags: str | Iterable[str]) -> None:
        """Take tags away; see `Model.remove_tags`."""
        if self._model_id is not None:
            super().remove_tags(tags)
            return
        unwanted = set(rules.check_tags([tags] if isinstance(tags, str) else tags))
        self._draft["tags"] = [tag for tag in self._draft["tags"] if tag not in unwanted]

    @property
    def system_tags(self) -> list[str]:
        """Tags that say what state the model is in: "archived", "package"."""
        return [] if self._model_id is None else BaseModel.system_tags.fget(self)  # type: ignore[attr-defined]

    @system_tags.setter
    def system_tags(self, value: Iterable[str] | None) -> None:
        self._ensured_id()
        BaseModel.system_tags.fset(self, value)  # type: ignore[attr-defined]

    @property
    def config_text(self) -> str:
        """The model's configuration as text, "" for none; setting replaces it."""
        return dump_config(self._config())

    @config_text.setter
    def config_text(self, value: str | None) -> None:
        self._set_content(config=rules.check_config(value or None, None))

    @property
    def config_dict(self) -> dict[str, Any]:
        """The model's configuration as a dictionary, {} for none; setting replaces it."""
        value: dict[str, Any] = BaseModel.config_dict.fget(self)  # type: ignore[attr-defined]
        return value

    @config_dict.setter
    def config_dict(self, value: Mapping[str, Any] | None) -> None:
        self._set_content(config=rules.check_config(None, value))

    def _config(self) -> dict[str, Any] | None:
        config: dict[str, Any] | None = self._drafted("config") if self._model_id is None else self._record().config
        return config

    @property
    def labels(self) -> dict[str, int]:
        """The label enumeration: names to integers; the task's until one is given. Setting replaces it."""
        if self._model_id is not None:
            return dict(self._record().labels)
        own = self._draft["labels"]
        return dict(own) if own is not None else self._task.get_labels_enumeration()

    @labels.setter
    def labels(self, value: Mapping[str, int]) -> None:
        self.update_labels(value)

    @property
    def task(self) -> str | None:
        """Id of the task that this object belongs to."""
        return self._task.id

    @property
    def original_task(self) -> str | None:
        """Id of the task that made the model first; another than `task` when it was continued."""
        return self._task.id if self._model_id is None else self._record().task

    @property
    def url(self) -> str | None:
        """URI of the weights; None when there are none yet. While an upload runs, that of the last finished one."""
        return None if self._model_id is None else BaseModel.url.fget(self)  # type: ignore[attr-defined]

    @property
    def published(self) -> bool:
        """Whether the content is fixed for good; False before the model is registered."""
        return self._model_id is not None and self._record().published

    @property
    def archived(self) -> bool:
        """Whether the model is archived; False before it is registered."""
        return self._model_id is not None and self._record().archived

    @property
    def framework(self) -> str | None:
        """The framework that the weights are for; None when it is not known."""
        return self._drafted("framework") if self._model_id is None else self._record().framework

    @framework.setter
    def framework(self, value: str | None) -> None:
        self._set_content(framework=value)

    @property
    def upload_storage_uri(self) -> str | None:
        """Where the next weights go; None for the registry itself."""
        return self._destination(None)

    def _metadata(self) -> dict[str, Any]:
        return {} if self._model_id is None else self._record().metadata

    def _is_package(self) -> bool:
        return self._model_id is not None and self._record().package

    def _local(self, extract: bool | None, raise_on_error: bool, force: bool) -> str | None:
        if self._model_id is None:
            from modelstore.errors import DownloadError

            if raise_on_error:
                raise DownloadError("The model has no weights yet", "Call update_weights() first.")
            return None
        return super()._local(extract, raise_on_error, force)

    # -- content ---------------------------------------------------------------------------------------------------

    def _check_not_published(self) -> None:
        if self.published:
            raise PublishedModelError(
                f"Model is published and cannot be changed: {self.name!r} ({self._model_id})",
                "Make a new OutputModel instead.",
            )

    def _set_content(self, **fields: Any) -> None:
        self._check_not_published()
        self._edit(**fields)

    def connect(self, task: Task, name: str | None = None) -> None:
        """Name this model among its task's outputs.

        Args:
            task: The task that the model belongs to.
            name: Name of the link, used from the next weights on, at once when the model is registered; None keeps it.

        Raises:
            InvalidRequestError: It is another task than the model's.
        """
        if task.id != self._task.id:
            raise InvalidRequestError(
                "Can only connect preexisting model to task, or output model to the task that made it",
                "Make an OutputModel of that task.",
            )
        if name is not None:
            self._link_name = rules.check_name("link name", name)
        if self._model_id is not None:
            self._link(self._link_name or self.name or "Output Model")

    def _link(self, name: str) -> None:
        self._registry.tasks.edit(self._task.id, items={f"link:output:{name}": self._model_id})

    def set_upload_destination(self, uri: str | PathLike[str]) -> None:
        """Say where the next weights go.

        Args:
            uri: Folder or bucket path, any URI that fsspec can write to; a local folder is made at the first upload.
                "" changes nothing.

        Raises:
            PublishedModelError: The model is published.
            InvalidUriError: The URI cannot be understood.
            MissingDriverError: The package for that storage is not installed.
            ReadOnlyStorageError: It cannot be written.
        """
        if not fspath(uri):
            return
        self._check_not_published()
        self._upload_uri = self._registry.weights.check_destination(uri)

    @classmethod
    def set_default_upload_uri(cls, output_uri: str | PathLike[str] | None) -> None:
        """Say where the weights of all models of this process go that have no destination of their own.

        Args:
            output_uri: As for `set_upload_destination`; None goes back to the registry.
        """
        cls._default_upload_uri = fspath(output_uri) if output_uri else None

    def _destination(self, upload_uri: str | PathLike[str] | None) -> str | None:
        return (
            (fspath(upload_uri) if upload_uri else None)
            or self._upload_uri
            or self._task._destination()
            or self._default_upload_uri
        )

    def update_labels(self, labels: Mapping[str, int]) -> Waitable:
        """Set the label enumeration of the model and of its task.

        Args:
            labels: Names to integers; {} clears it.

        Raises:
            InvalidRequestError: A name is no string or a value no integer; nothing was changed.
            PublishedModelError: The model is published.
        """
        checked = rules.check_labels(labels)
        self._check_not_published()
        self._task.set_model_label_enumeration(checked)
        self._edit(labels=checked)
        return Waitable()

    def update_design(self, config_text: str | None = None, config_dict: Mapping[str, Any] | None = None) -> Waitable:
        """Set the configuration; "" or {} clears it.

        Args:
            config_text: As text.
            config_dict: As a dictionary; only one of the two.

        Raises:
            InvalidConfigurationError: Both were given, or one of the wrong type.
            PublishedModelError: The model is published.
        """
        self._set_content(config=rules.check_config(config_text, config_dict))
        return Waitable()

    # -- weights ---------------------------------------------------------------------------------------------------

    def update_weights(
        self,
        weights_filename: str | PathLike[str] | None = None,
        upload_uri: str | PathLike[str] | None = None,
        target_filename: str | None = None,
        auto_delete_file: bool = False,
        register_uri: str | PathLike[str] | None = None,
        iteration: int | None = None,
        update_comment: bool = True,
        is_package: bool = False,
        async_enable: bool = True,
        *,
        registered_uri: str | PathLike[str] | None = None,
    ) -> str | None:
        """Give the model new weights: a file or folder to store, or the URI of bytes that are somewhere already.

        The file is copied, with its digest, before the call returns: what is trained over it later changes nothing.
        Bytes first, row second: a process killed in between leaves the model as it was.

        Args:
            weights_filename: File to store; a folder is stored as a package.
            upload_uri: Where to; None takes `set_upload_destination`, the task's `output_uri`, or the registry.
            target_filename: Name to store it under; None keeps its own. The ending of the file is kept.
            auto_delete_file: Delete the file afterwards, once the stored bytes are verified.
            register_uri: URI of bytes that exist elsewhere, in place of a file; they are not read.
            iteration: Training iteration; kept on the model, and on the task when it is the greatest so far.
            update_comment: Begin the comment with "snapshot NAME stored".
            is_package: The file is an archive of several files.
            async_enable: Send to a remote destination in the background, from the copy. `wait_for_uploads`,
                `Task.close` and the end of the process wait for it.
            registered_uri: The same as ``register_uri``.

        Returns:
            URI of the weights; for an upload in the background the one they will have.

        Raises:
            InvalidRequestError: Neither or both of file and URI.
            PublishedModelError: The model is published; nothing was touched.
            BlobNotFoundError: The file does not exist; nothing was changed.
            StorageError: The bytes could not be stored; the model is as it was.
        """
        register_uri = register_uri if register_uri is not None else registered_uri
        if bool(weights_filename) == bool(register_uri):
            raise InvalidRequestError(
                "Model update must have either local weights file to upload, or pre-uploaded register_uri, never both"
            )
        self._check_not_published()
        if register_uri:
            return self._register_uri(fspath(register_uri), iteration, update_comment, is_package)
        path = Path(fspath(weights_filename or "")).expanduser()
        if path.is_dir():
            return self.update_weights_package(
                weights_path=path,
                upload_uri=upload_uri,
                target_filename=target_filename or path.resolve().name,
                auto_delete_file=auto_delete_file,
                iteration=iteration,
                async_enable=async_enable,
            )
        source = Source.file(path, target_filename)
        fields = {"package": bool(is_package), "iteration": iteration}
        return self._store(source, fields, upload_uri, auto_delete_file, async_enable, update_comment)

    def update_weights_package(
        self,
        weights_filenames: Sequence[str | PathLike[str]] | None = None,
        weights_path: str | PathLike[str] | None = None,
        upload_uri: str | PathLike[str] | None = None,
        target_filename: str | None = None,
        auto_delete_file: bool = False,
        iteration: int | None = None,
        async_enable: bool = True,
    ) -> str | None:
        """Give the model several files as its weights, stored as one archive.

        Two packages made of the same files are the same bytes. See `update_weights` for what holds.

        Args:
            weights_filenames: The files; their names are kept relative to their common folder.
            weights_path: A folder, with everything in it; only one of the two.
            upload_uri: Where to; None as for `update_weights`.
            target_filename: Name of the archive; None for "model_package.zip".
            auto_delete_file: Delete the files (and the folder) once the stored bytes are verified.
            iteration: Training iteration.
            async_enable: As for `update_weights`.

        Returns:
            URI of the archive.

        Raises:
            InvalidRequestError: Neither or both of files and folder, an empty list or folder.
            PublishedModelError: The model is published; nothing was touched.
            BlobNotFoundError: A file does not exist; nothing was changed.
            StorageError: The bytes could not be stored; the model is as it was.
        """
        if (weights_filenames is None) == (weights_path is None):
            raise InvalidRequestError("Model package must have either weights_filenames or weights_path, never both")
        self._check_not_published()
        target = target_filename or _PACKAGE_NAME
        target = target if target.lower().endswith(".zip") else f"{target}.zip"
        if weights_path is not None:
            source = Source.folder(Path(fspath(weights_path)).expanduser(), target)
        else:
            source = Source.files([Path(fspath(f)).expanduser() for f in weights_filenames or ()], target)
        fields = {"package": True, "iteration": iteration}
        return self._store(source, fields, upload_uri, auto_delete_file, async_enable, True)

    def _register_uri(self, uri: str, iteration: int | None, update_comment: bool, is_package: bool) -> str:
        registry = self._registry
        logical = registry.weights.logical(uri)
        fields = {
            "uri": logical, "digest": None, "size": None, "package": bool(is_package), "iteration": iteration,
        }  # fmt: skip
        name = uri.rstrip("/").rsplit("/", 1)[-1]
        self._finish(fields, name, update_comment, shown=registry.weights.shown(logical))
        return registry.weights.physical(logical)

    def _store(
        self,
        source: Source,
        fields: dict[str, Any],
        upload_uri: str | PathLike[str] | None,
        auto_delete: bool,
        background: bool,
        update_comment: bool,
    ) -> str:
        weights = self._registry.weights
        destination = self._destination(upload_uri)
        if upload_uri:
            self._upload_uri = weights.check_destination(upload_uri)
            destination = self._upload_uri
        if self._model_id is not None:
            weights.wait(self._model_id)
        while True:
            with weights.snapshot(source) as snapshot:
                if destination is not None and background:
                    return self._store_later(source, snapshot, fields, destination, auto_delete, update_comment)
                stored = weights.store(snapshot, destination)
            # False when the last other use of these bytes was removed, and they with it, since they were stored.
            if self._finish(fields | stored.fields(), source.name, update_comment):
                break
        if auto_delete:
            source.delete()
        return weights.physical(stored.uri)

    def _store_later(
        self,
        source: Source,
        snapshot: Snapshot,
        fields: dict[str, Any],
        destination: str,
        auto_delete: bool,
        update_comment: bool,
    ) -> str:
        # Nothing of the content is set before the bytes are there: until then readers see the former weights.
        content = self._content(fields, source.name)
        uploads = self._registry.weights.uploads
        uploads.adopt(snapshot)
        with self._registry.transaction():
            self._finish(content, source.name, update_comment, later=True)
            delete = source.paths if auto_delete else ()
            upload = uploads.enqueue(self._require_id(), snapshot, destination, content, delete)
        uploads.start(upload)
        return upload.uri

    def _content(self, fields: dict[str, Any], filename: str) -> dict[str, Any]:
        """Return what new weights change of the model's content."""
        content = {k: v for k, v in fields.items() if k != "iteration" or v is not None}
        if self.framework is None and (guessed := guess_framework(filename)) is not None:
            content["framework"] = guessed
        return content

    def _finish(
        self, fields: dict[str, Any], filename: str, update_comment: bool, shown: str | None = None, later: bool = False
    ) -> bool:
        """Write the row: register the model or change it, link it to its task; all in one transaction.

        Args:
            fields: The model's new content.
            filename: What the weights are called.
            update_comment: Say so in the comment.
            shown: What the comment calls them; None for the file name.
            later: Leave the content to the end of an upload.

        Returns:
            False, and nothing was written, when stored bytes are gone again.
        """
        content = self._content(fields, filename)
        comment = _snapshot_comment(self.comment, shown or filename) if update_comment else self.comment
        link = self._link_name or _stem(filename)
        now = {} if later else content
        with self._registry.transaction():
            if not self._registry.weights.confirm(now.get("uri")):
                return False
            if self._model_id is None:
                record = self._register(now | {"comment": comment or None}, link)
            else:
                record = self._registry.models.edit(self._model_id, comment=comment or None, **now)
                self._link(link)
            self._task._advance_iteration(content.get("iteration"))
        self._model_id = record.id
        self.refresh()
        return True

    @classmethod
    def wait_for_uploads(cls, timeout: float | None = None, max_num_uploads: int | None = None) -> None:
        """Wait for this process's uploads.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes.
            max_num_uploads: Return when so many of them have finished; None waits for all.

        Raises:
            UploadError: One failed; its bytes are kept in the registry folder, and `modelstore uploads --resume` tries
                again.
        """
        from modelstore.sdk._context import current_registry

        current_registry().weights.wait(None, timeout=timeout, count=max_num_uploads)

    def __repr__(self) -> str:
        if self._model_id is None:
            return f"<OutputModel {self.name!r} (not registered yet)>"
        return super().__repr__()


def _snapshot_comment(comment: str | None, filename: str) -> str:
    """Return a comment that begins with what was stored last, in place of what it said before."""
    lines = (comment or "").split("\n")
    if lines[0].startswith("snapshot ") and lines[0].endswith(" stored"):
        lines = lines[1:]
    rest = "\n".join(lines).strip("\n")
    return f"snapshot {filename} stored" + (f"\n{rest}" if rest else "")


def _stem(filename: str) -> str:
    stem = filename.rsplit(".", 1)[0].strip()
    try:
        return rules.check_name("link name", stem)
    except InvalidRequestError:
        return "Output Model"
