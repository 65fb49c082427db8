"""Every class has ClearML's methods and properties, with its parameters in its order and with its defaults.

The table in tests/data/clearml_signatures.json was written down from the `inspect.signature` of ClearML 2.1.12. Of what
has to do with agents, queues, artifacts and console capture, what is accepted is in it.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Final

import pytest

import modelstore

CLEARML: Final[dict[str, dict[str, str]]] = json.loads(
    (Path(__file__).parent.parent / "data" / "clearml_signatures.json").read_text()
)

KEPT = "a script's files are never deleted unless it asks for that"
MORE = "keyword-only additions change no call that ClearML accepts"
DIFFERENCES: Final[dict[tuple[str, str], tuple[str, str]]] = {
    ("Model", "__init__"): (
        "(self, model_id, *, as_of=None)",
        "keyword-only additions change no call that ClearML accepts",
    ),
    ("Task", "id"): ("property", "an id never changes"),
    ("Task", "update_output_model"): (
        (
            "(self, model_path, name=None, comment=None, tags=None, model_name=None, iteration=None,"
            " auto_delete_file=False)"
        ),
        KEPT,
    ),
    ("OutputModel", "update_weights"): (
        (
            "(self, weights_filename=None, upload_uri=None, target_filename=None, auto_delete_file=False,"
            " register_uri=None, iteration=None, update_comment=True, is_package=False, async_enable=True, *,"
            " registered_uri=None)"
        ),
        KEPT + "; the documentation writes registered_uri",
    ),
    ("OutputModel", "update_weights_package"): (
        (
            "(self, weights_filenames=None, weights_path=None, upload_uri=None, target_filename=None,"
            " auto_delete_file=False, iteration=None, async_enable=True)"
        ),
        KEPT,
    ),
    ("OutputModel", "connect"): ("(self, task, name=None, ignore_remote_overrides=False)", "what **kwargs stands for"),
    ("Logger", "report_scatter2d"): (
        CLEARML["OutputModel"]["report_scatter2d"],
        '"line" and "lines" mean the same here, and one method serves models and loggers',
    ),
    ("OutputModel", "framework"): ("property rw", "a guess can be put right"),
    ("Model", "publish"): ("(self, *, require_weights=True)", MORE),
    ("InputModel", "publish"): ("(self, *, require_weights=True)", MORE),
    ("OutputModel", "publish"): ("(self, *, require_weights=True)", MORE),
    ("Task", "get_task"): (
        (
            "(task_id=None, project_name=None, task_name=None, tags=None, allow_archived=True, task_filter=None, *,"
            " as_of=None)"
        ),
        MORE,
    ),
    ("Task", "get_tasks"): (
        (
            "(task_ids=None, project_name=None, task_name=None, tags=None, allow_archived=True, task_filter=None, *,"
            " where=None, search=None, order_by=None, max_results=None, as_of=None)"
        ),
        MORE,
    ),
    ("Task", "query_tasks"): (
        (
            "(project_name=None, task_name=None, tags=None, additional_return_fields=None, task_filter=None, *,"
            " where=None, search=None, order_by=None, max_results=None, as_of=None)"
        ),
        MORE,
    ),
} | {
    (name, "query_models"): (
        (
            "(project_name=None, model_name=None, tags=None, only_published=False, include_archived=False,"
            " max_results=None, metadata=None, *, where=None, name_regex=None, order_by=None, dialect='page',"
            " search=None, as_of=None)"
        ),
        MORE,
    )
    for name in ("Model", "InputModel")
}


def describe(owner: type, name: str) -> str:
    """Write down a member as the table does."""
    raw: Any = inspect.getattr_static(owner, name)
    if isinstance(raw, property):
        return "property rw" if raw.fset else "property"
    value = getattr(owner, name)
    if inspect.isclass(value):
        return "class"
    if not callable(value):
        return f"attribute {value!r}"
    signature = inspect.signature(value)
    bare = [
        p.replace(
            annotation=inspect.Parameter.empty,
            default=str(p.default) if isinstance(p.default, str) else p.default,
        )
        for p in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize(("owner", "name"), [(c, n) for c in CLEARML for n in CLEARML[c]])
def test_a_member_is_called_as_in_clearml(owner: str, name: str) -> None:
    """A script moves by changing one import, whether it passes its arguments by name or by position."""
    expected, reason = DIFFERENCES.get((owner, name), (CLEARML[owner][name], ""))

    assert describe(getattr(modelstore, owner), name) == expected, reason


def test_every_difference_is_one() -> None:
    """A difference that is none any more would hide the next one."""
    for (owner, name), (ours, reason) in DIFFERENCES.items():
        assert CLEARML[owner][name] != ours, f"{owner}.{name}"
        assert reason


def test_positional_parameters_are_only_added_at_the_end_and_by_name() -> None:
    """An addition between ClearML's own would shift the arguments of existing calls."""
    for owner, name in DIFFERENCES:
        if CLEARML[owner][name].startswith("property"):
            continue
        theirs = CLEARML[owner][name].strip("()").split(", ")
        method = inspect.signature(getattr(getattr(modelstore, owner), name))
        positional = [p.name for p in method.parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        names = [parameter.split("=")[0] for parameter in theirs if not parameter.startswith("*")]

        assert positional[: len(names)] == names


def test_the_class_tree_is_clearmls_but_for_what_output_models_can_do() -> None:
    """`isinstance` checks in scripts keep their meaning."""
    from modelstore.sdk.base_model import BaseModel

    assert issubclass(modelstore.InputModel, modelstore.Model)
    assert not issubclass(modelstore.OutputModel, modelstore.Model)
    assert issubclass(modelstore.OutputModel, BaseModel)
    assert hasattr(modelstore.OutputModel, "get_local_copy")  # which ClearML's has not
