"""Hosts that share a registry, editing in any order, dying, losing their indexes: each sees what the others wrote."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from modelstore import ids
from modelstore.errors import ModelNotFoundError, PublishedModelError
from modelstore.registry import Registry
from modelstore.registry.search import ModelSearch
from modelstore.testing import faults
from modelstore.testing.reference import fold, read_index
from tests.effort import share

_HOSTS: Final = ("ann", "bob")
_SKEW_MS: Final = {"ann": 0, "bob": -120_000}
"""By how much the clock of each host is wrong."""
_WHO = st.sampled_from(_HOSTS)
_WORDS = st.sampled_from(["one", "two", "three"])
_ANY = st.integers(0, 10)


@dataclass(frozen=True)
class _Expected:
    """A model as it must be seen: the reference that the registry is held against."""

    name: str
    tags: frozenset[str] = frozenset()
    metadata: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    published: bool = False
    archived: bool = False
    deleted: bool = False


class _DiedError(Exception):
    """Stands for the end of a process at a step."""


class Hosts(RuleBasedStateMachine):
    """Two private indexes on one folder, and a dictionary that says what both must show."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="hosts-machine-"))
        self.patch = pytest.MonkeyPatch()
        self.hosts: dict[str, Registry] = {}
        self.expected: dict[str, _Expected] = {}
        self.last = _HOSTS[0]

    @initialize()
    def begin(self) -> None:
        for name in _HOSTS:
            self._open(name)

    def _open(self, name: str) -> None:
        self.patch.setenv("MODELSTORE_INDEX", str(self.folder / name))
        self.hosts[name] = Registry(
            self.folder / "team", shared=True, actor=f"{name}@{name}", cache=self.folder / "cache"
        )

    @contextmanager
    def _as(self, who: str) -> Iterator[Registry]:
        """Let a host do something, by its own clock."""
        wall = ids.now_ms
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ids, "now_ms", lambda: wall() + _SKEW_MS[who])
            yield self.hosts[who]
        self.last = who

    def _chosen(self, number: int) -> str | None:
        return sorted(self.expected)[number % len(self.expected)] if self.expected else None

    @rule(who=_WHO, name=_WORDS, tags=st.frozensets(_WORDS, max_size=2))
    def create(self, who: str, name: str, tags: frozenset[str]) -> None:
        with self._as(who) as registry:
            model = registry.models.create(name=name, tags=tags, uri="s3://b/1").id
        self.expected[model] = _Expected(name, tags)

    @rule(who=_WHO, number=_ANY, word=_WORDS, what=st.sampled_from(["rename", "tag", "untag", "meta", "archive"]))
    def edit(self, who: str, number: int, word: str, what: str) -> None:
        model = self._chosen(number)
        if model is None:
            return
        now = self.expected[model]
        change, then = _edited(now, model, word, what)
        with self._as(who) as registry:
            if now.deleted:
                with pytest.raises(ModelNotFoundError):
                    change(registry)
                return
            change(registry)
        self.expected[model] = then

    @rule(who=_WHO, number=_ANY, word=_WORDS)
    def label(self, who: str, number: int, word: str) -> None:
        """Content: refused, at once, when the other host has just published it."""
        model = self._chosen(number)
        if model is None or self.expected[model].deleted:
            return
        now = self.expected[model]
        with self._as(who) as registry:
            if now.published and now.labels != {word: 1}:
                with pytest.raises(PublishedModelError):
                    registry.models.edit(model, labels={word: 1})
                return
            registry.models.edit(model, labels={word: 1})
        self.expected[model] = replace(now, labels={word: 1})

    @rule(who=_WHO, number=_ANY, what=st.sampled_from(["publish", "delete", "restore"]))
    def turn(self, who: str, number: int, what: str) -> None:
        model = self._chosen(number)
        if model is None:
            return
        now = self.expected[model]
        with self._as(who) as registry:
            if now.deleted and what != "restore":
                with pytest.raises(ModelNotFoundError):
                    getattr(registry.models, what)(model)
                return
            getattr(registry.models, what)(model)
        published = now.published or what == "publish"
        self.expected[model] = replace(now, published=published, deleted=what == "delete")

    @rule(who=_WHO, word=_WORDS, fails=st.booleans())
    def promote_all(self, who: str, word: str, fails: bool) -> None:
        """As one change, or not at all."""
        present = [model for model, one in self.expected.items() if not one.deleted]
        with self._as(who) as registry:
            try:
                with registry.transaction():
                    for model in present:
                        registry.models.tag(model, add=[word])
                    if fails:
                        raise _DiedError
            except _DiedError:
                return
        for model in present:
            self.expected[model] = replace(self.expected[model], tags=self.expected[model].tags | {word})

    @rule(who=_WHO, word=_WORDS, step=st.sampled_from([1, 2, 3]))
    def die_while_writing(self, who: str, word: str, step: int) -> None:
        """Before the append nothing was written; after it everything, though the index of this host lacks it."""
        model = ids.new_id()
        with (
            self._as(who) as registry,
            faults.inject(f"shared.write.{step}", _DiedError()),
            pytest.raises(_DiedError),
        ):
            registry.models.create(model_id=model, name=word, uri="s3://b/1")
        if step > 1:
            self.expected[model] = _Expected(word)

    @rule(who=_WHO, loses_index=st.booleans())
    def come_again(self, who: str, loses_index: bool) -> None:
        """In a new process, perhaps on a host that was set up anew."""
        self.hosts[who].close()
        if loses_index:
            shutil.rmtree(self.folder / who)
        self._open(who)

    @rule(who=_WHO)
    def compact(self, who: str) -> None:
        """A checkpoint, and everybody's streams closed under them."""
        with self._as(who) as registry:
            registry.compact(quiet_ms=0)

    @precondition(lambda self: self.hosts)
    @invariant()
    def everybody_sees_it(self) -> None:
        """The other host first: he has not looked since."""
        for who in sorted(_HOSTS, key=lambda name: name == self.last):
            found = {
                one.id: _Expected(
                    str(one.name), frozenset(one.tags), {k: i.text for k, i in one.metadata.items()}, one.labels,
                    one.published, one.archived,
                )
                for one in ModelSearch(include_archived=True).run(self.hosts[who])
            }  # fmt: skip
            assert found == {model: one for model, one in self.expected.items() if not one.deleted}, who

    def teardown(self) -> None:
        try:
            self._compare()
        finally:
            for registry in self.hosts.values():
                registry.close()
            self.patch.undo()
            shutil.rmtree(self.folder)

    def _compare(self) -> None:
        journals = []
        for registry in self.hosts.values():
            operations = {operation.stamp: operation for _, operation in registry.operations()}
            assert read_index(registry.database.connection) == fold(operations.values())
            assert [f for f in registry.check(deep=True) if f.severity == "error"] == []
            journals.append(operations)
        assert all(journal == journals[0] for journal in journals)


def _edited(now: _Expected, model: str, word: str, what: str) -> tuple[Callable[[Registry], Any], _Expected]:
    edits: dict[str, tuple[Callable[[Registry], Any], _Expected]] = {
        "rename": (lambda r: r.models.edit(model, name=word), replace(now, name=word)),
        "tag": (lambda r: r.models.tag(model, add=[word]), replace(now, tags=now.tags | {word})),
        "untag": (lambda r: r.models.tag(model, remove=[word]), replace(now, tags=now.tags - {word})),
        "meta": (
            lambda r: r.models.set_metadata(model, {"k": (None, word)}),
            replace(now, metadata=now.metadata | {"k": word}),
        ),
        "archive": (lambda r: r.models.archive(model, archived=word == "one"), replace(now, archived=word == "one")),
    }
    return edits[what]


def test_each_host_sees_what_the_other_wrote_whatever_happens() -> None:
    """At once, and equal to a dictionary; in the end both have the same journal, and the index is its fold."""
    run_state_machine_as_test(Hosts, settings=settings(max_examples=share(12), stateful_step_count=25))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_each_host_sees_what_the_other_wrote_in_long_histories() -> None:
    """The same with many more."""
    run_state_machine_as_test(Hosts, settings=settings(max_examples=share(5), stateful_step_count=120))
