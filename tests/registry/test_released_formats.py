"""A registry that any release has written opens for ever, with everything in it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstore import InputModel, Metric, Model, OutputModel, Task
from modelstore import open as open_registry
from modelstore.index.contents import check_copies, read_index
from modelstore.index.heads import read_heads
from modelstore.sdk._context import Registry
from modelstore.testing.reference import fold

FORMATS = sorted(Path(__file__).parent.parent.joinpath("data").glob("registry-format*"))


@pytest.fixture(params=FORMATS, ids=lambda path: path.name)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A copy of a released registry, somewhere else than where it was made."""
    folder = tmp_path / "moved" / "registry"
    shutil.copytree(request.param, folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)
    with open_registry(folder, cache=tmp_path / "cache") as opened:
        yield opened


def test_there_is_a_registry_of_every_released_format() -> None:
    """The fixture is made when a format is released, and never changed afterwards."""
    assert [path.name for path in FORMATS] == [f"registry-format{number}" for number in (1, 2, 3, 4)]


@pytest.mark.usefixtures("registry")
def test_what_was_stored_is_found_and_read() -> None:
    """Query, metadata, labels, configuration, weights, package, archive, links."""
    (reader,) = Model.query_models(tags=["__$and", "prod", "größe"], only_published=True)
    (draft,) = Model.query_models(tags=["__$and", "prod", "__$not", "-odd"])
    path = reader.get_local_copy(raise_on_error=True)
    folder = draft.get_local_copy(raise_on_error=True)
    metadata = reader.get_all_metadata_casted()

    assert path is not None
    assert Path(path).read_bytes() == b"weights of the first release"
    assert folder is not None
    assert sorted(p.name for p in Path(folder).iterdir()) == ["a.txt", "b.bin"]
    assert math.isnan(metadata.pop("nan"))
    assert metadata == {"accuracy": 0.93, "nested": {"a": [1, {"b": None}]}}
    assert (reader.labels, reader.iteration, reader.framework) == ({"cat": 1, "dog": 2}, 7, "PyTorch")
    assert reader.config_dict == {"depth": 3, "shape": (1, 2)}
    assert draft.comment == "edited"
    assert draft.tags == ["prod", "together"]
    assert InputModel.load_model("s3://bucket/teacher.onnx") is None
    archived = InputModel.load_model("s3://bucket/teacher.onnx", load_archived=True)
    assert archived is not None
    assert archived.tags == ["together"]
    use = Task.get_task(task_name="use")
    assert use is not None
    assert use.models.input["teacher"].id == archived.id


def test_reports_of_format_3_are_read(registry: Registry) -> None:
    """Points, a single value, a small and a large figure, a picture, an address; earlier formats have none."""
    (reader,) = Model.query_models(tags=["__$and", "prod", "größe"], only_published=True)
    task = Task.get_task(task_id=reader.task)
    assert task is not None
    plots = {plot.title: plot for plot in registry.reports.plots(str(reader.id))}
    if not plots:
        assert reader.get_reported_scalars() == task.get_reported_scalars() == {}
        return

    assert repr(reader.get_reported_scalars()["val"]["iou"]["y"]) == "[0.5, nan, inf, 0.25]"
    assert task.get_reported_scalars()["train"]["loss"]["y"] == [0.0, 0.5, 1.0, 1.5]
    assert reader.get_reported_single_values() == {"f1": 0.75}
    assert [m.name for m in Model.query_models(where=Metric("val", "iou").max > 1)] == ["reader"]
    assert math.isnan(registry.reports.load_figure(plots["confusion"])["data"][0]["z"][1][0])
    assert len(registry.reports.load_figure(plots["large"])["data"][0]["x"]) == 4000
    assert registry.reports.path(plots["image"]).read_bytes().startswith(b"\x89PNG")
    assert plots["media"].url == "https://example.com/a.wav"


def test_it_knows_how_much_it_has_of_each_writer(registry: Registry) -> None:
    """Two registries that meet compare these; earlier formats get them from their journal."""
    stamps = [operation.stamp for _, operation in registry.operations()]

    heads = read_heads(registry.database.connection)

    assert heads == {max(stamps)[16:]: max(stamps)}
    registry.models.create(name="next")
    (written,) = [o.stamp for _, o in registry.operations() if o.stamp not in stamps]
    assert read_heads(registry.database.connection) == heads | {written[16:]: written}


def test_it_is_whole_and_goes_on(registry: Registry, tmp_path: Path) -> None:
    """The journal still folds into the index, published models stay, and new ones can be made."""
    weights = tmp_path / "new.pt"
    weights.write_bytes(b"new")
    before = read_index(registry.database.connection)

    assert before == fold(operation for _, operation in registry.operations())
    assert [f for f in registry.check(deep=True) if f.severity != "note"] == []
    registry.rebuild()
    assert read_index(registry.database.connection) == before
    check_copies(registry.database.connection)
    model = OutputModel(Task.create(task_name="later"), name="new")
    model.update_weights(weights)
    assert [m.name for m in Model.query_models(model_name="new")] == ["new"]
    with pytest.raises(ValueError, match="published"):
        registry.models.edit(Model.query_models(only_published=True)[0].id, labels={"x": 1})
