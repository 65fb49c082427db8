"""`Task`: beginning, being found, what it is given, what it makes, and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelstore import InputModel, Logger, Model, OutputModel, Registry, Task, TaskTypes
from modelstore.errors import (
    BlobNotFoundError,
    InvalidConfigurationError,
    InvalidRequestError,
    ModelNotFoundError,
    ProjectNotFoundError,
    TaskClosedError,
    TaskNotFoundError,
    UsageError,
)
from modelstore.sdk import _context

MakeFile = Callable[..., Path]
Unchanged = Callable[..., AbstractContextManager[None]]
NOWHERE = "0" * 32


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with this test's registry."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": os.getcwd()} | variables,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


# -- beginning --------------------------------------------------------------------------------------------------------


def test_the_first_task_is_the_current_one() -> None:
    """And runs."""
    assert Task.current_task() is None
    task = Task.init("vision/ocr", "train", Task.TaskTypes.testing, tags=["a"])

    assert Task.current_task() is task
    assert (task.name, task.get_project_name(), task.task_type, task.status) == (
        "train", "vision/ocr", "testing", "in_progress",
    )  # fmt: skip
    assert task.project == Task.get_project_id("vision/ocr")
    assert task.get_tags() == ["a"]
    assert task.is_main_task()
    assert task.is_current_task()
    assert task.id == task.task_id
    assert TaskTypes.training == "training"


def test_a_second_init_with_the_same_names_is_the_same_task(tmp_path: Path) -> None:
    """Modules call it again; what they add is added."""
    task = Task.init("p", "n")

    assert Task.init("p", "n", tags=["t"], output_uri=tmp_path) is task
    assert Task.init() is task
    assert Task.init(task_name="n") is task
    assert (task.get_tags(), task.output_uri) == (["t"], tmp_path.as_uri())


@pytest.mark.parametrize("arguments", [("p", "other"), ("other", "n"), ("p", "n", "testing")])
def test_a_second_init_with_other_names_is_refused(unchanged: Unchanged, arguments: tuple[str, ...]) -> None:
    """One main task at a time, as in ClearML."""
    Task.init("p", "n")
    with unchanged(), pytest.raises(UsageError, match="already created"):
        Task.init(*arguments)


def test_after_closing_another_may_begin() -> None:
    """Also when the former was ended by other means."""
    first = Task.init("p", "first")
    first.close()
    assert Task.current_task() is None
    second = Task.init("p", "second")
    second.mark_completed()
    third = Task.init("p", "third")
    third.delete()
    assert Task.current_task() is None
    fourth = Task.init("p", "fourth")
    _context.current_registry().tasks.delete(fourth.id)
    assert Task.init("p", "fifth").name == "fifth"


@pytest.mark.parametrize(
    "arguments",
    [
        {"project_name": "a//b"},
        {"project_name": 5},
        {"task_name": "a\nb"},
        {"task_name": "x" * 10_000},
        {"tags": 5},
        {"tags": ["__$and"]},
        {"output_uri": "http://example.com"},
        {"output_uri": "nosuch://x"},
        {"reuse_last_task_id": NOWHERE},
        {"continue_last_task": NOWHERE},
    ],
)
def test_a_bad_argument_begins_nothing(unchanged: Unchanged, arguments: dict[str, Any]) -> None:
    """Neither a task nor a current one."""
    with unchanged(), pytest.raises((ValueError, OSError)) as caught:
        Task.init(**({"project_name": "p", "task_name": "n"} | arguments))

    assert type(caught.value).__module__ == "modelstore.errors"
    assert Task.current_task() is None


def test_without_names_the_script_names_the_task() -> None:
    """And without a project it has none."""
    task = Task.init()

    assert task.name
    assert task.project is None
    assert task.get_project_name() is None


def test_a_task_without_models_is_taken_up_again(task: Task) -> None:
    """Debugging runs do not pile up; what the former run was given is forgotten."""
    task.add_tags(["old"])
    task.connect({"lr": 1})
    task.set_comment("old")
    task.connect(InputModel.import_model("s3://b/x"))
    task.close()
    again = Task.init("vision/ocr", "train")

    assert again == task
    assert (again.get_tags(), again.get_parameters(), again.comment, again.models.input) == ([], {}, None, [])
    assert again.status == "in_progress"


def test_a_task_with_models_is_never_taken_up_again(task: Task, make_file: MakeFile) -> None:
    """Its models would change their history."""
    OutputModel(task).update_weights(make_file())
    task.close()

    assert Task.init("vision/ocr", "train") != task


def test_what_must_not_be_taken_up_again_is_not(task: Task) -> None:
    """Published, archived, another project, made for later, or when that is asked."""
    task.close()
    assert Task.init("vision/ocr", "train", reuse_last_task_id=False) != task
    Task.current_task().close()  # type: ignore[union-attr]
    planned = Task.create("vision/ocr", "train")
    begun = Task.init("vision/ocr", "train")
    assert begun != planned
    begun.close()
    begun.publish()
    after = Task.init("vision/ocr", "train")
    assert after not in (begun, planned)
    after.close()
    after.set_archived(True)
    assert Task.init("vision/ocr", "train") != after


def test_a_task_that_runs_in_another_process_is_left_alone(task: Task) -> None:
    """Two jobs of one name at the same moment are two tasks."""
    other = run("from modelstore import Task; print(Task.init('vision/ocr', 'train').id)").stdout.strip()

    assert len(other) == 32
    assert other != task.id


def test_a_named_task_is_taken_up_or_continued(task: Task, make_file: MakeFile) -> None:
    """By its id."""
    OutputModel(task).update_weights(make_file(), iteration=5)
    task.close()
    again = Task.init("vision/ocr", "train", continue_last_task=True)
    assert again == task
    assert len(again.models.output) == 1
    again.close()
    assert Task.init("vision/ocr", "other", continue_last_task=task.id) == task
    Task.current_task().close()  # type: ignore[union-attr]
    counted = Task.init("vision/ocr", "train", continue_last_task=100)
    assert counted == task
    assert counted.get_initial_iteration() == 100
    counted.close()
    assert Task.init("vision/ocr", "third", reuse_last_task_id=task.id) == task
    Task.current_task().close()  # type: ignore[union-attr]
    task.publish()
    with pytest.raises(TaskClosedError):
        Task.init("vision/ocr", "train", continue_last_task=task.id)
    assert Task.init("vision/ocr", "train", continue_last_task=True) != task


def test_a_created_task_is_not_current(task: Task) -> None:
    """It is for later."""
    made = Task.create(
        "p", "n", "qc", repo="git@x", branch="b", script="train.py", argparse_args=[("lr", "0.1")], packages=["numpy"]
    )

    assert Task.current_task() == task
    assert (made.name, made.status, made.task_type) == ("n", "created", "qc")
    assert made.get_parameters() == {"Args/lr": "0.1"}
    based = Task.create("p", "based", base_task_id=made.id)
    assert based.get_parameters() == {"Args/lr": "0.1"}
    with pytest.raises(TaskNotFoundError):
        Task.create("p", "x", base_task_id=NOWHERE)
    assert Task.get_tasks(task_name="^x$") == []


# -- finding ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(task: Task) -> list[Task]:
    """Tasks a, ab and b; b is the newest."""
    return [Task.create("p", name) for name in ("a", "ab", "b")]


def test_one_task_is_found_by_id_or_exact_name(three: list[Task], caplog: pytest.LogCaptureFixture) -> None:
    """Unlike get_tasks, whose names are patterns."""
    assert Task.get_task(three[0].id) == three[0]
    assert Task.get_task(f" {three[0].id} ") == three[0]
    assert Task.get_task(project_name="p", task_name="a") == three[0]
    assert Task.get_task(task_name="a.*") is None
    assert Task.get_by_name("ab") == three[1]
    with pytest.raises(TaskNotFoundError):
        Task.get_task(NOWHERE)
    with pytest.raises(ProjectNotFoundError):
        Task.get_task(project_name="nope")
    twin = Task.create("p", "a")
    assert Task.get_task(task_name="a") == twin
    assert "2 tasks match" in caplog.text
    twin.set_archived(True)
    assert Task.get_task(task_name="a") == three[0]
    three[0].set_archived(True)
    assert Task.get_task(task_name="a") == three[0]
    assert Task.get_task(task_name="a", allow_archived=False) is None


def test_many_tasks_are_found_by_pattern(three: list[Task], task: Task) -> None:
    """Newest change first."""
    a, ab, b = three
    assert Task.get_tasks(project_name="p") == [b, ab, a]
    assert Task.get_tasks(task_name="a") == [ab, a, task]
    assert Task.get_tasks(task_name="^a") == [ab, a]
    assert Task.get_tasks(project_name=["p", "vision/ocr"], task_name="a") == [ab, a, task]
    assert Task.get_tasks(project_name=[]) == Task.get_tasks()
    assert Task.get_tasks(project_name="nope") == []
    assert Task.get_tasks(task_ids=[a.id, NOWHERE]) == [a]
    assert Task.get_tasks(task_ids=[]) == []
    a.set_tags(["t"])
    assert Task.get_tasks(tags=["t"]) == [a]
    assert Task.get_tasks(project_name="p", tags=["-t"]) == [b, ab]
    assert Task.get_tasks(task_filter={"status": ["in_progress"]}) == [task]
    a.set_archived(True)
    assert Task.get_tasks(project_name="p", allow_archived=False) == [b, ab]
    with pytest.raises(InvalidRequestError):
        Task.get_tasks(task_name="(")
    with pytest.raises(InvalidRequestError):
        Task.get_tasks(task_filter={"nosuch": 1})


def test_ids_and_fields_of_tasks_can_be_asked_for(three: list[Task]) -> None:
    """`query_tasks`."""
    assert Task.query_tasks(project_name="p", task_name="^a$") == [three[0].id]
    rows = Task.query_tasks(project_name="p", task_name="^a$", additional_return_fields=["name", "tags", "created"])
    assert rows == [{"id": three[0].id, "name": "a", "tags": [], "created": three[0].created}]
    with pytest.raises(InvalidRequestError):
        Task.query_tasks(project_name="p", additional_return_fields=["nosuch"])


def test_projects_are_listed(three: list[Task]) -> None:
    """Sorted by name."""
    assert [project.name for project in Task.get_projects()] == ["p", "vision/ocr"]
    assert [project.name for project in Task.get_projects(name="^v")] == ["vision/ocr"]
    assert Task.get_project_id("nope") is None
    with pytest.raises(InvalidRequestError):
        Task.get_projects(nosuch=1)


def test_a_clone_has_what_its_source_was_given(task: Task, make_file: MakeFile) -> None:
    """But not what it made."""
    task.connect({"lr": 0.1, "nothing": None})
    task.connect_configuration({"a": (1, 2)})
    task.set_model_label_enumeration({"x": 1})
    task.add_tags(["t"])
    task.connect(InputModel.import_model("s3://b/teacher.pt"))
    OutputModel(task).update_weights(make_file())
    clone = Task.clone(task, project="other")
    default = Task.clone()

    assert (clone.name, clone.status, clone.parent, clone.get_project_name()) == (
        "Clone Of train", "created", task.id, "other",
    )  # fmt: skip
    assert clone.get_parameters(cast=True) == {"General/lr": 0.1, "General/nothing": None}
    assert clone.get_configuration_object_as_dict("General") == {"a": (1, 2)}
    assert (clone.get_labels_enumeration(), clone.get_tags()) == ({"x": 1}, ["t"])
    assert clone.input_models_id == task.input_models_id
    assert clone.models.output == []
    assert default.parent == task.id
    assert Task.clone(clone.id, name="n", comment="c").name == "n"
    with pytest.raises(TaskNotFoundError):
        Task.clone(NOWHERE)
    with pytest.raises(ProjectNotFoundError):
        Task.clone(task, project=NOWHERE)


# -- what it is given -------------------------------------------------------------------------------------------------


def test_a_dictionary_becomes_parameters(task: Task) -> None:
    """Nested ones keep their path; the caller's own object comes back."""
    values = {"lr": 0.1, "net": {"depth": 3, "act": None, "empty": {}}, "l": [1, (2,)], 5: "five"}
    assert task.connect(values) is values
    task.connect({"lr": 1}, name="Other")

    assert task.get_parameters() == {
        "General/5": "five", "General/l": "[1, (2,)]", "General/lr": "0.1", "General/net/act": "",
        "General/net/depth": "3", "General/net/empty": "{}", "Other/lr": "1",
    }  # fmt: skip
    cast = task.get_parameters(cast=True)
    assert cast["General/net/act"] is None
    assert (cast["General/l"], cast["General/lr"]) == ([1, (2,)], 0.1)
    assert task.get_parameters_as_dict(cast=True)["General"]["net"] == {"act": None, "depth": 3, "empty": {}}


def test_parsers_namespaces_and_objects_can_be_connected(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in ClearML's examples."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "5", "--unknown"])
    task.connect(parser)
    task.connect(argparse.Namespace(batch=8), name="Data")
    task.connect(SimpleNamespace(seed=1, kind={1, 2}), name="Obj")

    @dataclass
    class Config:
        rate: float = 0.5
        fixed = "yes"

        def method(self) -> None: ...

    task.connect(Config(), name="Class")
    found = task.get_parameters(cast=True)

    assert found["Args/epochs"] == 5
    assert found["Data/batch"] == 8
    assert found["Obj/seed"] == 1
    assert found["Obj/kind"] == "{1, 2}"
    assert {k: v for k, v in found.items() if k.startswith("Class")} == {"Class/fixed": "yes", "Class/rate": 0.5}


def test_a_parser_that_refuses_the_arguments_is_an_error_and_no_exit(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SystemExit` out of `connect` ends programs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--needed", required=True)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(InvalidRequestError):
        task.connect(parser)


@pytest.mark.parametrize("mutable", [None, 5, "text", b"x", [1], (1,), {1}, object()])
def test_what_cannot_be_connected_is_refused(task: Task, unchanged: Unchanged, mutable: Any) -> None:
    """ClearML raises, too."""
    with unchanged(), pytest.raises(InvalidRequestError):
        task.connect(mutable)


def test_parameters_are_set_replaced_updated_and_deleted(task: Task) -> None:
    """Without a section, "General" is meant."""
    task.set_parameters({"a": 1, "S/b": 2}, c=3)
    assert task.get_parameters(cast=True) == {"General/a": 1, "General/c": 3, "S/b": 2}
    task.update_parameters({"a": 9}, {"d": None})
    assert task.get_parameter("a", cast=True) == 9
    assert task.get_parameter("General/a") == "9"
    assert task.get_parameter("d", cast=True) is None
    assert task.get_parameter("nope", "default") == "default"
    task.set_parameter("S/b", "5", value_type=int)
    assert task.get_parameter("S/b", cast=True) == 5
    assert task.delete_parameter("S/b") is True
    assert task.delete_parameter("S/b") is False
    task.set_parameters_as_dict({"X": {"y": {"z": 1}}})
    assert task.get_parameters(cast=True) == {"X/y/z": 1}
    task.set_parameters({"k": object})
    assert "object" in task.get_parameter("k")
    task.set_parameters({})
    assert task.get_parameters() == {}


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_parameter_with_an_impossible_name_changes_nothing(task: Task, unchanged: Unchanged, name: str) -> None:
    """Neither alone nor among others."""
    with unchanged():
        with pytest.raises(InvalidRequestError):
            task.connect({"fine": 1, name: 2})
        with pytest.raises(InvalidRequestError):
            task.set_parameter(name, 1)


def test_configurations_are_kept_as_they_are(task: Task, make_file: MakeFile) -> None:
    """Dictionaries, lists, files; by name."""
    value = {"a": {"b": (1, 2)}}
    path = make_file("c.yaml", b"x: 1\n")
    assert task.connect_configuration(value) is value
    assert task.connect_configuration(path, name="file") == path
    task.connect_configuration([1, 2], name="list", description="d")
    task.set_configuration_object("text", config_text="{}")

    assert task.get_configuration_object_as_dict("General") == value
    assert task.get_configuration_object("file") == "x: 1\n"
    assert task.get_configuration_object_as_dict("list") == [1, 2]
    assert sorted(task.get_configuration_objects()) == ["General", "file", "list", "text"]
    assert task.get_configuration_object("nope") is None
    assert task.get_configuration_object_as_dict("nope") is None
    task.set_configuration_object("text", config_text="{ x: [")
    with pytest.raises(InvalidConfigurationError):
        task.get_configuration_object_as_dict("text")


@pytest.mark.parametrize("configuration", [5, None, {"a": object()}, {1, 2}])
def test_a_configuration_that_cannot_be_kept_is_refused(task: Task, unchanged: Unchanged, configuration: Any) -> None:
    """Nothing is kept of it."""
    with unchanged(), pytest.raises(InvalidRequestError):
        task.connect_configuration(configuration)


def test_a_configuration_file_that_cannot_be_read_is_refused(
    task: Task, unchanged: Unchanged, make_file: MakeFile
) -> None:
    """Missing, binary, or a folder."""
    binary = make_file("x.bin", b"\xff\xfe\x00")
    with unchanged():
        with pytest.raises(BlobNotFoundError):
            task.connect_configuration("nope.yaml")
        for path in (binary, binary.parent, "a\0b", "x" * 10_000):
            with pytest.raises((InvalidConfigurationError, InvalidRequestError, BlobNotFoundError)):
                task.connect_configuration(path)


def test_the_configuration_of_models_comes_from_the_task(task: Task, make_file: MakeFile) -> None:
    """The one set for models, else the first by name."""
    task.connect_configuration({"z": 1}, name="z")
    task.connect_configuration({"a": 1}, name="a")
    assert task.get_model_config_dict() == {"a": 1}
    task.set_model_config(config_text='{"d": 1}')
    assert (task.get_model_design(), task.get_model_config_dict()) == ('{"d": 1}', {"d": 1})
    task.update_model_desc(make_file("design.txt", b"layers"))
    assert task.get_model_config_text() == "layers"
    model = OutputModel(task)
    model.update_weights(make_file())
    assert model.config_text == "layers"
    with pytest.raises(InvalidRequestError):
        task.update_model_desc()


def test_labels_are_checked(task: Task, unchanged: Unchanged) -> None:
    """Names to integers."""
    labels = {"a": 1}
    assert task.connect_label_enumeration(labels) is labels
    with unchanged():
        for bad in ({"a": "1"}, {1: 1}, ["a"], {"a": None}):
            with pytest.raises(ValueError, match="."):
                task.connect_label_enumeration(bad)  # type: ignore[arg-type]
    task.set_model_label_enumeration()
    assert task.get_labels_enumeration() == {}


def test_tags_and_texts_of_a_task(task: Task, unchanged: Unchanged) -> None:
    """A string of several words is several tags, as in ClearML."""
    task.add_tags("a b")
    task.add_tags(["c d"])
    task.remove_tags("a nope")
    assert task.get_tags() == ["b", "c d"]
    task.set_tags([])
    assert task.get_tags() == []
    task.set_system_tags(["x"])
    assert task.get_system_tags() == ["x"]
    task.set_archived(True)
    assert task.get_archived()
    task.set_archived(False)
    assert not task.get_archived()
    task.name, task.comment = "n", "c"
    task.rename("m")
    task.set_parent(Task.create("p", "parent"))
    task.set_task_type(Task.TaskTypes.inference)
    assert (task.name, task.comment, task.task_type) == ("m", "c", "inference")
    task.move_to_project(new_project_name="moved/here")
    assert task.get_project_name() == "moved/here"
    task.set_project(project_id=Task.get_project_id("p"))
    assert task.get_project_name() == "p"
    with unchanged():
        for change in (
            lambda: setattr(task, "name", ""),
            lambda: setattr(task, "name", None),
            lambda: setattr(task, "comment", 5),
            lambda: task.set_tags("abc"),  # type: ignore[arg-type]
            lambda: task.move_to_project(new_project_id=NOWHERE),
            lambda: setattr(task, "output_uri", "http://x"),
        ):
            with pytest.raises(ValueError, match="."):
                change()


# -- models -----------------------------------------------------------------------------------------------------------


def test_models_are_had_by_position_and_name(task: Task, make_file: MakeFile) -> None:
    """As the page shows."""
    teacher = InputModel.import_model("s3://b/teacher.pt")
    task.connect(teacher)
    first, second = OutputModel(task, name="1"), OutputModel(task, name="2")
    first.update_weights(make_file("a.pt"))
    second.update_weights(make_file("b.pt"))
    models = task.models

    assert models["output"][-1] == models.output[1] == models.output["b"] == second
    assert models.output[0:1] == [first]
    assert models.input["teacher"] == teacher
    assert models.output.get("nope") is None
    assert models.output.keys() == ["a", "b"]
    assert (list(models), len(models)) == (["input", "output"], 2)
    assert task.output_models_id == {"a": first.id, "b": second.id}
    assert "output" in repr(task.get_models())
    with pytest.raises(KeyError, match="'a', 'b'"):
        models.output["nope"]
    with pytest.raises(IndexError):
        models.output[5]
    Model.remove(first)
    assert task.models.output == [second]
    assert task.output_models_id == {"b": second.id}


def test_models_without_a_link_are_listed_too(task: Task) -> None:
    """A model that has only metadata was made by the task all the same."""
    model = OutputModel(task)
    model.set_metadata("k", 1)

    assert task.models.output == [model]
    assert task.models.output.keys() == ["Output Model #0"]


def test_a_model_of_the_task_is_registered_in_one_call(task: Task, make_file: MakeFile) -> None:
    """`update_output_model`: a new model each call; files stay."""
    path = make_file("best.pt")
    url = task.update_output_model(path, name="link", comment="c", tags=["t"], iteration=4)
    model = task.models.output["link"]

    assert (model.name, model.comment, model.tags, model.iteration, model.url) == ("train - link", "c", ["t"], 4, url)
    task.update_output_model(str(path), model_name="registry name")
    assert task.models.output["best"].name == "registry name"
    assert task.update_output_model("s3://b/x.pt") == "s3://b/x.pt"
    task.update_output_model(path.parent)
    assert task.models.output["work"].system_tags == ["package"]
    assert path.exists()
    assert len(task.models.output) == 4
    task.update_output_model(path, auto_delete_file=True)
    assert not path.exists()


def test_a_model_that_cannot_be_stored_is_not_registered(task: Task, unchanged: Unchanged) -> None:
    """`update_output_model` of nothing."""
    with unchanged():
        for path in ("nope.pt", "a\0b", "x" * 10_000, "/dev/null"):
            with pytest.raises((BlobNotFoundError, InvalidRequestError)):
                task.update_output_model(path)


def test_an_input_model_is_set_by_id_or_published_name(task: Task, unchanged: Unchanged) -> None:
    """By name there must be exactly one published model."""
    first = InputModel.import_model("s3://b/a.pt", name="net", config_text="c", label_enumeration={"x": 1})
    with unchanged():
        with pytest.raises(ModelNotFoundError):
            task.set_input_model(model_name="net")
        with pytest.raises(ModelNotFoundError):
            task.set_input_model(NOWHERE)
        with pytest.raises(InvalidRequestError):
            task.set_input_model()
    first.publish()
    task.set_input_model(model_name="net", update_task_design=False, update_task_labels=False)
    assert task.models.input["a"] == first
    assert (task.get_model_config_text(), task.get_labels_enumeration()) == ("", {})
    second = InputModel.import_model("s3://b/b.pt", name="net", create_as_published=True, config_text="d")
    with pytest.raises(InvalidRequestError, match="Several"):
        task.set_input_model(model_name="net")
    task.set_input_model(second.id, name="other")
    assert task.input_models_id == {"a": first.id, "other": second.id}
    assert task.get_model_config_text() == "d"
    task.remove_input_models([first, second.id, NOWHERE])
    assert task.input_models_id == {}
    assert first.consumers() == []


# -- its life ---------------------------------------------------------------------------------------------------------


def test_a_task_goes_through_its_states(task: Task) -> None:
    """And refuses the ways that lead nowhere."""
    task.mark_stopped(status_message="why")
    assert task.get_status() == "stopped"
    task.mark_started()
    task.mark_failed(status_reason="r", status_message="m")
    assert task.status == "failed"
    task.mark_completed()
    assert task.status == "failed"
    with pytest.raises(TaskClosedError):
        task.mark_completed(ignore_errors=False)
    with pytest.raises(TaskClosedError):
        task.mark_started()
    with pytest.raises(TaskClosedError):
        task.mark_stopped()
    task.mark_started(force=True)
    with pytest.raises(TaskClosedError):
        task.publish()
    task.mark_completed()
    task.publish()
    task.publish()
    assert task.status == "published"


def test_a_closed_task_is_completed(task: Task) -> None:
    """Once, however often it is closed."""
    task.publish_on_completion()
    task.close()
    task.close()

    assert task.get_status() == "published"
    task.publish_on_completion(False)
    failed = Task.init("p", "failed")
    failed.mark_failed()
    failed.close()
    assert failed.status == "failed"


def test_deleting_a_task_removes_what_it_made(task: Task, make_file: MakeFile, registry: Registry) -> None:
    """Except what others use, and what others made."""
    mine, used = OutputModel(task, name="mine"), OutputModel(task, name="used")
    mine.update_weights(make_file(content=b"1"))
    used.update_weights(make_file(content=b"2"))
    consumer = Task.create("p", "consumer")
    consumer.connect(InputModel(str(used.id)))
    other = Task.create("p", "other")
    theirs = OutputModel(other)
    theirs.update_weights(make_file(content=b"3"))
    OutputModel(task, base_model_id=theirs.id).connect(task, "continued")
    assert len(task.models.output) == 3

    assert task.delete() is True
    assert set(Model.query_models()) == {used, theirs}
    assert Task.current_task() is None
    with pytest.raises(TaskNotFoundError):
        task.reload()
    assert consumer.delete()
    assert Model(str(used.id)).consumers() == []
    assert Model.remove(str(used.id))


def test_a_callback_spares_models_from_deletion(task: Task, make_file: MakeFile) -> None:
    """It is asked with each URI."""
    model = OutputModel(task)
    model.update_weights(make_file())
    asked: list[tuple[str, str]] = []

    def spare(kind: str, uri: str) -> bool:
        asked.append((kind, uri))
        return False

    assert task.delete(callback=spare)
    assert asked == [("model", model.url)]
    assert Model.query_models() == [model]
    kept = Task.create("p", "n")
    OutputModel(kept).set_metadata("k", 1)
    assert kept.delete(delete_artifacts_and_models=False)
    assert len(Model.query_models()) == 2


def test_iterations_are_counted(task: Task, make_file: MakeFile) -> None:
    """From where one says."""
    assert task.get_last_iteration() == 0
    assert task.set_initial_iteration(100) == task.get_initial_iteration() == 100
    OutputModel(task).update_weights(make_file(), iteration=5)
    assert task.get_last_iteration() == 105


def test_offline_is_no_mode(task: Task, make_file: MakeFile) -> None:
    """The calls exist and change nothing that works; in ClearML the page's flow crashes."""
    Task.set_offline(offline_mode=True)
    assert Task.is_offline() is False
    assert task.get_offline_mode_folder() is None
    model = OutputModel(task, framework="PyTorch")
    model.update_labels({"a": 1})
    model.update_weights(make_file())
    assert model.get_offline_mode_folder() is None
    assert task.models.output == [model]
    with pytest.raises(UsageError):
        Task.import_offline_session("session.zip")


def test_the_logger_says_things(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    """What ClearML's model examples call."""
    task.get_logger().report_text("hello")
    Logger.current_logger().report_text("quiet", print_console=False)  # type: ignore[union-attr]
    task.get_logger().report_text("%d of %s", 20, True, 3, "four")
    task.get_logger().report_text("100 %", 20, True)

    assert capsys.readouterr().out == "hello\n3 of four\n100 %\n"
    assert task.get_logger().flush(wait=True) is True
    assert task.flush(wait_for_uploads=True) is True


def test_a_task_sees_its_own_writes_and_others_after_reload(task: Task, registry: Registry) -> None:
    """As models do."""
    same = Task.get_task(task.id)
    assert same is not None
    same.comment = "here"
    assert task.comment == "here"
    with Registry(registry.folder) as elsewhere:
        elsewhere.tasks.edit(task.id, comment="there")
    assert task.comment == "here"
    task.reload()
    assert task.comment == "there"
    assert len({task, same}) == 1


# -- the end of the process -------------------------------------------------------------------------------------------

ENDINGS = {
    "pass": ("completed", 0),
    "raise ValueError('boom')": ("failed", 1),
    "import sys; sys.exit(3)": ("failed", 3),
    "import sys; sys.exit(0)": ("completed", 0),
    "import sys; sys.exit()": ("completed", 0),
    "import sys; sys.exit('message')": ("failed", 1),
    "raise KeyboardInterrupt": ("stopped", None),
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": ("in_progress", None),
    "import os; os.fork() or __import__('sys').exit(0); os.wait()": ("completed", 0),
    "task.mark_failed(status_reason='mine')": ("failed", 0),
    "task.close()": ("completed", 0),
    "task.delete()": (None, 0),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_of_the_process_is_the_end_of_the_task(ending: str) -> None:
    """Completed, failed or stopped; a process that is killed says nothing."""
    status, code = ENDINGS[ending]
    done = run(f"from modelstore import Task\ntask = Task.init('p', 'n')\nprint(task.id, flush=True)\n{ending}\n")

    if code is not None:
        assert done.returncode == code, done.stderr
    found = Task.get_tasks()
    assert [task.status for task in found] == ([] if status is None else [status])
    if "boom" in ending:
        assert found[0]._record().status_message == "ValueError: boom"
        assert "Traceback" in done.stderr


def test_a_spawned_child_uses_the_task_of_its_parent(tmp_path: Path, make_file: MakeFile) -> None:
    """As on macOS, where children are spawned: their reports and models are the run's, and they do not end it."""
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import json, multiprocessing
            from modelstore import Logger, OutputModel, Task

            def work(number):
                assert Task.init("p", "parent") == Task.current_task()
                Logger.current_logger().report_scalar("loss", f"rank {{number}}", 1.0, number)
                OutputModel(name=f"child {{number}}").update_weights({str(make_file())!r})
                if number == 1:
                    own = Task.init("p", "its own")
                    assert own.name == Task.current_task().name == "its own"

            if __name__ == "__main__":
                task = Task.init("p", "parent")
                context = multiprocessing.get_context("spawn")
                children = [context.Process(target=work, args=(i,)) for i in range(2)]
                [child.start() for child in children]
                [child.join() for child in children]
                task.reload()
                print(json.dumps([
                    [c.exitcode for c in children], task.status, sorted(m.name for m in task.models.output),
                    sorted(task.get_reported_scalars()["loss"]),
                ]))
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[0, 0], "in_progress", ["child 0", "child 1"], ["rank 0", "rank 1"]]
    statuses = {one.name: one.status for one in Task.get_tasks(project_name="p")}
    assert statuses == {"parent": "completed", "its own": "completed"}


def test_a_child_of_another_program_has_its_own_task(task: Task) -> None:
    """Whoever starts runs one after the other does not want them to be one."""
    assert Task.current_task() == task
    done = run("from modelstore import Task; print(Task.current_task(), Task.init('p', 'driven').name)")

    assert done.stdout == "None driven\n", done.stderr


def test_a_forked_child_uses_the_task_of_its_parent(task: Task, make_file: MakeFile) -> None:
    """And does not end it."""
    path = make_file()
    done = run(
        f"""
        import multiprocessing
        from modelstore import Task, OutputModel
        task = Task.init("p", "parent")
        def work(number):
            assert Task.current_task() == task
            assert Task.init("p", "parent") == task
            model = OutputModel(name=f"child {{number}}")
            model.update_weights({str(path)!r})
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=work, args=(i,)) for i in range(2)]
        [child.start() for child in children]
        [child.join() for child in children]
        task.reload()
        import json
        print(json.dumps([[c.exitcode for c in children], task.status, [m.name for m in task.models.output]]))
        """
    )
    codes, status, names = json.loads(done.stdout)

    assert (codes, status, sorted(names)) == ([0, 0], "in_progress", ["child 0", "child 1"]), done.stderr
    assert [one.status for one in Task.get_tasks(task_name="parent")] == ["completed"]
