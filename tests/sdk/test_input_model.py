"""`InputModel`: finding, importing, loading and connecting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from modelstore import InputModel, Model, OutputModel, Registry, Task
from modelstore.errors import (
    InvalidConfigurationError,
    InvalidRequestError,
    InvalidUriError,
    ModelNotFoundError,
    ProjectNotFoundError,
    TaskClosedError,
)
from tests.kinds import SHARED

MakeFile = Callable[..., Path]
Unchanged = Callable[..., AbstractContextManager[None]]
URL = "https://example.com/models/teacher.pth"


# -- by id and by conditions ------------------------------------------------------------------------------------------


def test_an_id_wins_over_every_condition(task: Task) -> None:
    """As in ClearML; whether it exists is found out at the first use."""
    made = InputModel.import_model(URL)

    assert InputModel(made.id, name="nope", project="nope").name == made.name
    with pytest.raises(ModelNotFoundError):
        _ = InputModel("0" * 32).name


def test_conditions_find_the_newest_match(task: Task) -> None:
    """Without any, the newest model of all."""
    models = [OutputModel(task, name="net", tags=["t", str(i)]) for i in range(3)]
    for model in models:
        model.set_metadata("k", 1)
    models[0].comment = "touched last"

    assert InputModel(name="net") == models[0]
    assert InputModel() == models[0]
    assert InputModel(name="net", project="vision/ocr", tags=["1"]) == models[1]
    models[2].publish(require_weights=False)
    assert InputModel(only_published=True) == models[2]
    models[1].archive()
    with pytest.raises(ValueError, match="Could not locate model"):
        InputModel(tags=["1"])


def test_no_match_is_an_error(task: Task) -> None:
    """Not an empty object that fails later."""
    with pytest.raises(ModelNotFoundError):
        InputModel()
    with pytest.raises(ProjectNotFoundError):
        InputModel(project="nope")
    with pytest.raises(ModelNotFoundError):
        InputModel(name="nope")


# -- importing --------------------------------------------------------------------------------------------------------


def test_an_import_keeps_everything_it_is_given(task: Task) -> None:
    """The page's snippet."""
    model = InputModel.import_model(
        weights_url=URL,
        config_dict={"layers": [1, 2]},
        label_enumeration={"person": 1, "ignore": -1},
        name="Input Model with Network Design",
        project="zoo",
        tags=["pretrained"],
        comment="from the web",
        framework="PyTorch",
    )

    assert (model.url, model.name, model.project_name) == (URL, "Input Model with Network Design", "zoo")
    assert (model.config_dict, model.labels) == ({"layers": [1, 2]}, {"person": 1, "ignore": -1})
    assert (model.tags, model.comment, model.framework) == (["pretrained"], "from the web", "PyTorch")
    assert (model.task, model.original_task, model.digest, model.published) == (None, None, None, False)


def test_what_is_not_given_comes_from_the_current_task_and_the_file(task: Task) -> None:
    """A name that tells where it came from."""
    model = InputModel.import_model("s3://bucket/x.onnx")

    assert (model.name, model.project_name, model.framework) == ("Imported by train", "vision/ocr", "ONNX")
    task.close()
    alone = InputModel.import_model("s3://bucket/y.onnx")
    assert str(alone.name).startswith("Anonymous model ")
    assert alone.project is None


def test_a_url_that_is_registered_is_reused_and_that_is_said(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    """ClearML reuses silently."""
    first = InputModel.import_model(URL, name="first")
    with caplog.at_level(logging.WARNING, "modelstore"):
        again = InputModel.import_model(URL, name="second", tags=["x"])

    assert again == first
    assert (again.name, again.tags) == ("first", [])
    assert first.id in caplog.text
    assert "ignored" in caplog.text
    assert len(Model.query_models()) == 1


def test_a_reused_model_is_published_when_that_is_asked() -> None:
    """ClearML ignores it then."""
    first = InputModel.import_model(URL)
    assert InputModel.import_model(URL, create_as_published=True).published
    assert first.published


def test_one_file_has_one_url(task: Task, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is written."""
    path = make_file("weights.bin")
    monkeypatch.chdir(path.parent)
    first = InputModel.import_model("weights.bin")
    for spelling in (path, str(path), path.as_uri(), f"./{path.name}", f"{path.parent}//x/../{path.name}"):
        (path.parent / "x").mkdir(exist_ok=True)

        assert InputModel.import_model(spelling) == first
    assert first.url == path.as_uri()


def test_importing_a_stored_models_own_url_finds_that_model(
    task: Task, make_file: MakeFile, registry: Registry
) -> None:
    """By the URL that it shows."""
    made = OutputModel(task)
    made.update_weights(make_file())

    assert InputModel.import_model(str(made.url)) == made
    if not SHARED:  # there the local copy is in the cache
        assert InputModel.load_model(str(made.get_local_copy())) == made
    made.archive()
    twin = InputModel.import_model(str(made.url))
    assert twin != made
    assert twin.digest == made.digest
    assert InputModel.load_model(str(made.url), load_archived=True) == twin
    assert Model.remove(made)
    assert Path(str(twin.get_local_copy(raise_on_error=True))).read_bytes() == b"weights"


def test_an_archived_model_is_not_reused() -> None:
    """As in ClearML."""
    first = InputModel.import_model(URL)
    first.archive()
    second = InputModel.import_model(URL)

    assert second != first
    assert InputModel.load_model(URL) == second


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"weights_url": None}, InvalidUriError),
        ({"weights_url": ""}, InvalidUriError),
        ({"weights_url": "  "}, InvalidUriError),
        ({"weights_url": "a\0b"}, InvalidUriError),
        ({"weights_url": "https://user:secret@example.com/x"}, InvalidUriError),
        ({"weights_url": "modelstore://nonsense"}, InvalidUriError),
        ({"config_text": "a", "config_dict": {}}, InvalidConfigurationError),
        ({"config_dict": "a"}, InvalidConfigurationError),
        ({"label_enumeration": {"a": "b"}}, InvalidRequestError),
        ({"name": "a\nb"}, InvalidRequestError),
        ({"project": "a//b"}, InvalidRequestError),
        ({"tags": "abc"}, InvalidRequestError),
        ({"tags": ["__$and"]}, InvalidRequestError),
        ({"comment": 5}, InvalidRequestError),
        ({"framework": 5}, InvalidRequestError),
    ],
)
def test_a_bad_argument_imports_nothing(
    unchanged: Unchanged, arguments: dict[str, Any], error: type[Exception]
) -> None:
    """Nor does it publish anything."""
    with unchanged(), pytest.raises(error):
        InputModel.import_model(**({"weights_url": URL, "create_as_published": True} | arguments))


def test_threads_that_import_one_url_get_one_model(registry: Registry) -> None:
    """Look-up and registration are one transaction."""
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(InputModel.import_model(URL).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert len(found) == 8


def test_a_package_is_imported_as_one(tmp_path: Path) -> None:
    """`is_package=True`."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("a", "x")
    model = InputModel.import_model(tmp_path / "w.zip", is_package=True)

    assert model.system_tags == ["package"]
    files = model.get_weights_package()
    assert isinstance(files, list)
    assert [file.name for file in files] == ["a"]


def test_a_zip_that_reaches_outside_writes_nothing_there(tmp_path: Path) -> None:
    """Its members are checked before the first is written."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("fine", "x")
        archive.writestr("../evil", "x")
    model = InputModel.import_model(tmp_path / "evil.zip", is_package=True)
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}

    assert model.get_local_copy() is None
    with pytest.raises(ValueError, match=r"\.\./evil"):
        model.get_local_copy(raise_on_error=True)
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before
    assert not list(tmp_path.rglob("evil"))


def test_loading_never_registers(unchanged: Unchanged) -> None:
    """None where there is none."""
    with unchanged():
        assert InputModel.load_model(URL) is None
    InputModel.import_model(URL)
    assert isinstance(InputModel.load_model(URL), InputModel)
    assert InputModel.load_model(URL.upper()) is None


# -- empty ------------------------------------------------------------------------------------------------------------


def test_an_empty_model_gives_its_configuration_to_a_task(task: Task, unchanged: Unchanged) -> None:
    """It is not registered, and links nothing."""
    model = InputModel.empty(config_dict={"a": (1, 2)}, label_enumeration={"x": 1})

    assert (model.id, model.config_dict, model.labels) == ("empty", {"a": (1, 2)}, {"x": 1})
    assert (model.name, model.tags, model.url, model.get_local_copy()) == (None, [], None, None)
    assert "empty" in repr(model)
    assert model == model  # noqa: PLR0124 - it has no id to compare
    assert model != InputModel.empty()
    with unchanged():
        for change in (
            lambda: setattr(model, "name", "x"),
            lambda: model.add_tags("x"),
            lambda: model.set_metadata("k", 1),
            model.publish,
            model.archive,
        ):
            with pytest.raises(InvalidRequestError, match="not registered"):
                change()
    model.connect(task)
    assert task.models.input == []
    assert task.get_model_config_dict() == {"a": (1, 2)}
    assert task.get_labels_enumeration() == {"x": 1}


# -- connecting -------------------------------------------------------------------------------------------------------


def test_connecting_links_at_once(task: Task) -> None:
    """In ClearML the link shows after a reload."""
    model = InputModel.import_model(URL, config_text="design", label_enumeration={"a": 1})
    assert task.connect(model) is model

    assert task.models.input == [model]
    assert task.models.input["teacher"] == model
    assert task.input_models_id == {"teacher": model.id}
    assert model.consumers() == [task.id]
    assert task.get_model_config_text() == "design"
    assert task.get_labels_enumeration() == {"a": 1}
    assert task.comment is None


def test_connecting_again_changes_nothing(task: Task, unchanged: Unchanged) -> None:
    """ClearML writes the comment again each time."""
    model = InputModel.import_model(URL)
    model.connect(task, name="n")
    with unchanged():
        model.connect(task, name="n")
        task.connect(InputModel(model.id), "n")
        task.connect(Model(model.id), "n")


def test_any_kind_of_model_object_can_be_connected(task: Task) -> None:
    """ClearML takes a `Model` for hyper-parameters and links nothing."""
    model = InputModel.import_model(URL)
    plain = Model(model.id)
    assert task.connect(plain) is plain

    assert task.models.input == [model]
    assert task.get_parameters() == {}


def test_what_a_task_has_of_its_own_stays(task: Task) -> None:
    """Configuration and labels come from the model only where the task has none."""
    task.set_model_label_enumeration({"own": 1})
    task.connect_configuration({"own": 1})
    InputModel.import_model(URL, config_text="x", label_enumeration={"a": 1}).connect(task)

    assert task.get_labels_enumeration() == {"own": 1}
    assert task.get_model_config_dict() == {"own": 1}


def test_another_model_takes_a_name_over(task: Task) -> None:
    """A name stands for one model."""
    first, second = InputModel.import_model(URL), InputModel.import_model(URL + "2")
    first.connect(task, "teacher")
    second.connect(task, "teacher")

    assert task.models.input == [second]


def test_a_task_that_has_ended_takes_no_input(task: Task, unchanged: Unchanged) -> None:
    """As in ClearML."""
    model = InputModel.import_model(URL)
    task.close()
    with unchanged(), pytest.raises(TaskClosedError):
        model.connect(task)


def test_a_model_that_was_removed_cannot_be_connected(task: Task, registry: Registry, unchanged: Unchanged) -> None:
    """Also when this object does not know yet."""
    model = InputModel.import_model(URL)
    _ = model.name
    with Registry(registry.folder) as elsewhere:
        elsewhere.models.delete(model.id)
    with unchanged(), pytest.raises(ModelNotFoundError):
        model.connect(task)


def test_a_model_of_another_registry_cannot_be_connected(task: Task, tmp_path: Path, unchanged: Unchanged) -> None:
    """It would be a link to nothing."""
    import modelstore

    with modelstore.open(tmp_path / "other"):
        foreign = InputModel.import_model(URL)
        with unchanged(), pytest.raises(InvalidRequestError, match="other"):
            foreign.connect(task)
