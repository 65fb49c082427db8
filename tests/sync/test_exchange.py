"""Two registries that meet: each has what the other had, whatever happened before, and whatever cuts them off."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstore.errors import BlobNotFoundError, IntegrityError, InvalidRequestError, RegistryNotFoundError
from modelstore.index.heads import read_heads, read_strays
from modelstore.registry import Registry
from modelstore.registry.conflicts import Conflicts
from modelstore.registry.search import ModelSearch
from modelstore.sync import Partner, RegistryPartner, SyncResult, open_partner, sync
from modelstore.sync.http import HttpPartner
from modelstore.testing import faults
from modelstore.testing.reference import fold, read_index
from modelstore.testing.servers import Servers


@pytest.fixture
def ann(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "ann", actor="ann@laptop", cache=tmp_path / "cache") as registry:
        yield registry


@pytest.fixture
def bob(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "bob", actor="bob@desk", cache=tmp_path / "cache") as registry:
        yield registry


@pytest.fixture(autouse=True, params=["folder", "server"])
def road(request: pytest.FixtureRequest) -> Iterator[Road]:
    """Everything holds whether the other side is a folder or a server on a real socket."""
    if request.param == "server":
        pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
    with Servers() as servers:
        Road.current = Road(servers if request.param == "server" else None)
        yield Road.current
        Road.current.close()


class Road:
    """How the other side is reached."""

    current: Road

    def __init__(self, servers: Servers | None) -> None:
        self.servers = servers
        self._partners: list[HttpPartner] = []

    def to(self, other: Registry) -> Partner:
        if self.servers is None:
            return RegistryPartner(other)
        self._partners.append(HttpPartner(self.uri(other)))
        return self._partners[-1]

    def uri(self, other: Registry) -> str:
        return other.uri if self.servers is None else self.servers.url(other.folder)

    def close(self) -> None:
        for partner in self._partners:
            partner.close()


def meet(one: Registry, other: Registry, **options: object) -> SyncResult:
    return sync(one, Road.current.to(other), **options)  # type: ignore[arg-type]


def state(registry: Registry) -> object:
    return read_index(registry.database.connection)


def kept_at(registry: Registry, model: str) -> Path:
    """Return where the registry keeps a model's bytes."""
    path = registry.weights.objects.find(str(registry.models.get(model).digest))
    assert path is not None
    return path


def stored(registry: Registry, folder: Path, text: str, **fields: object) -> str:
    file = folder / f"{text}.pt"
    file.write_bytes(text.encode())
    objects = registry.weights.objects
    uri = objects.put(*objects.snapshot(file), file.name)
    return registry.models.create(uri=uri, **fields).id  # type: ignore[arg-type]


def names(registry: Registry) -> list[str]:
    return sorted(str(model.name) for model in ModelSearch().run(registry))


def test_two_registries_that_grew_apart_become_one(ann: Registry, bob: Registry, tmp_path: Path) -> None:
    """First contact after months of separate use, both ways at once."""
    mine = stored(ann, tmp_path, "one", name="one", project="vision", tags=["prod"])
    his = stored(bob, tmp_path, "two", name="two", project="vision")

    result = meet(ann, bob)

    assert state(ann) == state(bob) == fold(o for _, o in ann.operations())
    assert (result.sent.objects, result.received.objects, result.conflicts) == (1, 1, [])
    assert ann.weights.local_copy(ann.models.get(his)).read_bytes() == b"two"
    assert bob.weights.local_copy(bob.models.get(mine)).read_bytes() == b"one"
    assert read_heads(ann.database.connection) == read_heads(bob.database.connection)
    assert len(read_heads(ann.database.connection)) == 2


def test_a_second_exchange_moves_nothing(ann: Registry, bob: Registry, tmp_path: Path) -> None:
    """Whoever asks, and in whatever direction."""
    stored(ann, tmp_path, "one", name="one")
    meet(ann, bob)
    before = [list(ann.operations()), list(bob.operations())]

    again = [meet(ann, bob), meet(bob, ann), meet(ann, bob, direction="push"), meet(ann, bob, with_objects="none")]

    assert all(result.nothing for result in again)
    assert [list(ann.operations()), list(bob.operations())] == before


def test_operations_travel_on_through_whoever_has_them(ann: Registry, bob: Registry, tmp_path: Path) -> None:
    """Ann and Cid never meet."""
    stored(ann, tmp_path, "one", name="one")
    with Registry(tmp_path / "cid", cache=tmp_path / "cache") as cid:
        meet(ann, bob)
        meet(bob, cid)

        assert state(cid) == state(ann)
        assert read_heads(cid.database.connection) == read_heads(ann.database.connection)


def test_push_and_pull_go_one_way(ann: Registry, bob: Registry) -> None:
    """What the other side has is left alone."""
    ann.models.create(name="one")
    bob.models.create(name="two")

    assert meet(ann, bob, direction="push").received.operations == 0
    assert names(ann) == ["one"]
    assert len(names(bob)) == 2
    assert meet(ann, bob, direction="pull").received.operations == 1
    assert state(ann) == state(bob)


def test_a_dry_run_says_what_would_move_and_moves_nothing(ann: Registry, bob: Registry) -> None:
    """Also nothing is noted."""
    ann.models.create(name="one")
    bob.models.create(name="two")
    bob.models.create(name="three")
    before = [state(ann), state(bob)]

    result = meet(ann, bob, dry_run=True)

    assert (result.sent.operations, result.received.operations, result.dry_run) == (1, 2, True)
    assert [state(ann), state(bob)] == before
    assert not meet(ann, bob).nothing


def test_a_conflict_is_told_with_both_values_and_settled_on_both_sides(ann: Registry, bob: Registry) -> None:
    """Ann and Bob rename one model; Ann decides; Bob learns of it."""
    model = ann.models.create(name="first").id
    meet(ann, bob)
    ann.models.edit(model, name="ann's")
    bob.models.edit(model, name="bob's")

    (conflict,) = meet(ann, bob).conflicts

    assert (conflict.key, conflict.before, conflict.entity) == ("name", "first", model)
    assert {(b.value, b.actor, b.ours, b.stands) for b in conflict.branches} == {
        ("ann's", "ann@laptop", True, False),
        ("bob's", "bob@desk", False, True),
    }
    assert Conflicts(bob).count() == 1
    Conflicts(ann).resolve(conflict.id, take=[b.value for b in conflict.branches].index("ann's"))
    assert (ann.models.get(model).name, Conflicts(ann).count()) == ("ann's", 0)
    assert meet(bob, ann).conflicts == []
    assert (bob.models.get(model).name, Conflicts(bob).count()) == ("ann's", 0)
    assert state(ann) == state(bob) == fold(o for _, o in bob.operations())


def test_edits_of_different_things_are_no_conflict(ann: Registry, bob: Registry) -> None:
    """Fields, tags and metadata merge one by one."""
    model = ann.models.create(name="first").id
    meet(ann, bob)
    ann.models.edit(model, comment="ann's")
    ann.models.tag(model, add=["a"])
    bob.models.tag(model, add=["b"])
    bob.models.set_metadata(model, {"accuracy": (None, 0.5)})

    assert meet(ann, bob).conflicts == []
    record = bob.models.get(model)
    assert (record.comment, sorted(record.tags)) == ("ann's", ["a", "b"])


def test_a_published_value_can_only_be_kept(ann: Registry, bob: Registry) -> None:
    """Ann publishes while Bob changes the labels: the publication stands, and says so."""
    model = ann.models.create(name="m", uri="s3://bucket/m.pt", labels={"cat": 1}).id
    meet(ann, bob)
    ann.models.publish(model)
    bob.models.edit(model, labels={"dog": 1})

    (conflict,) = meet(ann, bob).conflicts

    theirs = next(i for i, b in enumerate(conflict.branches) if not b.stands)
    with pytest.raises(InvalidRequestError, match="published"):
        Conflicts(bob).resolve(conflict.id, take=theirs)
    Conflicts(bob).resolve(conflict.id)
    assert Conflicts(bob).count() == 0
    assert bob.models.get(model).labels == {"cat": 1}
    meet(bob, ann)
    assert state(ann) == state(bob)


def test_an_edit_that_a_removal_did_not_know_of_is_told(ann: Registry, bob: Registry) -> None:
    """It can be brought back, or stay removed."""
    model = ann.models.create(name="m").id
    meet(ann, bob)
    ann.models.delete(model)
    bob.models.edit(model, comment="look at this one")

    (conflict,) = meet(ann, bob).conflicts

    assert conflict.key == "deleted"
    with pytest.raises(InvalidRequestError, match="restore"):
        Conflicts(ann).resolve(conflict.id, take=0)
    Conflicts(ann).resolve(conflict.id)
    assert Conflicts(ann).count() == 0


def test_only_what_is_asked_for_goes_and_the_rest_follows_later(ann: Registry, bob: Registry, tmp_path: Path) -> None:
    """A limited exchange must not make the next one believe that everything has arrived."""
    stored(ann, tmp_path, "one", name="one", project="vision")
    stored(ann, tmp_path, "two", name="two", project="text")

    limited = meet(ann, bob, only={"project": "vision"})

    assert names(bob) == ["one"]
    assert limited.sent.objects == 1
    assert read_heads(bob.database.connection) == {}
    assert len(read_strays(bob.database.connection)) == limited.sent.operations
    rest = meet(ann, bob)
    assert rest.sent.objects == 1
    assert state(ann) == state(bob)
    assert read_strays(bob.database.connection) == []


def test_what_came_by_itself_is_passed_on_by_itself(ann: Registry, bob: Registry, tmp_path: Path) -> None:
    """Cid gets from Bob the one model that Bob has of Ann, and still gets the rest from Ann."""
    ann.models.create(name="one", project="vision")
    ann.models.create(name="two", project="text")
    with Registry(tmp_path / "cid", cache=tmp_path / "cache") as cid:
        meet(ann, bob, only={"name": "two"})
        meet(bob, cid)

        assert names(cid) == ["two"]
        assert meet(bob, cid).nothing
        meet(ann, cid)
        assert state(cid) == state(ann)


@pytest.mark.parametrize(("which", "expected"), [("all", 2), ("published", 1), ("none", 0), ("wanted", 1)])
def test_bytes_go_along_as_far_as_they_are_wanted(
    ann: Registry, bob: Registry, tmp_path: Path, which: str, expected: int
) -> None:
    """Metadata of everything; bytes of all models, of published ones, of none, or of those the receiver works with."""
    published = stored(ann, tmp_path, "one", name="one")
    ann.models.publish(published)
    stored(ann, tmp_path, "two", name="two")
    meet(ann, bob, with_objects="none")
    bob.models.tag(published, add=["mine"])

    assert meet(ann, bob, with_objects=which).sent.objects == expected
    assert len(names(bob)) == 2


def test_bytes_that_nobody_has_are_named(ann: Registry, bob: Registry, tmp_path: Path) -> None:
    """And asked for again next time."""
    model = stored(ann, tmp_path, "one", name="one")
    path = kept_at(ann, model)
    kept = path.read_bytes()
    digest = ann.models.get(model).digest
    path.unlink()

    assert meet(ann, bob).sent.unavailable == [digest]
    path.write_bytes(kept)
    assert meet(ann, bob).sent.objects == 1


def test_damaged_bytes_are_not_taken(ann: Registry, bob: Registry, tmp_path: Path) -> None:
    """The receiver compares digests; what came before stays."""
    model = stored(ann, tmp_path, "one", name="one")
    path = kept_at(ann, model)
    path.chmod(0o644)
    path.write_bytes(b"eno")

    with pytest.raises(IntegrityError, match="digest"):
        meet(ann, bob)
    assert bob.models.get(model).name == "one"
    assert list(bob.weights.objects.iterate()) == []


def test_a_transaction_arrives_as_a_whole(ann: Registry, bob: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parcels end where transactions end."""
    monkeypatch.setattr("modelstore.sync.partners.PARCEL", 1)
    with ann.transaction():
        for number in range(5):
            ann.models.create(name=f"m{number}")
    ann.models.create(name="alone")
    partner = Road.current.to(ann)
    known = Road.current.to(bob).knowledge()

    sizes = [len(parcel.operations) for parcel in partner.parcels(known, partner.knowledge())]

    assert sizes == [5, 1, 0]


def test_a_transaction_of_which_a_part_is_there_holds_nothing_up(
    ann: Registry, bob: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What follows on it comes in parcels like anything else, wherever the transaction begins in what is read."""
    monkeypatch.setattr("modelstore.sync.partners.PARCEL", 3)
    bob.models.create(name="earlier")
    with ann.transaction():
        for number in range(3):
            ann.models.create(name=f"first{number}", project="vision" if number == 1 else None)
    meet(ann, bob, only={"project": "vision"})
    with Registry(tmp_path / "cyd", actor="cyd@x") as cyd:
        meet(cyd, bob)
        for number in range(9):
            ann.models.create(name=f"later{number}")

        for other in (bob, cyd):
            partner = RegistryPartner(ann)
            parcels = list(partner.parcels(RegistryPartner(other).knowledge(), partner.knowledge()))
            assert max(len(parcel.operations) for parcel in parcels) <= 5
        meet(ann, bob)
        assert read_index(ann.database.connection) == read_index(bob.database.connection)


@pytest.mark.parametrize("road", ["folder"], indirect=True)
@pytest.mark.parametrize("step", ["sync.exchange.1", "sync.exchange.2#2", "sync.exchange.3#2", "sync.exchange.4"])
def test_an_exchange_that_is_killed_goes_on_where_it_was(
    ann: Registry, bob: Registry, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its steps; afterwards both are whole, and the next exchange does the rest."""
    monkeypatch.setattr("modelstore.sync.partners.PARCEL", 2)
    for number in range(6):
        stored(ann, tmp_path, f"a{number}", name=f"a{number}")
        stored(bob, tmp_path, f"b{number}", name=f"b{number}")
    child = os.fork()
    if child == 0:
        monkeypatch.setenv("MODELSTORE_FAULTS", f"{step}=kill")
        faults.install()
        meet(ann, bob)
        os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    for registry in (ann, bob):
        assert state(registry) == fold(o for _, o in registry.operations())
    meet(ann, bob)
    assert state(ann) == state(bob)
    assert len(list(ann.weights.objects.iterate())) == len(list(bob.weights.objects.iterate())) == 12
    assert meet(bob, ann).nothing


@pytest.mark.parametrize("road", ["folder"], indirect=True)
def test_a_registry_is_not_synced_with_itself(ann: Registry) -> None:
    """It would do nothing, slowly; somebody has mistaken a path."""
    with pytest.raises(InvalidRequestError, match="itself"):
        meet(ann, ann)


@pytest.mark.parametrize("road", ["folder"], indirect=True)
def test_where_there_is_no_registry_none_is_made(ann: Registry, tmp_path: Path) -> None:
    """A wrong path must not look like an empty remote."""
    with pytest.raises(RegistryNotFoundError, match="init"):
        open_partner(str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_a_removal_of_a_published_model_knew_of_the_publication(ann: Registry, bob: Registry) -> None:
    """The same person published and removed it: no conflict, neither here nor where it arrives."""
    model = ann.models.create(name="m", uri="s3://bucket/m.pt").id
    ann.models.publish(model)
    ann.models.delete(model)

    assert meet(ann, bob).conflicts == []
    assert state(ann) == state(bob) == fold(o for _, o in ann.operations())


def test_bytes_that_stayed_behind_come_when_they_are_asked_for(ann: Registry, bob: Registry, tmp_path: Path) -> None:
    """From the first remote that has them, verified; without one, the error says what to do."""
    model = stored(ann, tmp_path, "one", name="one")
    meet(ann, bob, with_objects="none")
    with pytest.raises(BlobNotFoundError, match="remote add"):
        bob.weights.local_copy(bob.models.get(model))
    bob.remotes.add("away", str(tmp_path / "nowhere"))
    bob.remotes.add("team", Road.current.uri(ann))

    assert bob.weights.local_copy(bob.models.get(model)).read_bytes() == b"one"
    assert [f for f in bob.check(deep=True) if f.severity == "error"] == []


def test_damaged_bytes_of_a_remote_are_not_taken_when_asked_for(ann: Registry, bob: Registry, tmp_path: Path) -> None:
    """They are missing here, and stay so."""
    model = stored(ann, tmp_path, "one", name="one")
    path = kept_at(ann, model)
    meet(ann, bob, with_objects="none")
    path.chmod(0o644)
    path.write_bytes(b"eno")
    bob.remotes.add("team", Road.current.uri(ann))

    with pytest.raises(BlobNotFoundError):
        bob.weights.local_copy(bob.models.get(model))
    assert list(bob.weights.objects.iterate()) == []


def test_a_program_is_told_how_far_an_exchange_has_got(ann: Registry, bob: Registry, road: Road) -> None:
    ann.models.create_many({"name": f"m{number}"} for number in range(20))
    told: list[tuple[str, int, int | None]] = []
    ann.sync(road.uri(bob), direction="push", progress=lambda *news: told.append(news))
    assert told[-1] == ("sending changes", 20, None)
