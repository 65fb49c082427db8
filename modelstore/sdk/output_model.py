"""`OutputModel`: what an experiment makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstore.errors import BlobNotFoundError, InvalidRequestError, PublishedModelError
from modelstore.registry import rules
from modelstore.registry.sources import Leftover, Source, delete_leftovers, user_path
from modelstore.sdk.framework import guess_framework
from modelstore.sdk.output_draft import OutputDraft
from modelstore.storage import uris

if TYPE_CHECKING:
    from modelstore.registry.uploads import Enqueued
    from modelstore.sdk.task import Task

__all__ = ["OutputModel", "Waitable"]

_PACKAGE_NAME = "model_package.zip"


class Waitable:
    """The result of a change that ClearML makes in the background; here it has happened when the call returns."""

    def wait(self, *_: object, **__: object) -> bool:
        """Return True at once."""
        return True

    def __bool__(self) -> bool:
        return True


class OutputModel(OutputDraft):
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
    _upload_uri: str | None = None

    @property
    def upload_storage_uri(self) -> str | None:
        """Where the next weights go; None for the registry itself."""
        return self._destination(None)

    # -- content ---------------------------------------------------------------------------------------------------

    def connect(self, task: Task, name: str | None = None, ignore_remote_overrides: bool = False) -> None:
        """Name this model among its task's outputs.

        Args:
            task: The task that the model belongs to.
            name: Name of the link, used from the next weights on, at once when the model is registered; None keeps it.
            ignore_remote_overrides: Accepted for compatibility; nothing overrides here.

        Raises:
            InvalidRequestError: It is another task than the model's.
        """
        _ = ignore_remote_overrides
        if task.id != self._task.id:
            raise InvalidRequestError(
                "Can only connect preexisting model to task, or output model to the task that made it",
                "Make an OutputModel of that task.",
            )
        if name is not None:
            self._link_name = rules.check_name("link name", name)
        if self._model_id is not None:
            self._link(self._link_name or self.name or "Output Model", self._model_id)

    def _link(self, name: str, model_id: str) -> None:
        self._registry.tasks.edit(self._task.id, items={f"link:output:{name}": model_id})

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
        if uri == "":
            return
        self._check_not_published()
        self._upload_uri = self._registry.weights.check_destination(uri)

    @classmethod
    def set_default_upload_uri(cls, output_uri: str | PathLike[str] | None) -> None:
        """Say where the weights of all models of this process go that have no destination of their own.

        Args:
            output_uri: As for `set_upload_destination`; None goes back to the registry.

        Raises:
            InvalidUriError: The URI cannot be understood.
        """
        OutputModel._default_upload_uri = uris.refuse_secrets(uris.normalise(output_uri)) if output_uri else None

    def _destination(self, upload_uri: str | PathLike[str] | None) -> str | None:
        weights = self._registry.weights
        if upload_uri:
            return weights.check_destination(upload_uri)
        return self._upload_uri or self._task._destination(self._default_upload_uri)

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
        with self._registry.transaction():
            self._task.set_model_label_enumeration(checked)
            self._edit(labels=checked)
        return Waitable()

    @property
    def labels(self) -> dict[str, int]:
        """The label enumeration: names to integers; the task's until one is given. Setting replaces it."""
        return dict(self._record().labels)

    @labels.setter
    def labels(self, value: Mapping[str, int]) -> None:
        self.update_labels(value)

    def update_design(self, config_text: str | None = None, config_dict: Mapping[str, Any] | None = None) -> Waitable:
        """Set the configuration; "" or {} clears it, neither of the two changes nothing.

        Args:
            config_text: As text.
            config_dict: As a dictionary; only one of the two.

        Raises:
            InvalidConfigurationError: Both were given, or one of the wrong type.
            PublishedModelError: The model is published.
        """
        config = rules.check_config(config_text, config_dict)
        if config_text is not None or config_dict is not None:
            self._set_content(config=config)
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
            upload_uri: Where to, from now on; None takes `set_upload_destination`, the task's `output_uri`, or the
                registry.
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
        register_uri = register_uri or registered_uri
        if bool(weights_filename) == bool(register_uri) or (registered_uri and register_uri != registered_uri):
            raise InvalidRequestError(
                "Model update must have either local weights file to upload, or pre-uploaded register_uri, never both"
            )
        if iteration is not None:
            iteration = rules.check_integer("iteration", iteration)
        self._check_not_published()
        if register_uri:
            return self._register_uri(
                register_uri, iteration, update_comment=update_comment, is_package=bool(is_package)
            )
        path = user_path(weights_filename)
        if os.path.isdir(path):
            return self.update_weights_package(
                weights_path=path,
                upload_uri=upload_uri,
                target_filename=target_filename or path.resolve().name,
                auto_delete_file=auto_delete_file,
                iteration=iteration,
                async_enable=async_enable,
            )
        return self._store(
            Source.file(path, target_filename),
            {"package": bool(is_package), "iteration": iteration},
            upload_uri,
            auto_delete=auto_delete_file,
            background=async_enable,
            update_comment=update_comment,
        )

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
        if isinstance(weights_filenames, (str, PathLike)):
            raise InvalidRequestError(f"weights_filenames must be a list, not {weights_filenames!r:.80}")
        if iteration is not None:
            iteration = rules.check_integer("iteration", iteration)
        self._check_not_published()
        target = target_filename or _PACKAGE_NAME
        target = target if target.lower().endswith(".zip") else f"{target}.zip"
        if weights_path is not None:
            source = Source.folder(user_path(weights_path), target)
        else:
            source = Source.files([user_path(one) for one in weights_filenames or ()], target)
        return self._store(
            source,
            {"package": True, "iteration": iteration},
            upload_uri,
            auto_delete=auto_delete_file,
            background=async_enable,
            update_comment=True,
        )

    def _register_uri(
        self, uri: str | PathLike[str], iteration: int | None, *, update_comment: bool, is_package: bool
    ) -> str:
        weights = self._registry.weights
        logical = weights.logical(uri)
        fields = {"uri": logical, **weights.described(logical), "package": is_package, "iteration": iteration}
        shown = weights.shown(logical)
        comment = shown if update_comment else None
        self._wait_for_former()
        if not self._write(fields, uris.basename(logical) or "weights", comment=comment):
            raise BlobNotFoundError(f"The object {shown} is no longer there", "It was removed a moment ago.")
        return weights.physical(logical)

    def _store(
        self,
        source: Source,
        fields: dict[str, Any],
        upload_uri: str | PathLike[str] | None,
        *,
        auto_delete: bool,
        background: bool,
        update_comment: bool,
    ) -> str:
        registry, weights = self._registry, self._registry.weights
        destination = self._destination(upload_uri)
        comment = source.name if update_comment else None
        leftovers = source.leftovers if auto_delete else ()
        if destination is not None and background:
            url = self._store_later(source, fields, destination, leftovers, comment)
            self._upload_uri = destination if upload_uri else self._upload_uri
            return url
        self._wait_for_former()
        while True:
            with weights.snapshot(source) as snapshot:
                stored = weights.store(snapshot, destination)
            # False when the last other use of these bytes was removed, and they with it, since they were stored.
            if self._write(fields | stored.fields(), source.name, comment=comment):
                break
        self._upload_uri = destination if upload_uri else self._upload_uri
        own = registry.folder, registry.cache_folder
        registry.database.at_end(well=partial(delete_leftovers, leftovers, own))
        return weights.physical(stored.uri)

    def _store_later(
        self,
        source: Source,
        fields: dict[str, Any],
        destination: str,
        leftovers: Sequence[Leftover],
        comment: str | None,
    ) -> str:
        # Nothing of the content is set before the bytes are there: until then readers see the former weights.
        uploads = self._registry.weights.uploads
        queued: list[Enqueued] = []

        def enqueue(content: dict[str, Any]) -> None:
            queued.append(uploads.enqueue(self._reserved_id, snapshot, destination, content, leftovers))
            uploads.start(queued[0])  # in the transaction: its end, and no interruption after it, decides on the file

        with self._registry.weights.snapshot(source) as snapshot:
            uploads.adopt(snapshot)
            self._write(fields, source.name, comment=comment, later=enqueue)
        return queued[0].uri

    def _wait_for_former(self) -> None:
        """Let weights that are on their way arrive first; that they could not is told by others."""
        if self._model_id is not None:
            self._registry.weights.wait(self._model_id, quiet=True)

    def _write(
        self,
        fields: dict[str, Any],
        filename: str,
        *,
        comment: str | None,
        later: Callable[[dict[str, Any]], None] | None = None,
    ) -> bool:
        """Write the row: register the model or change it, link it to its task; all in one transaction.

        Args:
            fields: The model's new content.
            filename: What the weights are called.
            comment: What the comment says was stored; None leaves the comment alone.
            later: Leave the content to the end of an upload, and hand it to this.

        Returns:
            False, and nothing was written, when stored bytes are gone again.
        """
        registry, superseded = self._registry, list[Path]()
        with registry.transaction():
            if not registry.weights.confirm(fields.get("uri")):
                return False
            record = self._registered()
            values = {} if record else self._values()
            known = record or self._drafted(values)
            if known.published:
                raise PublishedModelError(f"Model is published and cannot be changed: {known.name!r} ({known.id})")
            content = fields | ({} if known.framework else {"framework": guess_framework(filename)})
            now = {} if later else dict(content)
            if comment is not None:
                now["comment"] = _snapshot_comment(known.comment, comment)
            link = self._link_name or _stem(filename)
            if record is None:
                self._register(values | now, link)
            else:
                registry.models.edit(record.id, **now)
                self._link(link, record.id)
            self._task._advance_iteration(fields["iteration"])
            if later:
                later(content)
            else:
                superseded = registry.weights.supersede(self._reserved_id)
        self._become_registered()
        for path in superseded:
            registry.database.at_end(well=partial(path.unlink, missing_ok=True))
        return True

    @classmethod
    def wait_for_uploads(cls, timeout: float | None = None, max_num_uploads: int | None = None) -> None:
        """Wait for the uploads that this process began in the registry in use here.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes.
            max_num_uploads: Return when so many of them have finished; None waits for all.

        Raises:
            UploadError: One failed; its bytes are kept in the registry folder, and `modelstore uploads --resume` tries
                again.
        """
        from modelstore.sdk._context import current_registry

        current_registry().weights.wait(None, timeout=timeout, count=max_num_uploads)


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
