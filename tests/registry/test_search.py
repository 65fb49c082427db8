"""Full-text search on a registry: always right, whatever the index has taken in, and never in a writer's way."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelstore.errors import InvalidRequestError
from modelstore.index import texts
from modelstore.query.words import phrases
from modelstore.registry import Registry, open_registry
from modelstore.registry.search import ModelSearch


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path / "r") as opened:
        yield opened


def found(registry: Registry, search: str) -> list[str | None]:
    return [record.name for record in ModelSearch(search=search).run(registry)]


def behind(registry: Registry) -> int:
    return texts.behind(registry.database.connection)


def index_rows(registry: Registry) -> int:
    row = registry.database.one("SELECT count(*) FROM search_words")
    assert row is not None
    return int(row[0])


def test_a_few_changes_are_found_without_being_written_into_the_index(registry: Registry) -> None:
    """Searching after each registration costs no write transaction."""
    registry.models.create(name="yolo small", tags=["prod"], metadata={"dataset": "Cityscapes"})

    assert found(registry, "yolo prod cityscapes") == ["yolo small"]
    assert (behind(registry), index_rows(registry)) == (1, 0)


def test_many_changes_are_taken_in_by_who_searches(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, so that others can write between them."""
    monkeypatch.setattr(texts, "BATCH", 300)
    registry.models.create_many({"name": f"yolo {number}"} for number in range(1000))

    assert len(found(registry, "yolo")) == 1000
    assert (behind(registry), index_rows(registry)) == (100, 900)  # what is left is less than is worth a transaction
    registry.models.edit(ModelSearch(name="yolo 0").run(registry)[0].id, name="renamed")
    assert len(found(registry, "yolo")) == 999
    assert found(registry, "renamed") == ["renamed"]
    assert found(registry, '"yolo 0"') == []


def test_writing_a_model_writes_nothing_into_the_index(registry: Registry) -> None:
    """Who never searches never pays."""
    made = registry.models.create(name="yolo")
    registry.models.edit(made.id, comment="x")
    registry.models.create_many({"name": "more"} for _ in range(500))

    assert index_rows(registry) == 0
    assert behind(registry) == 502


def test_a_search_does_not_wait_for_a_writer(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for one of this process nor for another: what is pending is then read as it is."""
    monkeypatch.setattr(texts, "LAG", 0)
    registry.models.create(name="yolo")
    with closing(sqlite3.connect(registry.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        assert found(registry, "yolo") == ["yolo"]
        assert index_rows(registry) == 0
    writing, done = threading.Event(), threading.Event()

    def write() -> None:
        with registry.transaction():
            registry.models.create(name="yolo too")
            writing.set()
            done.wait(30)

    thread = threading.Thread(target=write)
    thread.start()
    writing.wait(30)
    try:
        assert found(registry, "yolo") == ["yolo"]
        assert index_rows(registry) == 0
    finally:
        done.set()
        thread.join()
    assert found(registry, "yolo") == ["yolo too", "yolo"]
    assert index_rows(registry) == 2


def test_a_transaction_that_fails_takes_its_words_with_it(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is written in the transaction of whoever searches in one."""
    monkeypatch.setattr(texts, "LAG", 0)
    made = registry.models.create(name="before")
    with pytest.raises(KeyError), registry.transaction():
        registry.models.edit(made.id, name="after")
        assert found(registry, "after") == ["after"]
        raise KeyError

    assert found(registry, "after") == []
    assert found(registry, "before") == ["before"]


def test_a_registry_that_cannot_be_written_is_searched_all_the_same(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's, say; more slowly where its owner has never searched."""
    registry.models.create_many({"name": f"yolo {number}"} for number in range(300))
    monkeypatch.setattr(registry.database, "read_only", True)

    assert len(found(registry, "yolo")) == 300
    assert index_rows(registry) == 0


def test_removed_and_archived_models_are_found_as_by_any_query(registry: Registry) -> None:
    """The index knows words; the rest is the query's."""
    gone = registry.models.create(name="yolo gone")
    hidden = registry.models.create(name="yolo hidden", system_tags=["archived"])
    registry.models.create(name="yolo here")
    registry.models.delete(gone.id)

    assert found(registry, "yolo") == ["yolo here"]
    assert [r.id for r in ModelSearch(search="hidden", include_archived=True).run(registry)] == [hidden.id]
    registry.models.restore(gone.id)
    assert found(registry, "yolo") == ["yolo gone", "yolo here"]


def test_doctor_sees_a_wrong_word_and_rebuild_puts_it_right(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is the truth of this too."""
    monkeypatch.setattr(texts, "LAG", 0)
    registry.models.create(name="yolo")
    assert found(registry, "yolo") == ["yolo"]
    assert registry.check(deep=True) == []
    with closing(sqlite3.connect(registry.database.path)) as other:
        other.execute("INSERT OR REPLACE INTO search_words (rowid, words) VALUES (1, 'bert')")
        other.commit()

    assert "other words" in registry.check(deep=True)[0].what
    registry.rebuild()
    assert registry.check(deep=True) == []
    assert found(registry, "yolo") == ["yolo"]


@pytest.mark.parametrize(
    "search",
    [
        '"',
        "'",
        "yolo'; DROP TABLE models; --",
        "a:b",
        "NEAR(a b)",
        "-yolo",
        "^a",
        "{a}",
        "a AND",
        "(",
        "*",
        "a*",
        "\0a",
        "\\",
    ],
)
def test_whatever_people_type_is_no_error_of_the_database(registry: Registry, search: str) -> None:
    """Only what has no word in it is refused, with words."""
    registry.models.create(name=search.replace("\0", "") + " x")
    if phrases(search):
        assert len(found(registry, search)) <= 1
    else:
        with pytest.raises(InvalidRequestError, match="no word"):
            found(registry, search)


def test_an_empty_search_asks_for_nothing(registry: Registry) -> None:
    """As an empty box on a page does."""
    registry.models.create(name="a")

    assert found(registry, " ") == ["a"]


def test_people_with_sql_can_search(registry: Registry) -> None:
    """The index is a plain FTS5 table, whose words are those of `modelstore.query.words`."""
    registry.models.create(name="yolo")
    registry.rebuild()
    statement = "SELECT m.name FROM search_words AS w JOIN models AS m ON m.key = w.rowid WHERE w.words MATCH 'yol*'"
    with registry.select(statement) as rows:
        assert list(rows) == [("yolo",)]


def test_a_broad_search_is_a_walk_and_a_rare_one_a_look_up(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of a broad search reads as many models as the page needs, not all that match."""
    from modelstore.index import plan, sources

    monkeypatch.setattr(sources, "CAP", 20)
    monkeypatch.setattr(plan, "FEW", 10)
    registry.models.create_many({"name": f"yolo {number}"} for number in range(400))
    broad = ModelSearch(search="yolo", limit=5)
    rare = ModelSearch(search='yolo "7"', limit=5)

    assert "walk all models" in broad.plan(registry).explain()
    assert "mentioned(" in broad.plan(registry).sql
    assert [record.name for record in broad.run(registry)] == [f"yolo {number}" for number in range(399, 394, -1)]
    assert 'take models for which search("yolo \\"7\\"") (1)' in rare.plan(registry).explain()
    assert [record.name for record in rare.run(registry)] == ["yolo 7"]
