"""The classes on a registry in an object store."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from modelstore import InputModel, Model, OutputModel, Task
from modelstore.registry import Registry


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> str:
    place = f"memory://bucket-{uuid.uuid4().hex}/team"
    monkeypatch.setenv("MODELSTORE_REGISTRY", place)
    return place


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "best é.pt"
    path.write_bytes(b"weights" * 1000)
    return str(path)


def test_train_report_publish_find_and_import(place: str, weights: str) -> None:
    task = Task.init(project_name="P", task_name="t")
    model = OutputModel(task=task, name="net", tags=["é"])
    model.update_weights(weights, auto_delete_file=False)
    model.report_scalar("loss", "train", 0.5, 1)
    model.publish()
    task.close()
    [found] = Model.query_models(model_name="net", only_published=True)
    assert found.id == model.id
    assert str(found.url).startswith(f"{place}/objects/sha256/")
    assert Path(str(found.get_local_copy())).read_bytes() == Path(weights).read_bytes()
    assert InputModel.import_model(found.url).id == model.id
    with pytest.raises(Exception, match="published"):
        model.update_weights(weights, auto_delete_file=False)


def test_uploads_in_the_background_go_to_another_bucket(place: str, weights: str) -> None:
    other = f"memory://bucket-{uuid.uuid4().hex}/weights"
    task = Task.init(project_name="P", task_name="t", output_uri=other)
    model = OutputModel(task=task, name="net")
    uri = model.update_weights(weights, auto_delete_file=False)
    model.wait_for_uploads()
    assert str(uri).startswith(other)
    with Registry(place) as registry:
        assert registry.models.get(model.id).size == 7000
