"""`Model`: properties, metadata, life cycle, local copies, removal; the same for every class of model."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore import InputModel, Model, OutputModel, Registry, Task
from modelstore.errors import (
    DownloadError,
    IntegrityError,
    InvalidConfigurationError,
    InvalidMetadataError,
    InvalidRequestError,
    MissingWeightsError,
    ModelInUseError,
    ModelNotFoundError,
    ProjectNotFoundError,
    PublishedModelError,
)
from tests.kinds import SHARED, one_machine

MakeFile = Callable[..., Path]
Unchanged = Callable[..., AbstractContextManager[None]]
NOWHERE = "0" * 32


@pytest.fixture
def model(task: Task, make_file: MakeFile) -> OutputModel:
    """A registered model."""
    made = OutputModel(task, name="net", tags=["b", "a"], comment="first", label_enumeration={"cat": 1})
    made.update_weights(make_file(), update_comment=False)
    return made


def statements(registry: Registry, run: Callable[[], object]) -> list[str]:
    """Return the SQL that a call runs."""
    seen: list[str] = []
    connection = registry.database.connection
    connection.set_trace_callback(seen.append)
    try:
        run()
    finally:
        connection.set_trace_callback(None)
    return seen


# -- properties -------------------------------------------------------------------------------------------------------


def test_every_object_of_a_model_shows_the_same(model: OutputModel) -> None:
    """Whatever class it has."""
    for other in (Model(str(model.id)), InputModel(str(model.id)), Model(f"  {model.id} ")):
        for name in ("id", "name", "project", "project_name", "comment", "tags", "system_tags", "config_text", "labels",
                     "task", "original_task", "url", "published", "archived", "framework", "archived_tag", "digest",
                     "size", "iteration", "created", "last_update", "parent"):  # fmt: skip
            assert getattr(other, name) == getattr(model, name), name
        assert other == model
    assert (model.archived_tag, model.project_name, model.parent) == ("archived", "vision/ocr", None)


def test_setting_an_empty_value_clears_it(model: OutputModel) -> None:
    """ClearML ignores "" and []."""
    model.tags = []
    model.comment = ""

    assert (model.tags, model.comment) == ([], None)
    assert Model(str(model.id)).tags == []


def test_tags_are_sorted_and_counted_once(model: OutputModel) -> None:
    """A set, however it was given."""
    model.tags = ("z", "a", "z", "é", "A")

    assert model.tags == ["A", "a", "z", "é"]
    model.tags = (tag for tag in ["only"])  # type: ignore[assignment]
    assert model.tags == ["only"]


def test_tags_are_added_and_removed_one_by_one(model: OutputModel) -> None:
    """What others do to other tags at the same time stays."""
    other = Model(str(model.id))
    model.add_tags("c d")
    other.add_tags(["e"])
    other.remove_tags(["a", "never there"])
    model.remove_tags("b")

    assert model.tags == other.tags == ["c d", "e"]


@pytest.mark.parametrize("tags", ["abc", ["__$and"], ["__$x"], [""], [" "], [5], [None], ["a\0"], ["x" * 501], 5])
def test_a_bad_tag_changes_nothing(model: OutputModel, unchanged: Unchanged, tags: Any) -> None:
    """Not even the good ones beside it."""
    with unchanged():
        with pytest.raises(InvalidRequestError):
            model.tags = tags
        if not isinstance(tags, (str, int)):
            with pytest.raises(InvalidRequestError):
                model.add_tags(["fine", *tags])


def test_system_tags_say_what_state_the_model_is_in(model: OutputModel) -> None:
    """ "package" cannot be forged, "archived" is the state itself."""
    model.system_tags = ["archived", "mine"]
    assert model.archived
    assert model.system_tags == ["archived", "mine"]
    with pytest.raises(InvalidRequestError, match="package"):
        model.system_tags = ["package"]
    model.system_tags = []
    assert not model.archived


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\0b", "x" * 10_000, None, 5, b"x", "\ud800"])
def test_a_bad_name_changes_nothing(model: OutputModel, unchanged: Unchanged, name: Any) -> None:
    """None is no name either."""
    with unchanged(), pytest.raises(InvalidRequestError):
        model.name = name


@pytest.mark.parametrize("name", ["a/b\\c", "..", "🤖 模型", "x" * 1000, "'; DROP TABLE models; --", " "[:0] + "-rf"])
def test_a_name_may_hold_almost_anything(model: OutputModel, name: str) -> None:
    """It is a text, and no path."""
    model.name = name

    assert Model.query_models(model_name=name) == [model]


def test_a_project_is_set_by_name_or_id(model: OutputModel, unchanged: Unchanged) -> None:
    """ClearML takes an id and does not check it."""
    was = str(model.project)
    model.project = "a/b"
    assert model.project_name == "a/b"
    model.project = was
    assert model.project_name == "vision/ocr"
    with unchanged():
        for bad in (NOWHERE, "a//b", "/", "", "a\0"):
            with pytest.raises(InvalidRequestError if bad != NOWHERE else ProjectNotFoundError):
                model.project = bad
    model.project = None
    assert (model.project, model.project_name) == (None, None)


def test_editing_one_field_leaves_what_others_did_to_the_others(model: OutputModel) -> None:
    """Every setter of ClearML's sends its whole cached record: the last one undoes the others."""
    one, two = Model(str(model.id)), Model(str(model.id))
    _ = one.name, two.name
    one.name = "new name"
    two.comment = "new comment"
    one.tags = ["t"]

    assert (two.name, one.comment, two.tags) == ("new name", "new comment", ["t"])


def test_an_object_sees_what_its_process_did(model: OutputModel, registry: Registry) -> None:
    """Read your writes, through whatever object."""
    seen = Model(str(model.id))
    assert seen.name == "net"
    for change, expected in [
        (lambda: setattr(model, "name", "x"), "x"),
        (lambda: registry.models.edit(str(model.id), name="y"), "y"),
        (lambda: setattr(InputModel(str(model.id)), "name", "z"), "z"),
    ]:
        change()

        assert seen.name == expected


def test_an_object_never_keeps_what_was_rolled_back(model: OutputModel, registry: Registry) -> None:
    """A transaction that fails leaves no trace in memory either."""
    with pytest.raises(ZeroDivisionError), registry.transaction():
        model.name = "never"
        assert model.name == "never"
        raise ZeroDivisionError

    assert model.name == "net"


def test_what_another_process_did_shows_after_refresh(model: OutputModel, registry: Registry) -> None:
    """A property costs nothing; who wants news asks for them."""
    seen = Model(str(model.id))
    _ = seen.name
    with Registry(registry.folder) as elsewhere:
        elsewhere.models.edit(str(model.id), name="elsewhere")

    assert seen.name == "net"
    seen.refresh()
    assert seen.name == "elsewhere"
    Model.remove(model)
    with pytest.raises(ModelNotFoundError):
        seen.refresh()


def test_values_handed_out_are_the_callers(model: OutputModel) -> None:
    """Changing a list that was handed out must not change what the object says next."""
    model.set_metadata("d", {"inner": [1]})
    model.update_design(config_dict={"inner": [1]})
    model.tags.append("x")
    model.labels["x"] = 1
    model.config_dict["inner"].append(2)
    model.get_metadata_casted("d")["inner"].append(2)
    model.get_all_metadata_casted()["d"]["inner"].append(2)
    model.get_all_metadata()["d"]["value"] = "x"

    assert (model.tags, model.labels) == (["a", "b"], {"cat": 1})
    assert model.config_dict == model.get_metadata_casted("d") == {"inner": [1]}


def test_times_are_aware_and_move_with_changes(model: OutputModel) -> None:
    """UTC, so that they compare everywhere."""
    assert datetime.now(UTC) - model.created < timedelta(minutes=1)
    before = model.last_update
    model.name = "later"
    assert model.last_update >= before
    assert model.created <= model.last_update


def test_a_model_that_does_not_exist_is_an_error_that_names_it(registry: Registry, unchanged: Unchanged) -> None:
    """ClearML: AttributeError: 'NoneType' object has no attribute 'name'; archive() says nothing at all."""
    missing = Model(NOWHERE)
    assert missing.id == NOWHERE
    with unchanged():
        for use in (
            lambda: missing.name,
            lambda: missing.tags,
            missing.archive,
            missing.unarchive,
            missing.publish,
            missing.history,
            missing.refresh,
            missing.get_local_copy,
            lambda: missing.set_metadata("k", 1),
            lambda: missing.add_tags("x"),
            lambda: setattr(missing, "comment", "x"),
        ):
            with pytest.raises(ModelNotFoundError, match=NOWHERE):
                use()
    assert "not found" in repr(missing)
    for bad in ("nonexistent", "", "../../etc", "0" * 31, "ABCD" * 8, 5):
        with pytest.raises(ModelNotFoundError):
            Model(bad).name  # type: ignore[arg-type] # noqa: B018
    with pytest.raises(InvalidRequestError, match="Missing model ID"):
        Model(None).name  # type: ignore[arg-type] # noqa: B018


def test_a_configuration_that_is_no_dictionary_says_so(model: OutputModel) -> None:
    """The text itself can still be had."""
    for text in ("just words: [", "[1, 2]", "5", "[" * 100_000):
        model.update_design(config_text=text)

        assert model.config_text == text
        with pytest.raises(InvalidConfigurationError):
            _ = model.config_dict


# -- reading costs nothing --------------------------------------------------------------------------------------------


def test_properties_of_results_cost_no_query(task: Task, registry: Registry) -> None:
    """Listing N names in ClearML costs N + 1 requests."""
    for number in range(30):
        made = OutputModel(task, name=f"m{number}", tags=["t"])
        made.set_metadata("n", number)
    found: list[Model] = []

    def search() -> None:
        found.extend(Model.query_models(tags=["t"]))

    def read() -> None:
        for one in found:
            _ = (one.id, one.name, one.tags, one.comment, one.labels, one.url, one.published, one.project, one.task,
                 one.get_all_metadata(), one.config_text, one.last_update, one.archived, repr(one))  # fmt: skip

    few, none = statements(registry, search), statements(registry, read)

    assert len(found) == 30
    assert none == []
    assert len(few) <= 8


def test_an_object_reads_its_row_once(model: OutputModel, registry: Registry) -> None:
    """Two statements for all properties: the row and its metadata."""
    one = Model(str(model.id))

    def read() -> None:
        _ = one.name, one.tags, one.labels, one.url, one.get_all_metadata(), one.published

    assert len(statements(registry, read)) == (3 if SHARED else 2)  # and where the journal ends
    assert statements(registry, read) == []


# -- metadata ---------------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=("Cs",)))
KEYS = SCALARS | st.tuples(st.integers(), st.text(st.characters(exclude_categories=("Cs",))))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=("Cs",))) | st.integers() | st.just("$tuple"), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def same(left: object, right: object) -> bool:
    """Equality that finds NaN equal to itself and tells 1 from True."""
    return repr(left) == repr(right)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model in a registry of its own, for many values."""
    opened = Registry(tmp_path_factory.mktemp("metadata") / "registry")
    yield Model._of(opened, opened.models.create(name="m"))
    opened.close()


@given(value=VALUES.filter(lambda v: not (isinstance(v, str) and "\0" in v)))
def test_metadata_comes_back_as_it_went_in(annotated: Model, value: Any) -> None:
    """ClearML turns {"a": 1, "b": 2} into {'a': 'b'}, and NaN into 0.0."""
    annotated.set_metadata("k", value)
    annotated.refresh()

    assert same(annotated.get_metadata_casted("k"), value)
    assert same(annotated.get_all_metadata_casted()["k"], value)
    assert isinstance(annotated.get_metadata("k"), str)


@given(value=VALUES.filter(lambda v: not (isinstance(v, str) and "\0" in v)))
def test_metadata_survives_the_way_through_its_text(annotated: Model, value: Any) -> None:
    """`set_all_metadata(get_all_metadata())` copies metadata from one model to another."""
    annotated.set_metadata("k", value)
    entry = annotated.get_all_metadata()["k"]
    annotated.set_all_metadata({"k": entry})

    if not (value is None or entry["type"] == "None"):
        assert same(annotated.get_metadata_casted("k"), value) or _loses_in_text(value)


def _loses_in_text(value: Any) -> bool:
    """What neither JSON nor Python's literals can say: keys that JSON turns into strings."""
    return (isinstance(value, (list, dict)) and "$" in repr(value)) or "nan" in repr(value)


@pytest.mark.parametrize(
    ("value", "v_type", "kind", "text", "back"),
    [
        (5, None, "int", "5", 5),
        (True, None, "bool", "True", True),
        (0.1, None, "float", "0.1", 0.1),
        (float("nan"), None, "float", "nan", float("nan")),
        (float("-inf"), None, "float", "-inf", float("-inf")),
        ("5", None, "str", "5", "5"),
        ("", None, "str", "", ""),
        (None, None, "None", "None", None),
        ([1, "a"], None, "list", '[1, "a"]', [1, "a"]),
        ((1, 2), None, "tuple", "(1, 2)", (1, 2)),
        ({"a": 1, "b": 2}, "dict", "dict", '{"a": 1, "b": 2}', {"a": 1, "b": 2}),
        ('{"a": 1}', "dict", "dict", '{"a": 1}', {"a": 1}),
        ("{'a': (1, nan)}", "dict", "dict", "{'a': (1, nan)}", {"a": (1, float("nan"))}),
        ("5", "int", "int", "5", 5),
        ("1e3", "float", "float", "1000.0", 1000.0),
        ("no", "bool", "bool", "False", False),
        (5, "str", "str", "5", "5"),
        (5, "basestring", "str", "5", "5"),
        ([1, 2], "tuple", "tuple", "(1, 2)", (1, 2)),
        ("[1, 2]", "list/int", "list", "[1, 2]", [1, 2]),
        (10**400, None, "int", str(10**400), 10**400),
    ],
)
def test_metadata_has_a_type_and_a_text(
    model: OutputModel, value: Any, v_type: str | None, kind: str, text: str, back: Any
) -> None:
    """The type that was asked for, else the value's own."""
    assert model.set_metadata("k", value, v_type) is True
    assert model.get_all_metadata() == {"k": {"key": "k", "type": kind, "value": text}}
    assert model.get_metadata("k") == text
    assert same(model.get_metadata_casted("k"), back)


@pytest.mark.parametrize(
    ("key", "value", "v_type"),
    [
        ("k", "abc", "int"),
        ("k", "1.5", "int"),
        ("k", 1.5, "int"),
        ("k", "maybe", "bool"),
        ("k", "nope", "dict"),
        ("k", "[1]", "dict"),
        ("k", 5, "complex"),
        ("k", 5, int),
        ("k", object(), None),
        ("k", {1, 2}, None),
        ("k", b"raw", None),
        ("k", {"deep": object()}, None),
        ("k", "a\0b", None),
        ("k", "\ud800", None),
        ("k", ["\ud800"], None),
        ("", 1, None),
        (5, 1, None),
        ("k\0", 1, None),
        ("x" * 1001, 1, None),
    ],
)
def test_bad_metadata_changes_nothing(
    model: OutputModel, unchanged: Unchanged, key: Any, value: Any, v_type: Any
) -> None:
    """ClearML stores the type "None" or a wrong value, and returns."""
    with unchanged():
        with pytest.raises(ValueError, match="."):
            model.set_metadata(key, value, v_type)
        with pytest.raises(ValueError, match="."):
            model.set_all_metadata({"fine": 1, key: {"value": value, "type": v_type}})


@pytest.mark.parametrize("key", ["a.b", "$x", "_x", "__x", "é/ü", "a b", "🙂", "type", "value", "x" * 1000, "'"])
def test_any_key_can_be_set_and_queried(model: OutputModel, key: str) -> None:
    """In ClearML a key with a dot can be set but never queried."""
    model.set_metadata(key, "v")

    assert Model.query_models(metadata={key: "v"}) == [model]
    assert model.get_metadata(key) == "v"


def test_numpy_values_are_numbers(model: OutputModel) -> None:
    """Metrics usually come as numpy scalars."""
    numpy = pytest.importorskip("numpy")
    model.set_metadata("f", numpy.float32(0.5))
    model.set_metadata("i", numpy.int64(3))
    model.set_metadata("b", numpy.bool_(True))
    model.set_metadata("a", numpy.arange(3))
    model.update_labels({"cat": numpy.int64(1)})

    assert model.get_all_metadata_casted() == {"f": 0.5, "i": 3, "b": True, "a": [0, 1, 2]}
    assert Model.query_models(where="i == 3 and f > 0.4") == [model]


def test_all_metadata_is_replaced_or_updated(model: OutputModel) -> None:
    """ClearML cannot clear it."""
    model.set_metadata("old", 1)
    model.set_all_metadata({"a": 1, "b": {"value": "2", "type": "int"}, "c": {"value": 3}})
    assert model.get_all_metadata_casted() == {"a": 1, "b": 2, "c": 3}
    model.set_all_metadata({"d": {"x": 1}}, replace=False)
    assert model.get_all_metadata_casted() == {"a": 1, "b": 2, "c": 3, "d": {"x": 1}}
    model.set_all_metadata({})
    assert model.get_all_metadata() == {}
    with pytest.raises(InvalidMetadataError):
        model.set_all_metadata(["a"])  # type: ignore[arg-type]


def test_metadata_is_deleted_key_by_key(model: OutputModel) -> None:
    """Others' keys stay."""
    model.set_all_metadata({"a": 1, "b": 2, "c": 3})
    Model(str(model.id)).delete_metadata("a", "c", "never there")

    assert model.get_all_metadata_casted() == {"b": 2}
    assert model.get_metadata("a") is None
    assert model.get_metadata_casted("a") is None


def test_setting_what_is_there_already_writes_nothing(model: OutputModel, unchanged: Unchanged) -> None:
    """Loops that set the same thing again must not fill the journal."""
    model.set_metadata("k", float("nan"))
    model.archive()
    model.labels = {"cat": 1}  # these become the task's, too
    with unchanged():
        model.set_metadata("k", float("nan"))
        model.tags = ["a", "b"]
        model.name = "net"
        model.comment = "first"
        model.archive()
        model.add_tags(["a"])
        model.remove_tags(["zz"])
    model.set_metadata("k", 1)
    model.set_metadata("k", True)
    assert model.get_metadata_casted("k") is True


# -- archive, publish -------------------------------------------------------------------------------------------------


def test_an_archived_model_is_hidden_and_otherwise_whole(model: OutputModel, task: Task) -> None:
    """And comes back."""
    seen = Model(str(model.id))
    assert not seen.archived
    model.archive()
    model.archive()

    assert seen.archived
    assert seen.system_tags == ["archived"]
    assert Model.query_models() == []
    assert Model.query_models(include_archived=True) == [model]
    assert InputModel.load_model(str(model.url)) is None
    assert InputModel.load_model(str(model.url), load_archived=True) == model
    assert seen.get_local_copy() is not None
    task.connect(InputModel(str(model.id)))
    seen.publish()
    model.unarchive()
    model.unarchive()
    assert not seen.archived
    assert Model.query_models() == [model]


def test_a_published_model_keeps_its_content_whoever_tries(
    model: OutputModel, task: Task, registry: Registry, make_file: MakeFile, unchanged: Unchanged
) -> None:
    """ClearML checks in one class of one client; here the store refuses."""
    other = OutputModel(task, base_model_id=model.id)
    _ = other.published
    Model(str(model.id)).publish()
    assert model.published
    path = make_file(content=b"other")
    with unchanged(path):
        for owner in (model, other, OutputModel(task, base_model_id=model.id)):
            for attempt in (
                lambda owner=owner: owner.update_weights(path, auto_delete_file=True),
                lambda owner=owner: owner.update_weights(register_uri="s3://b/x"),
                lambda owner=owner: owner.update_weights(path, upload_uri="memory://b"),
                lambda owner=owner: owner.update_weights_package([path], auto_delete_file=True),
                lambda owner=owner: owner.update_design(config_text="x"),
                lambda owner=owner: owner.update_labels({"a": 1}),
                lambda owner=owner: owner.set_upload_destination("memory://b"),
                lambda owner=owner: setattr(owner, "labels", {"a": 1}),
                lambda owner=owner: setattr(owner, "config_text", "x"),
                lambda owner=owner: setattr(owner, "config_dict", {"a": 1}),
                lambda owner=owner: setattr(owner, "framework", "x"),
            ):
                with pytest.raises(PublishedModelError):
                    attempt()
        for field, value in [("uri", "s3://b/x"), ("digest", None), ("size", 1), ("labels", None), ("iteration", 1)]:
            with pytest.raises(PublishedModelError):
                registry.models.edit(str(model.id), **{field: value})
        for column in (
            "uri",
            "digest",
            "size",
            "config",
            "labels",
            "framework",
            "package",
            "iteration",
            "published_op",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                registry.database.connection.execute(f"UPDATE models SET {column} = 4711")


def test_another_process_that_publishes_is_noticed_before_anything_is_touched(
    model: OutputModel, task: Task, registry: Registry, make_file: MakeFile, unchanged: Unchanged
) -> None:
    """What an object remembers is no reason to delete files or to change the task."""
    folder = make_file("run/a.pt").parent
    _ = model.published
    with Registry(registry.folder) as elsewhere:
        elsewhere.models.publish(str(model.id))
    with unchanged(folder / "a.pt"), pytest.raises(PublishedModelError):
        model.update_weights_package(weights_path=folder, auto_delete_file=True)
    model._cached = None
    with unchanged(), pytest.raises(PublishedModelError):
        model.update_labels({"a": 1})

    assert task.get_labels_enumeration() == {}


def test_a_published_model_can_still_be_described(model: OutputModel) -> None:
    """Name, comment, tags, project, metadata; as in ClearML."""
    model.publish()
    model.publish()
    model.name, model.comment, model.project = "n", "c", "p"
    model.tags = ["t"]
    model.set_metadata("k", 1)
    model.archive()

    assert Model(str(model.id)).published
    assert (model.name, model.comment, model.project_name, model.tags) == ("n", "c", "p", ["t"])
    assert model.get_metadata_casted("k") == 1


def test_publishing_needs_weights(task: Task, unchanged: Unchanged) -> None:
    """Unless somebody says otherwise; ClearML publishes a model that nobody can load."""
    model = OutputModel(task)
    model.set_metadata("k", 1)
    with unchanged(), pytest.raises(MissingWeightsError):
        model.publish()
    model.publish(require_weights=False)

    assert model.published


def test_publishing_does_not_publish_the_task(model: OutputModel, task: Task) -> None:
    """As in ClearML's SDK."""
    model.publish()

    assert task.get_status() == "in_progress"


# -- local copies -----------------------------------------------------------------------------------------------------


def test_local_copies_are_read_only_and_the_same_for_all(model: OutputModel) -> None:
    """In place: the registry's own file."""
    path = str(model.get_local_copy())

    assert path == model.get_weights() == Model(str(model.id)).get_local_copy(force_download=True)
    assert Path(path).name == "best.pt"
    assert os.stat(path).st_mode & 0o222 == 0


def test_a_model_without_weights_gives_none_or_an_error(task: Task) -> None:
    """As in ClearML: raise_on_error decides."""
    model = OutputModel(task)
    model.set_metadata("k", 1)

    assert model.get_local_copy() is None
    assert model.get_weights() is None
    with pytest.raises(ValueError, match="no weights"):
        Model(str(model.id)).get_local_copy(raise_on_error=True)


@one_machine("a shared one hands out the copy in the cache, which is whole")
def test_a_damaged_object_is_never_handed_out(model: OutputModel, caplog: pytest.LogCaptureFixture) -> None:
    """ClearML serves a tampered file without any check."""
    path = Path(str(model.get_local_copy()))
    path.chmod(0o644)
    path.write_bytes(b"tampere")

    assert model.get_local_copy() is None
    assert "does not hold the bytes" in caplog.text
    with pytest.raises(DownloadError) as caught:
        model.get_local_copy(raise_on_error=True)
    assert isinstance(caught.value.__cause__, IntegrityError)
    path.unlink()
    with pytest.raises(DownloadError, match="missing"):
        model.get_weights(raise_on_error=True)


@pytest.mark.parametrize("content", [b"no zip at all", b"PK\x03\x04 broken"])
def test_a_damaged_archive_is_an_error_and_not_the_raw_file(task: Task, make_file: MakeFile, content: bytes) -> None:
    """ClearML returns the file where a folder was asked for, even with raise_on_error."""
    model = OutputModel(task)
    model.update_weights(make_file("w.zip", content), is_package=True)

    assert model.get_local_copy() is None
    assert model.get_weights_package() is None
    with pytest.raises(DownloadError):
        model.get_weights_package(raise_on_error=True)
    assert Path(str(model.get_weights())).read_bytes() == content


def test_a_file_outside_that_was_registered_is_handed_out_as_it_is(make_file: MakeFile) -> None:
    """ClearML's direct access; there is no digest to compare with."""
    path = make_file("outside.bin")
    model = InputModel.import_model(path)

    assert model.get_local_copy() == str(path)
    path.unlink()
    assert model.get_local_copy() is None
    with pytest.raises(DownloadError, match=r"outside\.bin"):
        model.get_local_copy(raise_on_error=True)


def test_a_remote_file_is_fetched_once_and_again_when_forced() -> None:
    """The cache answers without asking, until it is told to."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/fetch/w.bin", b"one")
    model = InputModel.import_model("memory://fetch/w.bin")
    first = Path(str(model.get_local_copy()))
    assert first.read_bytes() == b"one"
    memory.pipe("/fetch/w.bin", b"two")
    assert Path(str(model.get_local_copy())).read_bytes() == b"one"
    assert Path(str(model.get_local_copy(force_download=True))).read_bytes() == b"two"
    assert first.name == "w.bin"


# -- removal ----------------------------------------------------------------------------------------------------------


def objects(registry: Registry) -> list[str]:
    if SHARED:  # a collection frees there what a removal frees elsewhere
        registry.gc(grace_s=0, keep_former_s=0)
    return [stored.digest for stored in registry.weights.objects.iterate()]


def test_removing_a_model_frees_its_bytes(model: OutputModel, registry: Registry) -> None:
    """And the object still knows what it stood for."""
    seen = Model(str(model.id))

    assert Model.remove(seen) is True
    assert objects(registry) == []
    assert seen.id == model.id
    assert Model.query_models(include_archived=True) == []
    with pytest.raises(ModelNotFoundError, match="removed"):
        _ = seen.name
    assert seen.history()[-1].action == "delete"
    assert Model.remove(seen) is False
    with pytest.raises(ModelNotFoundError):
        Model.remove(str(model.id), raise_on_errors=True)


def test_bytes_that_another_model_uses_stay(
    model: OutputModel, task: Task, registry: Registry, make_file: MakeFile
) -> None:
    """However it refers to them: under another name, archived, by URI, published."""
    twin = OutputModel(task, name="twin")
    twin.update_weights(make_file("other-name.pt"))
    twin.archive()
    assert Model.remove(model)
    assert len(objects(registry)) == 1
    assert Path(str(twin.get_local_copy(raise_on_error=True))).read_bytes() == b"weights"
    assert Model.remove(twin)
    assert objects(registry) == []


def test_bytes_can_be_kept(model: OutputModel, registry: Registry) -> None:
    """For a model that may be restored."""
    assert Model.remove(model, delete_weights_file=False)
    assert len(list(registry.weights.objects.iterate())) == 1
    registry.models.restore(str(model.id))
    assert model.get_local_copy(raise_on_error=True)


def test_a_users_own_file_is_never_deleted_with_a_model(make_file: MakeFile) -> None:
    """ClearML deletes the original of a model that was registered by its path."""
    path = make_file("mine.bin")
    model = InputModel.import_model(str(path))

    assert Model.remove(model)
    assert path.read_bytes() == b"weights"


def test_a_model_in_use_is_removed_only_by_force(model: OutputModel, registry: Registry, unchanged: Unchanged) -> None:
    """And then the tasks that used it do not refer to nothing."""
    consumer = Task.create(project_name="p", task_name="consumer")
    consumer.connect(InputModel(str(model.id)), name="teacher")
    assert model.consumers() == [consumer.id]
    with unchanged():
        assert Model.remove(model) is False
        with pytest.raises(ModelInUseError, match=consumer.id):
            Model.remove(model, raise_on_errors=True)
    assert Model.remove(model, force=True)
    assert consumer.models.input == []
    assert objects(registry) == []


def test_a_model_of_a_published_task_is_removed_only_by_force(model: OutputModel, task: Task) -> None:
    """As in ClearML."""
    task.mark_completed()
    task.publish()

    assert Model.remove(model) is False
    assert Model.remove(model, force=True)


# -- queries ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def several(task: Task) -> dict[str, str]:
    """Models a (oldest) to d (newest), in two projects."""
    made = {}
    for name, project, tags in [("a", "x", ["t", "u"]), ("b", "x", ["t"]), ("c", "x/y", ["u"]), ("d", "x", [])]:
        model = OutputModel(task, name=name, tags=tags)
        model.project = project
        model.set_all_metadata({"n": len(made), "text": f"v{len(made)}"})
        made[name] = str(model.id)
    return made


def names(**conditions: Any) -> str:
    return "".join(str(model.name) for model in Model.query_models(**conditions))


def test_results_come_newest_update_first(several: dict[str, str]) -> None:
    """As the page says; ClearML sorts by creation."""
    assert names() == "dcba"
    Model(several["b"]).comment = "touched"
    assert names() == "bdca"
    Model(several["a"]).add_tags("x")
    assert names() == "abdc"


def test_every_parameter_narrows(several: dict[str, str]) -> None:
    """And all of them together."""
    Model(several["b"]).publish(require_weights=False)
    Model(several["a"]).archive()

    assert names(project_name="x") == "bd"
    assert names(project_name="x/y") == "c"
    assert names(project_name="") == "bdc"
    assert names(model_name="b") == "b"
    assert names(model_name="B") == names(model_name="b.*") == names(model_name="") == ""
    assert names(tags=["t"]) == "b"
    assert names(tags=("t", "u")) == "bc"
    assert names(tags=[]) == "bdc"
    assert names(tags=["__$not", "t", "__$not", "u"]) == "d"
    assert names(only_published=True) == "b"
    assert names(include_archived=True, tags=["t"]) == "ab"
    assert names(max_results=2) == "bd"
    assert names(metadata={"text": "v1"}) == names(metadata={"n": 1}) == names(metadata={"n": "1"}) == "b"
    assert names(metadata={"text": ["v1", "v3"], "n": None}) == "bd"
    assert names(metadata={"n": (">=", 2)}) == "dc"
    assert names(name_regex="[bc]") == "bc"
    assert names(where="n > 0 and not tag('t')") == "dc"
    assert names(order_by="name") == "bcd"
    assert names(order_by=["-metadata.n"]) == "dcb"
    assert names(project_name="x", tags=["t"], include_archived=True, metadata={"n": 0}, max_results=5) == "a"


def test_metadata_values_that_look_like_operators_are_values(several: dict[str, str]) -> None:
    """In ClearML {"lr": "-5"} means "not 5"."""
    Model(several["a"]).set_metadata("lr", "-5")
    Model(several["b"]).set_metadata("lr", "__$not")

    assert names(metadata={"lr": "-5"}) == "a"
    assert names(metadata={"lr": "__$not"}) == "b"


@pytest.mark.parametrize(
    "conditions",
    [
        {"tags": "a"},
        {"tags": [1]},
        {"tags": ["__$not"]},
        {"tags": ["__$notc"]},
        {"tags": ["-"]},
        {"project_name": "unknown"},
        {"max_results": 0},
        {"max_results": -1},
        {"max_results": "5"},
        {"metadata": ["a"]},
        {"metadata": {"k": object()}},
        {"metadata": {5: "x"}},
        {"where": "n >"},
        {"name_regex": "("},
        {"order_by": "nosuchfield"},
        {"dialect": "sql"},
        {"model_name": 5},
        {"project_name": 5},
    ],
)
def test_a_malformed_question_is_an_error(several: dict[str, str], conditions: dict[str, Any]) -> None:
    """ClearML turns a refusal into an empty list, which reads as "no such model"."""
    with pytest.raises(ValueError, match="."):
        Model.query_models(**conditions)


def test_a_limit_beyond_a_page_gives_each_model_once(registry: Registry) -> None:
    """ClearML: max_results=700 returns 700 objects, 500 of them distinct."""
    with registry.transaction():
        for number in range(720):
            registry.models.create(name=f"m{number}")
    for limit in (1, 499, 500, 501, 700, 720, 800, None):
        found = Model.query_models(max_results=limit)

        assert len({model.id for model in found}) == len(found) == min(limit or 720, 720)


def test_every_class_answers_with_models(several: dict[str, str]) -> None:
    """`InputModel.query_models` returns `Model` in ClearML too."""
    assert {type(model) for model in InputModel.query_models()} == {Model}


# -- history and looks ------------------------------------------------------------------------------------------------


def test_the_history_tells_who_did_what_and_what_was_before(model: OutputModel, registry: Registry) -> None:
    """From the journal, at no extra cost."""
    model.name = "second"
    model.set_metadata("acc", math.pi)
    model.set_metadata("acc", 1)
    model.delete_metadata("acc")
    model.publish()
    entries = [(e.action, e.key, e.old, e.new) for e in model.history()]

    assert entries[0] == ("create", "name", None, "net")
    assert ("edit", "name", "net", "second") in entries
    assert ("edit", "meta:acc", None, math.pi) in entries
    assert ("edit", "meta:acc", math.pi, 1) in entries
    assert ("edit", "meta:acc", 1, None) in entries
    assert entries[-1] == ("publish", "published", None, True)
    assert {entry.actor for entry in model.history()} == {registry.actor}


def test_looking_at_a_model_shows_what_it_is_and_escapes_it(task: Task, model: OutputModel) -> None:
    """In a notebook, a name is text and no script."""
    model.name = "<script>alert(1)</script>"
    model.comment = "<b>"
    model.tags = ["<i>"]
    model.set_metadata("<k>", "<v>")
    html = model._repr_html_()

    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    for text in ("<b></td>", "<i>", "<k>", "<v>"):
        assert text not in html
    assert repr(model) == f"<OutputModel {model.id} '<script>alert(1)</script>'>"
    assert "not registered" in OutputModel(task)._repr_html_()
    assert "not found" in Model(NOWHERE)._repr_html_()


def test_a_model_can_be_written_down_as_plain_values(model: OutputModel) -> None:
    """The form of `--json`."""
    import json

    model.set_metadata("k", (1, float("nan")))
    written = json.loads(json.dumps(model.to_dict(), allow_nan=False))

    assert (written["id"], written["name"], written["tags"]) == (model.id, "net", ["a", "b"])
    assert written["metadata"]["k"] == {"type": "tuple", "value": "(1, nan)"}


def test_threads_that_write_never_leave_an_object_behind(model: OutputModel, registry: Registry) -> None:
    """An object that was refreshed in the middle of somebody's write is refreshed again."""
    seen = Model(str(model.id))
    stop = threading.Event()
    wrong: list[str] = []

    def write() -> None:
        mine = Model(str(model.id))
        for number in range(60):
            mine.comment = f"{threading.get_ident()}-{number}"
            if mine.comment is None:
                wrong.append("lost")
        stop.set()

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not stop.is_set():
        _ = seen.comment
        seen.tags = ["t"] if not seen.tags else []
    for thread in threads:
        thread.join()

    assert wrong == []
    assert seen.comment == registry.models.get(str(model.id)).comment
