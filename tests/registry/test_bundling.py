"""Models in one file and out of it: whole, once, and checked before anything changes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import (
    IntegrityError,
    InvalidOperationError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelStoreError,
    StorageFullError,
)
from modelstore.ids import make_stamp, new_id
from modelstore.index.contents import read_index
from modelstore.journal import Draft
from modelstore.registry import Registry, open_registry
from modelstore.registry.reports import Place
from modelstore.testing import faults
from tests.registry.keeping import digest_of, killed_at, object_files, register


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with a model that has everything, and another."""
    with open_registry(tmp_path / "registry", actor="ann") as opened:
        model = register(opened, b"first", "one", project="vision/ocr", tags=["a"], metadata={"iou": 0.5})
        task = opened.tasks.create(name="training", project="vision")
        opened.commit([Draft("task", task.id, "edit", {"link:output:best": model.id})])
        opened.models.tag(model.id, add=["prod"])
        opened.models.publish(model.id)
        opened.reports.file(Place("model", model.id, "t", "s", 0), "image", b"picture", "x.png")
        opened.reports.scalar("model", model.id, "val", "iou", 0.5, 1)
        opened.reports.scalar("task", task.id, "val", "iou", 0.5, 1)
        register(opened, b"other", "other")
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Registry]:
    """Where bundles are taken in."""
    with open_registry(tmp_path / "other", actor="bob") as opened:
        yield opened


def _id(registry: Registry, name: str = "one") -> str:
    return str(registry.database.all("SELECT id FROM models WHERE name = ?", (name,))[0][0])


def _state(registry: Registry) -> tuple[Any, list[Path]]:
    return read_index(registry.database.connection), object_files(registry.folder)


def test_a_model_arrives_with_all_that_belongs_to_it(registry: Registry, other: Registry, tmp_path: Path) -> None:
    """Bytes, history with its actors, reports, tags, publication, its task and project; and nothing else."""
    model_id = _id(registry)
    written = registry.export_models([model_id], tmp_path / "m")
    taken = other.import_models(tmp_path / "m")

    assert (written.models, written.objects, written.missing) == (1, 2, ())
    assert taken.models == (model_id,)
    assert taken.operations == written.operations
    assert taken.objects == 2
    assert other.models.get(model_id) == registry.models.get(model_id)
    assert other.models.history(model_id) == registry.models.history(model_id)
    assert {entry.actor for entry in other.models.history(model_id)} == {"ann"}
    assert other.weights.local_copy(other.models.get(model_id)).read_bytes() == b"first"
    assert [link.name for link in other.models.links(model_id)] == ["best"]
    assert [row[0] for row in other.database.all("SELECT name FROM models")] == ["one"]
    assert not other.fsck(deep=True).findings


def test_importing_again_changes_nothing(registry: Registry, other: Registry, tmp_path: Path) -> None:
    """Nor does importing into the registry that it came from."""
    registry.export_models([_id(registry)], tmp_path / "m")
    other.import_models(tmp_path / "m")
    for one in (other, registry):
        before = _state(one)
        again = one.import_models(tmp_path / "m")
        assert (again.operations, again.objects) == (0, 0)
        assert again.known > 0
        assert _state(one) == before


def test_both_histories_become_one(registry: Registry, other: Registry, tmp_path: Path) -> None:
    """A bundle that goes back brings what was changed there; a later sync finds nothing new."""
    model_id = _id(registry)
    registry.export_models([model_id], tmp_path / "there")
    other.import_models(tmp_path / "there")
    other.models.tag(model_id, add=["seen"])
    registry.models.edit(model_id, comment="meanwhile")
    other.export_models([model_id], tmp_path / "back")
    taken = registry.import_models(tmp_path / "back")

    assert taken.operations == 1
    assert set(registry.models.get(model_id).tags) == {"a", "prod", "seen"}
    assert registry.models.get(model_id).comment == "meanwhile"
    registry.sync(other.folder)
    assert registry.models.get(model_id) == other.models.get(model_id)


def test_bytes_that_are_elsewhere_stay_there(registry: Registry, tmp_path: Path) -> None:
    """And that is told; so is what is missing."""
    away = registry.models.create(name="away", uri="s3://bucket/net.pt").id
    for path in object_files(registry.folder):
        if path.read_bytes() == b"other":
            path.unlink()
    written = registry.export_models([away, _id(registry, "other")], tmp_path / "m")

    assert written.elsewhere == (away,)
    assert written.missing == (digest_of(b"other"),)


def test_damaged_bytes_are_not_passed_on(registry: Registry, tmp_path: Path) -> None:
    """No file is written then; nor for a model that is not there."""
    path = next(p for p in object_files(registry.folder) if p.read_bytes() == b"first")
    path.chmod(0o644)
    path.write_bytes(b"FIRST")
    with pytest.raises(IntegrityError):
        registry.export_models([_id(registry)], tmp_path / "m")
    with pytest.raises(ModelNotFoundError):
        registry.export_models([new_id()], tmp_path / "m")
    assert not [p for p in tmp_path.iterdir() if p.name == "m" or p.name.endswith(".part")]


@pytest.mark.parametrize("step", [f"bundling.import.{n}" for n in range(1, 4)] + ["objects.put.3"])
def test_a_killed_import_can_be_given_again(registry: Registry, other: Registry, tmp_path: Path, step: str) -> None:
    """What it leaves is at most bytes that nothing refers to."""
    registry.export_models([_id(registry)], tmp_path / "m")

    def work() -> None:
        with open_registry(other.folder) as opened:
            opened.import_models(tmp_path / "m")

    assert killed_at(step, work)
    assert not other.fsck(deep=True).damaged
    other.import_models(tmp_path / "m")
    assert not other.fsck(deep=True).damaged
    assert other.models.get(_id(registry)).published


def test_a_full_disk_changes_nothing(registry: Registry, other: Registry, tmp_path: Path) -> None:
    """No operation, no object, no left-over."""
    registry.export_models([_id(registry)], tmp_path / "m")
    before = _state(other)
    with faults.inject("objects.put.3", OSError(28, "No space left on device")), pytest.raises(StorageFullError):
        other.import_models(tmp_path / "m")

    assert _state(other) == before
    assert list((other.folder / "objects" / "tmp").iterdir()) == []


def test_bytes_collected_in_between_are_stored_again(registry: Registry, other: Registry, tmp_path: Path) -> None:
    """Between their publication and the transaction."""
    registry.export_models([_id(registry)], tmp_path / "m")
    with faults.inject("objects.put.4", lambda: other.weights.objects.remove(digest_of(b"first")), occurrence=2):
        other.import_models(tmp_path / "m")

    assert not other.fsck(deep=True).damaged


def _forge(source: Path, target: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None]) -> Path:
    """Write a bundle anew with changes; the list of contents is made to fit, as a forger would."""
    import hashlib

    with zipfile.ZipFile(source) as archive:
        held = {info.filename: archive.read(info) for info in archive.infolist()}
    manifest = json.loads(held.pop("manifest.json"))
    change(held, manifest)
    manifest["members"] = [[n, len(c), hashlib.sha256(c).hexdigest()] for n, c in held.items()]
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)
        archive.writestr("manifest.json", json.dumps(manifest))
    return target


def _with_operation(**changes: Any) -> Callable[[dict[str, bytes], dict[str, Any]], None]:
    def change(held: dict[str, bytes], _: dict[str, Any]) -> None:
        first = json.loads(held["operations.jsonl"].split(b"\n")[0])
        held["operations.jsonl"] += json.dumps(first | changes).encode() + b"\n"

    return change


def _other_bytes(held: dict[str, bytes], _: dict[str, Any]) -> None:
    held.update({name: b"poison" for name in held if name.startswith("objects/")})


def _uncalled_for(held: dict[str, bytes], _: dict[str, Any]) -> None:
    held[f"objects/{digest_of(b'x').removeprefix('sha256:')}/x"] = b"x"


def _path_trick(held: dict[str, bytes], _: dict[str, Any]) -> None:
    held["objects/../../../outside"] = b"x"


def _no_operations(held: dict[str, bytes], _: dict[str, Any]) -> None:
    del held["operations.jsonl"]


def _no_text(held: dict[str, bytes], _: dict[str, Any]) -> None:
    held["operations.jsonl"] = b"\xff\xfe\n"


def _cut_line(held: dict[str, bytes], _: dict[str, Any]) -> None:
    held["operations.jsonl"] = held["operations.jsonl"][:-10]


@pytest.mark.parametrize(
    "change",
    [
        _other_bytes,
        _uncalled_for,
        _path_trick,
        _no_operations,
        _no_text,
        _cut_line,
        _with_operation(stamp="x"),
        _with_operation(stamp=make_stamp(2**47, 0, "f" * 16)),
        _with_operation(action="explode"),
        _with_operation(changes={"uri": 1}),
    ],
)
def test_hostile_bundles_are_refused_before_anything_changes(
    registry: Registry, other: Registry, tmp_path: Path, change: Callable[..., None]
) -> None:
    """Bytes that are others, path tricks, broken operations, clocks of the far future."""
    registry.export_models([_id(registry)], tmp_path / "m")
    forged = _forge(tmp_path / "m", tmp_path / "forged", change)
    before = _state(other)
    with pytest.raises((IntegrityError, InvalidOperationError, InvalidRequestError)):
        other.import_models(forged)

    assert _state(other) == before
    assert not list((other.folder / "objects").rglob("tmp/*"))
    assert not (tmp_path / "outside").exists()


def test_what_is_no_bundle_is_told_as_such(registry: Registry, other: Registry, tmp_path: Path) -> None:
    """A backup, any file, none; and a registry that cannot be written takes nothing in."""
    registry.backup(tmp_path / "b")
    (tmp_path / "any").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    for path in (tmp_path / "b", tmp_path / "any", tmp_path / "none", tmp_path):
        with pytest.raises(ModelStoreError):
            other.import_models(path)
    registry.export_models([_id(registry)], tmp_path / "m")
    other.database.read_only = True
    with pytest.raises(ModelStoreError, match="read-only"):
        other.import_models(tmp_path / "m")
