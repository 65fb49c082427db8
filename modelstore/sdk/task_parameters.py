"""What a task is run with: hyper-parameters, configuration objects, labels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar, cast

from modelstore.errors import InvalidConfigurationError, InvalidRequestError
from modelstore.records.values import decode, encode, metadata_text
from modelstore.registry import rules
from modelstore.registry.models import dump_config
from modelstore.sdk.configuration import parse_configuration
from modelstore.sdk.task_record import TaskBase

__all__ = ["TaskParameters"]

T = TypeVar("T")

_DEFAULT_SECTION = "General"
_ARGS_SECTION = "Args"


class TaskParameters(TaskBase):
    """The part of `Task` that holds what a run is given."""

    # -- connecting ------------------------------------------------------------------------------------------------

    def connect(self, mutable: T, name: str | None = None, ignore_remote_overrides: bool = False) -> T:
        """Tie something to the task.

        Args:
            mutable: A model of any class (an `OutputModel` becomes an output, others inputs); a dictionary, an
                `argparse` parser or namespace, or an object with attributes, whose values become hyper-parameters.
            name: Name of the link, or section of the hyper-parameters; None takes the default.
            ignore_remote_overrides: Accepted for compatibility; nothing overrides here.

        Returns:
            ``mutable`` itself.

        Raises:
            InvalidRequestError: It is nothing that can be connected, or a value cannot be stored.
            TaskClosedError: An input model, and the task has ended.
        """
        _ = ignore_remote_overrides
        from modelstore.sdk.input_model import InputModel
        from modelstore.sdk.model import BaseModel
        from modelstore.sdk.output_model import OutputModel

        if isinstance(mutable, (InputModel, OutputModel)):
            mutable.connect(self, name)  # type: ignore[arg-type]
        elif isinstance(mutable, BaseModel):
            InputModel._of_model(mutable).connect(self, name)  # type: ignore[arg-type]
        else:
            section, values = _values_of(mutable)
            self._set_section(name or section, values)
        return mutable

    def _set_section(self, section: str, values: Mapping[str, Any]) -> None:
        rules.check_name("section", section)
        self._registry.tasks.edit(
            self._task_id,
            items={f"param:{section}/{key}": _kept(value) for key, value in _flat(values).items()},
        )

    # -- hyper-parameters ------------------------------------------------------------------------------------------

    def set_parameters(self, *args: Mapping[str, Any], **kwargs: Any) -> None:
        """Replace all hyper-parameters.

        Args:
            *args: Dictionaries of "Section/name" to value; without a section, "General" is meant.
            **kwargs: Further ones.
        """
        self._write_parameters(*args, kwargs, replace=True)

    def set_parameters_as_dict(self, dictionary: Mapping[str, Any]) -> None:
        """Replace all hyper-parameters by a nested dictionary."""
        self._write_parameters(_flat(dictionary), replace=True)

    def update_parameters(self, *args: Mapping[str, Any], **kwargs: Any) -> None:
        """Set hyper-parameters and keep the others."""
        self._write_parameters(*args, kwargs, replace=False)

    def set_parameter(
        self, name: str, value: Any, description: str | None = None, value_type: type | None = None
    ) -> None:
        """Set one hyper-parameter, "Section/name"."""
        _ = description
        self._write_parameters({name: value if value_type is None else value_type(value)}, replace=False)

    def delete_parameter(self, name: str, force: bool = False) -> bool:
        """Remove one hyper-parameter, "Section/name"; False when there was none.

        Args:
            name: As it was set.
            force: Accepted for compatibility.
        """
        _ = force
        key = f"param:{_sectioned(name)}"
        there = key.removeprefix("param:") in self._registry.tasks.items(self._task_id, "param:")
        if there:
            self._registry.tasks.edit(self._task_id, items={key: None})
        return there

    def _write_parameters(self, *args: Mapping[str, Any], replace: bool) -> None:
        items: dict[str, Any] = {}
        for values in args:
            if not isinstance(values, Mapping):
                raise InvalidRequestError(f"Parameters must be a dictionary, not {type(values).__name__}")
            items |= {f"param:{_sectioned(str(k))}": _kept(v) for k, v in values.items()}
        self._registry.tasks.edit(self._task_id, items=items, replace_items="param:" if replace else None)

    def get_parameters(self, backwards_compatibility: bool = True, cast: bool = False) -> dict[str, Any]:
        """Return the hyper-parameters as "Section/name" to text.

        Args:
            backwards_compatibility: Accepted for compatibility.
            cast: Return the values as they were given.
        """
        _ = backwards_compatibility
        values = self._registry.tasks.items(self._task_id, "param:")
        values = {k: _given(v) for k, v in values.items()}
        return values if cast else {k: "" if v is None else metadata_text(v) for k, v in values.items()}

    def get_parameters_as_dict(self, cast: bool = False) -> dict[str, Any]:
        """Return the hyper-parameters as a nested dictionary; ``cast`` as in `get_parameters`."""
        nested: dict[str, Any] = {}
        for key, value in self.get_parameters(cast=cast).items():
            *path, last = key.split("/")
            place = nested
            for part in path:
                inner = place.setdefault(part, {})
                if not isinstance(inner, dict):
                    inner = place[part] = {"": inner}
                place = inner
            place[last] = value
        return nested

    def get_parameter(self, name: str, default: Any = None, cast: bool = False) -> Any:
        """Return one hyper-parameter, "Section/name", or the default."""
        return self.get_parameters(cast=cast).get(_sectioned(name), default)

    # -- configuration objects -------------------------------------------------------------------------------------

    def connect_configuration(
        self,
        configuration: T,
        name: str | None = None,
        description: str | None = None,
        ignore_remote_overrides: bool = False,
    ) -> T:
        """Keep a configuration with the task; models that it makes later take the first one that is theirs.

        Args:
            configuration: A dictionary or list, or the path of a file whose text is kept.
            name: Its name; None for "General".
            description: Free text.
            ignore_remote_overrides: Accepted for compatibility.

        Returns:
            ``configuration`` itself.

        Raises:
            InvalidConfigurationError: It is neither, or the file is no text.
        """
        _ = ignore_remote_overrides
        kept: dict[str, Any]
        if isinstance(configuration, (str, PathLike)):
            kept = {"text": _read_text(Path(fspath(cast("str", configuration))))}
        elif isinstance(configuration, (Mapping, list)):
            kept = {"dict": encode(dict(configuration) if isinstance(configuration, Mapping) else configuration)}
        else:
            raise InvalidConfigurationError(
                f"A configuration is a dictionary, a list or a file, not {type(configuration).__name__}"
            )
        value = {"type": "object", "description": description, "config": kept}
        self._registry.tasks.edit(
            self._task_id, items={f"config:{rules.check_name('configuration name', name or _DEFAULT_SECTION)}": value}
        )
        return configuration

    def set_configuration_object(
        self,
        name: str,
        config_text: str | None = None,
        description: str | None = None,
        config_type: str | None = None,
        config_dict: Mapping[str, Any] | list[Any] | None = None,
    ) -> None:
        """Keep a configuration, given as text or dictionary, with the task under a name."""
        wrapped = {"dict": encode(config_dict)} if isinstance(config_dict, list) else None
        kept = wrapped or rules.check_config(config_text, config_dict) or {"text": ""}
        value = {"type": config_type or "object", "description": description, "config": kept}
        self._registry.tasks.edit(
            self._task_id, items={f"config:{rules.check_name('configuration name', name)}": value}
        )

    def get_configuration_object(self, name: str) -> str | None:
        """Return a configuration as text; None when there is none of that name."""
        found = self._registry.tasks.items(self._task_id, "config:").get(name)
        return None if found is None else dump_config(found["config"])

    def get_configuration_object_as_dict(self, name: str) -> Any:
        """Return a configuration as it was given, or its text read as a dictionary; None when there is none.

        Raises:
            InvalidConfigurationError: The text is neither JSON nor HOCON.
        """
        found = self._registry.tasks.items(self._task_id, "config:").get(name)
        if found is None:
            return None
        kept = found["config"]
        return decode(kept["dict"]) if "dict" in kept else parse_configuration(kept["text"])

    def get_configuration_objects(self) -> dict[str, str]:
        """Return all configurations as text, by name."""
        return {k: dump_config(v["config"]) for k, v in self._registry.tasks.items(self._task_id, "config:").items()}

    def set_model_config(self, config_text: str | None = None, config_dict: Mapping[str, Any] | None = None) -> None:
        """Set the configuration of the models that this task makes; only one of the two."""
        self.set_configuration_object("design", config_text=config_text, config_dict=config_dict, config_type="model")

    def get_model_config_text(self) -> str:
        """Return the configuration of the models that this task makes, as text; "" for none."""
        return dump_config(self._model_config())

    get_model_design = get_model_config_text

    def get_model_config_dict(self) -> dict[str, Any]:
        """Return the configuration of the models that this task makes, as a dictionary; {} for none."""
        kept = self._model_config()
        if not kept:
            return {}
        value: dict[str, Any] = decode(kept["dict"]) if "dict" in kept else parse_configuration(kept["text"])
        return value

    def update_model_desc(self, new_model_desc_file: str | PathLike[str] | None = None) -> None:
        """Set the configuration of the models that this task makes from a text file."""
        if new_model_desc_file is None:
            raise InvalidRequestError("No file was given to read the configuration from")
        self.set_model_config(config_text=_read_text(Path(fspath(new_model_desc_file))))

    def _model_config(self) -> dict[str, Any] | None:
        """Return the configuration that new models take: the one set for models, else the first by name."""
        found = self._registry.tasks.items(self._task_id, "config:")
        chosen = found.get("design") or next((found[name] for name in sorted(found)), None)
        kept: dict[str, Any] | None = chosen["config"] if chosen else None
        return kept if kept and (kept.get("text") or isinstance(kept.get("dict"), dict)) else None

    # -- labels ----------------------------------------------------------------------------------------------------

    def set_model_label_enumeration(self, enumeration: Mapping[str, int] | None = None) -> None:
        """Set the labels that later models of this task take; None or {} for none.

        Raises:
            InvalidRequestError: A name is no string or a value no integer.
            TaskClosedError: The task has ended.
        """
        labels = rules.check_labels(enumeration or {})
        self._registry.tasks.edit(self._task_id, labels=labels, require_open=True)

    def connect_label_enumeration(
        self, enumeration: Mapping[str, int], ignore_remote_overrides: bool = False
    ) -> Mapping[str, int]:
        """Set the labels that later models of this task take, and return them.

        Raises:
            InvalidRequestError: It is no dictionary of names to integers.
        """
        _ = ignore_remote_overrides
        self.set_model_label_enumeration(rules.check_labels(enumeration))
        return enumeration

    def get_labels_enumeration(self) -> dict[str, int]:
        """Return the labels that later models of this task take; {} for none."""
        return dict(self._record().labels or {})


def _values_of(mutable: object) -> tuple[str, Mapping[str, Any]]:
    """Return the default section and the values of something that can be connected."""
    import argparse

    if isinstance(mutable, Mapping):
        return _DEFAULT_SECTION, mutable
    if isinstance(mutable, argparse.ArgumentParser):
        try:
            return _ARGS_SECTION, vars(mutable.parse_known_args()[0])
        except SystemExit:
            raise InvalidRequestError(
                "The arguments of this process do not fit the parser", "Parse them first, and connect the result."
            ) from None
    if isinstance(mutable, argparse.Namespace):
        return _ARGS_SECTION, vars(mutable)
    names = [name for name in dir(mutable) if not name.startswith("_")]
    values = {n: v for n in names if not callable(v := getattr(mutable, n))}
    if isinstance(mutable, (str, bytes, int, float, list, tuple, set)) or mutable is None or not values:
        raise InvalidRequestError(
            f"A {type(mutable).__name__} cannot be connected to a task", "Connect a model, a dictionary or an object."
        )
    return _DEFAULT_SECTION, values


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{name}/")
        else:
            flat[name] = _storable(value)
    return flat


def _sectioned(name: str) -> str:
    return name if "/" in name else f"{_DEFAULT_SECTION}/{name}"


def _kept(value: Any) -> Any:
    """Return a value in the form in which a parameter is kept: None would remove it."""
    return {"$none": True} if value is None else _storable(value)


def _given(value: Any) -> Any:
    return None if value == {"$none": True} else value


def _storable(value: Any) -> Any:
    try:
        encode(value)
    except InvalidRequestError:
        return str(value)  # an enum, a class, a function: its text says what it was
    return value


def _read_text(path: Path) -> str:
    from modelstore.errors import BlobNotFoundError

    try:
        return Path(os.path.expanduser(path)).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BlobNotFoundError(f"There is no configuration file {str(path)!r}", "Check the path.") from None
    except (OSError, ValueError) as error:  # no text, no file, NUL in its name
        raise InvalidConfigurationError(f"The configuration file {str(path)!r} cannot be read as text") from error
