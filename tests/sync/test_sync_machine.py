"""Several registries, edits of every kind, meetings of any two of them, cut off anywhere: all end equal."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

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
from modelstore.errors import ModelStoreError
from modelstore.index.heads import read_heads, read_strays
from modelstore.records.operations import Operation
from modelstore.registry import Registry
from modelstore.sync import Partner, RegistryPartner, partners, sync
from modelstore.sync.http import HttpPartner
from modelstore.testing.reference import fold, read_index
from modelstore.testing.servers import Servers

_NAMES = st.sampled_from(["one", "two", "three"])
_SIDES = st.integers(0, 4)
_SKEWS = (0, 90_000, -90_000, 3_600_000, 0)
"""Milliseconds by which the clock of each side is wrong."""


class _CutError(Exception):
    """The line went dead."""


class _Cut:
    """Another partner whose line goes dead after so many parcels."""

    def __init__(self, partner: Partner, after: int) -> None:
        self._partner = partner
        self._left = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._partner, name)

    def parcels(self, *known: Any) -> Iterator[Any]:
        for parcel in self._partner.parcels(*known):
            self._tick()
            yield parcel

    def take_in(self, parcel: Any) -> Any:
        self._tick()
        return self._partner.take_in(parcel)

    def _tick(self) -> None:
        if self._left == 0:
            raise _CutError
        self._left -= 1


class Meetings(RuleBasedStateMachine):
    """Five people with a registry each."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sync-machine-"))
        self.sides: list[Registry] = []
        self.everything: dict[str, Operation] = {}
        self.known: list[set[str]] = []
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(partners, "PARCEL", 2)

    @initialize()
    def begin(self) -> None:
        for number in range(5):
            place = self.folder / str(number)
            shutil.copytree(self.template, place)
            record = json.loads((place / "modelstore.json").read_text())
            (place / "modelstore.json").write_text(json.dumps(record | {"id": ids.new_id()}))
            self.sides.append(Registry(place, actor=f"p{number}@host", cache=self.folder / "cache"))
            self.known.append(set())

    def partner(self, side: int) -> Partner:
        return RegistryPartner(self.sides[side])

    def _note(self, side: int) -> None:
        for _, operation in self.sides[side].operations():
            self.everything[operation.stamp] = operation
            self.known[side].add(operation.stamp)

    def _change(self, side: int, action: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            wall = ids.now_ms
            patch.setattr(ids, "now_ms", lambda: wall() + _SKEWS[side])
            with suppress(ModelStoreError):
                action(self.sides[side].models)
        self._note(side)

    def _models(self, side: int) -> list[str]:
        return [row[0] for row in self.sides[side].database.all("SELECT id FROM models ORDER BY id")]

    @rule(side=_SIDES, name=_NAMES, project=st.none() | st.sampled_from(["vision", "text"]))
    def create(self, side: int, name: str, project: str | None) -> None:
        self._change(side, lambda models: models.create(name=name, project=project, uri="s3://b/1", tags=["new"]))

    @rule(side=_SIDES, data=st.data())
    def edit(self, side: int, data: st.DataObject) -> None:
        models = self._models(side)
        if not models:
            return
        model = data.draw(st.sampled_from(models))
        what = data.draw(
            st.sampled_from(["name", "labels", "tag", "untag", "meta", "publish", "delete", "restore", "archive"])
        )
        name = data.draw(_NAMES)
        actions = {
            "name": lambda m: m.edit(model, name=name),
            "labels": lambda m: m.edit(model, labels={name: 1}),
            "tag": lambda m: m.tag(model, add=[name]),
            "untag": lambda m: m.tag(model, remove=[name]),
            "meta": lambda m: m.set_metadata(model, {"k": (None, name)}),
            "publish": lambda m: m.publish(model),
            "delete": lambda m: m.delete(model),
            "restore": lambda m: m.restore(model),
            "archive": lambda m: m.archive(model),
        }
        self._change(side, actions[what])

    @rule(side=_SIDES, names=st.lists(_NAMES, min_size=2, max_size=3))
    def transaction(self, side: int, names: list[str]) -> None:
        def action(models: Any) -> None:
            with self.sides[side].transaction():
                for name in names:
                    models.create(name=name)

        self._change(side, action)

    @rule(side=_SIDES, take=st.integers(0, 1) | st.none())
    def resolve(self, side: int, take: int | None) -> None:
        found = self.sides[side].conflicts.open()
        if found:
            self._change(side, lambda _: self.sides[side].conflicts.resolve(found[0].id, take=take))

    @rule(
        one=_SIDES,
        other=_SIDES,
        direction=st.sampled_from(["both", "push", "pull"]),
        only=st.none() | st.fixed_dictionaries({"project": st.just("vision")}),
        cut=st.none() | st.integers(0, 4),
    )
    def meet(self, one: int, other: int, direction: Any, only: dict[str, str] | None, cut: int | None) -> None:
        if one == other:
            return
        partner = self.partner(other)
        line: Any = partner if cut is None else _Cut(partner, cut)
        with suppress(_CutError):
            sync(self.sides[one], line, direction=direction, only=only)
        partner.close()
        self._note(one)
        self._note(other)

    @precondition(lambda self: self.sides)
    @invariant()
    def nobody_claims_what_he_has_not(self) -> None:
        for registry, known in zip(self.sides, self.known, strict=True):
            heads = read_heads(registry.database.connection)
            strays = set(read_strays(registry.database.connection))
            for stamp in self.everything:
                assert (stamp in known) == (stamp <= heads.get(stamp[16:], "") or stamp in strays)

    def teardown(self) -> None:
        try:
            self._converge()
        finally:
            self.patch.undo()
            for registry in self.sides:
                registry.close()
            shutil.rmtree(self.folder)

    def _converge(self) -> None:
        if not self.sides:
            return
        for _ in range(2):
            for other in range(1, 5):
                with closing(self.partner(other)) as partner:
                    sync(self.sides[0], partner)
        expected = fold(self.everything.values())
        for registry in self.sides:
            assert {o.stamp for _, o in registry.operations()} == self.everything.keys()
            assert read_index(registry.database.connection) == expected
            assert read_strays(registry.database.connection) == []
        for other in range(1, 5):
            with closing(self.partner(other)) as partner:
                assert sync(self.sides[0], partner).nothing


class MeetingsOfServers(Meetings):
    """Everybody runs a server over his registry, and asks those of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.servers = Servers()

    def partner(self, side: int) -> Partner:
        return HttpPartner(self.servers.url(self.sides[side].folder))

    def teardown(self) -> None:
        with self.servers:
            super().teardown()


def test_registries_that_meet_in_any_way_end_equal(tmp_path: Path) -> None:
    """To each other, and to the fold of all operations over plain dictionaries; conflicts included."""
    with Registry(tmp_path / "template"):
        pass
    Meetings.template = tmp_path / "template"
    run_state_machine_as_test(Meetings)


@pytest.mark.parametrize("examples", [3, pytest.param(200, marks=pytest.mark.long)])
def test_registries_that_meet_through_servers_end_equal(tmp_path: Path, examples: int) -> None:
    """The same, on real sockets."""
    pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
    with Registry(tmp_path / "template"):
        pass
    Meetings.template = tmp_path / "template"
    run_state_machine_as_test(
        MeetingsOfServers, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None)
    )
