"""modelstore, asked through its public classes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from benchmarks import catalogue
from benchmarks.shapes import LIMIT, SHAPES
from benchmarks.workers.protocol import per_call, serve


class State:
    total: int
    turn = 0


def start(total: int) -> None:
    from modelstore import Model

    State.total = total
    Model.query_models(max_results=1)


def _query(shape: str) -> Callable[[], Any]:
    from modelstore import Model

    asked = SHAPES[shape]
    return lambda: Model.query_models(tags=asked.tags, max_results=LIMIT, **asked.options)


def newest(shape: str) -> float:
    return per_call(_query(shape))


def answer(shape: str) -> list[str]:
    """Return the ids that the question gives, for comparing."""
    return [model.id for model in _query(shape)()]


def selected(**options: Any) -> float:
    """Ask for 100 models by other arguments of `query_models`."""
    return per_call(lambda: _selected(options))


def _selected(options: dict[str, Any]) -> list[Any]:
    from modelstore import Model

    return Model.query_models(max_results=LIMIT, **options)


def chosen(**options: Any) -> list[str]:
    return [model.id for model in _selected(options)]


def count(shape: str) -> float:
    return per_call(lambda: counted(shape))


def counted(shape: str) -> int:
    from modelstore.registry.search import ModelSearch
    from modelstore.sdk._context import current_registry

    return ModelSearch(tags=SHAPES[shape].tags).count(current_registry())


def get() -> float:
    """Look a model up by its id: another one each time."""
    from modelstore import Model

    return per_call(lambda: Model(catalogue.model_id(_next())).name)


def get_by_url() -> float:
    from modelstore import InputModel

    return per_call(lambda: InputModel.load_model(catalogue.uri(_next())))


def _next() -> int:
    State.turn += 1
    return State.turn * 7919 % State.total


def explain(shape: str) -> str:
    from modelstore.registry.search import ModelSearch
    from modelstore.sdk._context import current_registry

    asked = SHAPES[shape]
    search = ModelSearch(tags=asked.tags, project=asked.options.get("project_name"), limit=LIMIT)
    return search.plan(current_registry()).explain()


def report(folder: str) -> None:
    """Give every third model what a reported scalar series leaves in the index."""
    db = sqlite3.connect(f"{folder}/registry.db")
    with db:
        db.execute(
            "INSERT OR IGNORE INTO metrics (model, title, series, last, min, max)"
            " SELECT key, 'val', 'iou', v, v / 2, v FROM ("
            " SELECT key, (key * 2654435761 % 1000003) / 1000003.0 AS v FROM models WHERE key % 3 = 0)"
        )
    db.close()


if __name__ == "__main__":
    jobs = (start, newest, answer, selected, chosen, count, counted, get, get_by_url, explain, report)
    serve({job.__name__: job for job in jobs})
