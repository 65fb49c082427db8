"""Searching, counting, iterating, and results as a table."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import modelstore
from modelstore import InputModel, Model, Search, Tag
from modelstore.errors import ProjectNotFoundError, UsageError
from modelstore.registry import Registry


def test_search_narrows_together_with_everything_else(registry: Registry) -> None:
    """One more condition that must hold."""
    registry.models.create(name="yolo small", tags=["prod"], project="vision")
    registry.models.create(name="yolo large", tags=["old"], project="vision")

    assert [m.name for m in Model.query_models(search="YOLO")] == ["yolo large", "yolo small"]
    assert [m.name for m in Model.query_models("vision", tags=["-old"], search="yolo")] == ["yolo small"]
    assert [m.name for m in Model.query_models(where=Search("yolo") & ~Tag("prod"))] == ["yolo large"]
    assert [m.name for m in Model.query_models(where="search('yolo pro')")] == ["yolo small"]
    assert InputModel.count_models(search="yolo") == Model.count_models() == 2
    assert Model.count_models(search="yolo", max_results=1) == 2


def test_iterating_gives_each_model_once_while_others_write(registry: Registry) -> None:
    """The next page begins where the last one ended, not at a number of rows."""
    registry.models.create_many({"name": f"m{number}", "tags": ["t"]} for number in range(1200))
    seen: list[str] = []
    for number, model in enumerate(Model.iter_models(tags=["t"], order_by="created")):
        seen.append(str(model.name))
        if number % 400 == 7:
            registry.models.create(name="late")  # does not match
            registry.models.edit(model.id, comment="read already")

    assert seen == [f"m{number}" for number in range(1200)]
    assert len(list(InputModel.iter_models(max_results=501))) == 501
    assert list(Model.iter_models(search="nothing")) == []


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"project_name": "nowhere"}, ProjectNotFoundError),
        ({"tags": ["__$not"]}, ValueError),
        ({"where": "n >"}, ValueError),
        ({"search": "!"}, ValueError),
        ({"max_results": 0}, ValueError),
        ({"colour": "red"}, TypeError),
    ],
)
def test_a_malformed_question_is_an_error_at_once(wrong: dict[str, Any], error: type[Exception]) -> None:
    """Not when the first model is asked for, and with the same error everywhere."""
    with pytest.raises(error):
        Model.iter_models(**wrong)
    with pytest.raises(error):
        Model.count_models(**wrong)
    with pytest.raises(error):
        Model.query_models(**wrong)


def test_the_nearest_project_is_named(registry: Registry) -> None:
    """What was meant is usually one letter away."""
    registry.models.create(name="x", project="vision/ocr")
    with pytest.raises(ValueError, match="'vision/ocr'"):
        Model.query_models(project_name="vision/orc")


def test_results_become_a_table(registry: Registry) -> None:
    """Fields and metadata as columns, types kept."""
    pd = pytest.importorskip("pandas")
    registry.models.create(name="a", tags=["t"], project="p", metadata={"acc": 0.5, "note": "x"})
    registry.models.create(name="b", metadata={"acc": 1}, size=7)
    table = Model.query_models(order_by="name").to_pandas()

    assert list(table["name"]) == ["a", "b"]
    assert list(table["metadata.acc"]) == [0.5, 1.0]
    assert list(table["metadata.note"]) == ["x", None]
    assert list(table["tags"]) == [["t"], []]
    assert table["size"].isna().tolist() == [True, False]
    assert str(table["created"].dtype).startswith("datetime64") and table["created"].dt.tz is not None  # noqa: PT018
    assert modelstore.to_pandas(Model.iter_models(order_by="name")).equals(table)
    empty = Model.query_models(model_name="none").to_pandas()
    assert isinstance(empty, pd.DataFrame)
    assert list(empty.columns) == [c for c in table.columns if not c.startswith("metadata.")]


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no dependency, and nothing loads it unasked."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        Model.query_models().to_pandas()
    code = "import sys, modelstore; modelstore.Model; modelstore.Search; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
