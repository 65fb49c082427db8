"""The order of creation, which the journal answers for the models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelstore.index.facts import IndexFacts
from modelstore.index.plan import Plan, plan
from modelstore.query import ModelQuery, parse_order
from modelstore.records.entities import ModelRecord
from modelstore.registry.registry import Registry


def merged(folder: Path) -> tuple[Registry, list[ModelRecord]]:
    """Return a registry with models of two writers, with ties, some changed and removed since."""
    registry = Registry(folder)
    registry.models.create_many({"name": f"m{n % 7}", "tags": ["odd"] if n % 2 else []} for n in range(300))
    operations = [operation for _, operation in registry.operations()][::3]
    registry.ingest(
        replace(o, stamp=o.stamp[:16] + "f" * 16, entity=f"{n:032x}", batch=None, batch_size=1)
        for n, o in enumerate(operations)
    )
    registry.tasks.create(name="train", project="p")
    records = [registry.models.get(row[0]) for row in registry.database.all("SELECT id FROM models")]
    for record in records[::5]:
        registry.models.edit(record.id, comment="changed")
    for record in records[::7]:
        registry.models.delete(record.id)
    return registry, [record for place, record in enumerate(records) if place % 7]


@pytest.mark.parametrize("term", ["created", "-created"])
def test_models_come_in_the_order_of_their_creation_page_by_page(tmp_path: Path, term: str) -> None:
    """Operations of two writers, with ties between them, which go by id."""
    registry, records = merged(tmp_path)
    sign = -1 if term.startswith("-") else 1
    expected = [r.key for r in sorted(records, key=lambda r: (sign * r.created, r.id))]
    query = ModelQuery(order_by=(parse_order(term),), limit=31)
    read: list[int] = []
    with registry:
        while True:
            made = plan(query, IndexFacts(registry.database.one))
            rows = registry.database.all(made.sql, made.parameters)
            if not rows:
                break
            assert len(rows) < 31 or "models up to number 31 in this order" in made.explain()
            read += [row[0] for row in rows]
            query = replace(query, after=Plan.cursor(tuple(rows[-1])))

    assert read == expected
