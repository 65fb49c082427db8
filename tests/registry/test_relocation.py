"""Moving weights: every address follows, published models stay what they were, and the journal stays right."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelstore.errors import BlobNotFoundError, CorruptRegistryError, IntegrityError, InvalidRequestError
from modelstore.registry import Registry, open_registry
from modelstore.registry.inspecting import inspect_model
from modelstore.registry.registration import register_files
from modelstore.registry.relocation import Redirects, relocate, relocated
from modelstore.storage.filesystems import open_filesystem


@pytest.fixture
def registry() -> Iterator[Registry]:
    with open_registry() as opened:
        yield opened


@pytest.fixture
def stored(registry: Registry, tmp_path: Path) -> Callable[..., str]:
    """Register a file that is sent to a destination; return the model's id."""

    def store(name: str, destination: str) -> str:
        (tmp_path / name).write_bytes(name.encode() * 100)
        return register_files(registry, tmp_path / name, name=name, destination=destination).id

    return store


def bring(registry: Registry, model_id: str) -> bytes:
    return registry.weights.local_copy(registry.models.get(model_id)).read_bytes()


def moved(old: str, new: str) -> None:
    """Move what lies there, as somebody's tool would."""
    fs, path = open_filesystem(old)
    _, target = open_filesystem(new)
    fs.mv(path, target, recursive=True)


def forget_copies(registry: Registry) -> None:
    for entry in registry.weights.cache.ls():
        registry.weights.cache.release(entry.digest)
    registry.weights.cache.clear()


@pytest.mark.parametrize(
    ("uri", "old", "new", "result"),
    [
        ("s3://a/m/x.pt", "s3://a/m", "gs://b", "gs://b/x.pt"),
        ("s3://a/m/x.pt", "s3://a/m/", "gs://b/", "gs://b/x.pt"),
        ("s3://a/m/x.pt", "s3://a/m/x.pt", "s3://a/m/y.pt", "s3://a/m/y.pt"),
        ("s3://a/models/x.pt", "s3://a/m", "gs://b", None),
        ("s3://a/x", "s3://a/x/y", "gs://b", None),
        ("zip://x.pt::s3://a/m/x.zip", "s3://a/m", "s3://b", "zip://x.pt::s3://b/x.zip"),
        ("s3://a/x?y=s3://a", "s3://a", "s3://b", "s3://b/x?y=s3://a"),
        ("file:///mnt/a%20b/x", "file:///mnt/a%20b", "s3://b", "s3://b/x"),
    ],
)
def test_whole_components_at_the_beginning_are_replaced(uri: str, old: str, new: str, result: str | None) -> None:
    """`models` does not begin with `m`."""
    assert relocated(uri, old, new) == result


def test_every_kind_of_address_follows(registry: Registry, tmp_path: Path) -> None:
    """Models, tasks, projects; what only looks alike stays, and so does what was removed."""
    kept = registry.models.create(name="other", uri="s3://old-bucket-2/x.pt")
    model = registry.models.create(name="m", uri="s3://old-bucket/a/x.pt", project="p/q")
    gone = registry.models.create(name="gone", uri="s3://old-bucket/gone.pt")
    registry.models.delete(gone.id)
    task = registry.tasks.create(name="t", project="p/q", output_uri="s3://old-bucket")
    before = len(list(registry.operations()))
    plan = relocate(registry, "s3://old-bucket", "gs://new/place", dry_run=True)
    assert len(list(registry.operations())) == before
    done = relocate(registry, "s3://old-bucket", "gs://new/place")

    assert [(m.kind, m.id, m.old, m.new) for m in done.moves] == [
        ("model", model.id, "s3://old-bucket/a/x.pt", "gs://new/place/a/x.pt"),
        ("task", task.id, "s3://old-bucket", "gs://new/place"),
    ]
    assert (plan.moves, plan.dry_run, done.dry_run) == (done.moves, True, False)
    assert registry.models.get(model.id).uri == "gs://new/place/a/x.pt"
    assert registry.models.get(kept.id).uri == "s3://old-bucket-2/x.pt"
    assert registry.models.get(gone.id, deleted=True).uri == "s3://old-bucket/gone.pt"
    assert registry.tasks.get(task.id).output_uri == "gs://new/place"
    assert relocate(registry, "s3://old-bucket", "gs://new/place").moves == ()
    assert registry.models.history(model.id)[-1].old == "s3://old-bucket/a/x.pt"
    assert registry.check(deep=True) == []


def test_weights_are_found_at_the_new_place_and_still_verified(registry: Registry, stored: Callable[..., str]) -> None:
    """The digest goes along; wrong bytes there are refused."""
    model = stored("a.pt", "memory://move-1/old")
    digest = registry.models.get(model).digest
    moved("memory://move-1/old", "memory://move-1/new")
    with pytest.raises(BlobNotFoundError):
        bring(registry, model)
    relocate(registry, "memory://move-1/old", "memory://move-1/new", check=True)

    assert bring(registry, model) == b"a.pt" * 100
    assert registry.models.get(model).digest == digest
    forget_copies(registry)
    fs, path = open_filesystem(str(registry.models.get(model).uri))
    fs.pipe_file(path, b"evil" * 100)
    with pytest.raises(IntegrityError):
        bring(registry, model)


def test_a_published_model_keeps_its_address_and_is_read_from_the_new_place(
    registry: Registry, stored: Callable[..., str]
) -> None:
    """What was published cannot change, here or anywhere; where it lies today is known beside the journal."""
    model = stored("b.pt", "memory://move-2/old")
    registry.models.publish(model)
    published = registry.models.get(model)
    before = [operation for _, operation in registry.operations()]
    moved("memory://move-2/old", "memory://move-2/mid")
    relocate(registry, "memory://move-2/old", "memory://move-2/mid")
    moved("memory://move-2/mid", "memory://move-2/end")
    done = relocate(registry, "memory://move-2/mid", "memory://move-2/end", check=True)

    assert [(move.kind, move.old.split("/")[3], move.new.split("/")[3]) for move in done.moves] == [
        ("published model", "mid", "end")
    ]
    assert [operation for _, operation in registry.operations()] == before
    assert registry.models.get(model) == published
    assert bring(registry, model) == b"b.pt" * 100
    address = str(registry.weights.address(published))
    assert address.startswith("memory://move-2/end/")
    found = registry.models.by_uri(address)
    assert found is not None
    assert found.id == model
    assert registry.check(deep=True) == []


def test_checking_first_changes_nothing_when_something_is_missing(
    registry: Registry, stored: Callable[..., str]
) -> None:
    """A half-finished copy is the usual reason."""
    one, two = stored("c.pt", "memory://move-3/old"), stored("d.pt", "memory://move-3/old")
    fs, path = open_filesystem(str(registry.models.get(one).uri).replace("/old/", "/new/"))
    fs.pipe_file(path, b"c.pt" * 100)
    _, path = open_filesystem(str(registry.models.get(two).uri).replace("/old/", "/new/"))
    with pytest.raises(BlobNotFoundError, match="1 of 2"):
        relocate(registry, "memory://move-3/old", "memory://move-3/new", check=True)
    fs.pipe_file(path, b"short")
    with pytest.raises(IntegrityError, match="5 bytes"):
        relocate(registry, "memory://move-3/old", "memory://move-3/new", check=True)

    assert "/old/" in str(registry.models.get(one).uri)


def test_local_folders_move_too(registry: Registry, stored: Callable[..., str], tmp_path: Path) -> None:
    """Paths and file URIs are one; spaces are written as they are."""
    model = stored("e.pt", str(tmp_path / "old place"))
    (tmp_path / "old place").rename(tmp_path / "new place")
    done = relocate(registry, str(tmp_path / "old place"), str(tmp_path / "new place"), check=True)

    assert len(done.moves) == 1
    assert bring(registry, model) == b"e.pt" * 100


def test_what_makes_no_sense_is_refused(registry: Registry) -> None:
    """The registry's own objects have no address to be rewritten."""
    for old, new in (
        ("s3://a", "s3://a/"),
        ("s3://a", "s3://a"),
        (str(registry.folder / "objects"), "s3://b"),
        ("s3://a", str(registry.folder)),
        ("zip://x::s3://a/b.zip", "s3://b"),
        ("", "s3://b"),
        ("/", "s3://b"),
        ("s3://me:secret@a", "s3://b"),
        ("s3://a", "s3://b?token=secret"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            relocate(registry, old, new)
        assert "secret" not in str(caught.value)


def test_a_damaged_file_of_redirects_is_told(registry: Registry) -> None:
    """Not taken for an empty one: models would be looked for at the wrong place."""
    redirects = Redirects(registry.folder)
    redirects.add("s3://a", "s3://b", "2")
    assert json.loads((registry.folder / "redirects.json").read_text())["moves"] == [["s3://a", "s3://b", "2"]]
    assert [redirects("s3://a/x", published) for published in "123"] == ["s3://b/x", "s3://b/x", "s3://a/x"]
    (registry.folder / "redirects.json").write_text("{}")

    with pytest.raises(CorruptRegistryError, match="redirects"):
        redirects("s3://a/x", "1")


def test_what_is_published_at_the_old_place_after_a_move_is_read_there(registry: Registry, tmp_path: Path) -> None:
    """Without a digest nothing else would notice that it got the bytes of another model."""
    old, new = tmp_path / "old", tmp_path / "new"
    ids = {}
    for step in ("before", "after", "at last"):
        old.mkdir(exist_ok=True)
        (old / "w.bin").write_bytes(step.encode())
        ids[step] = registry.models.create(name=step, uri=(old / "w.bin").as_uri()).id
        registry.models.publish(ids[step])
        if step == "after":
            new = tmp_path / "newer"
        if step != "at last":
            old.rename(new)
            relocate(registry, str(old), str(new))

    assert {step: bring(registry, one) for step, one in ids.items()} == {step: step.encode() for step in ids}
    for place, step in ((tmp_path / "new", "before"), (tmp_path / "newer", "after"), (old, "before")):
        found = registry.models.by_uri((place / "w.bin").as_uri())
        assert found is not None
        assert found.name == step


def test_what_was_published_elsewhere_by_somebody_who_did_not_know_of_the_move_is_found(
    registry: Registry, tmp_path: Path
) -> None:
    """A laptop was offline while the team moved its bucket; its publication, with the old address, is for good."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "w.npy").write_bytes(npy())
    model = registry.models.create(name="n", uri=(old / "w.npy").as_uri()).id
    with Registry(tmp_path / "laptop") as laptop:
        laptop.ingest([operation for _, operation in registry.operations()])
        old.rename(new)
        relocate(registry, str(old), str(new))
        laptop.models.publish(model)
        registry.ingest([operation for _, operation in laptop.operations()])
    record = registry.models.get(model)

    assert (record.published, record.uri) == (True, (old / "w.npy").as_uri())
    assert bring(registry, model) == npy()
    with registry.weights.open(record) as stream:
        assert stream.read() == npy()
    assert inspect_model(registry, record).parameters == 2
    old.mkdir()
    (old / "w.npy").write_bytes(b"published where it says after all")
    assert bring(registry, model) == b"published where it says after all"


def npy() -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


def test_going_to_and_fro_does_not_multiply_the_former_addresses(registry: Registry) -> None:
    """They would double with each time."""
    redirects = Redirects(registry.folder)
    for number in range(40):
        redirects.add(*(("s3://a", "s3://b") if number % 2 == 0 else ("s3://b", "s3://a")), f"{number:02}")

    assert redirects.formerly("s3://a/x") == ["s3://b/x"]


def test_an_unfinished_upload_goes_to_the_new_place(registry: Registry, tmp_path: Path) -> None:
    """A failed one is what moved its owner to do this."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sha256").write_text("in the way")
    from modelstore import OutputModel, Task
    from modelstore.errors import UploadError
    from modelstore.sdk import _context

    (tmp_path / "f.pt").write_bytes(b"f")
    task = Task.init("p", "t")
    model = OutputModel(task)
    model.update_weights(tmp_path / "f.pt", upload_uri=tmp_path / "out")
    with pytest.raises(UploadError):
        OutputModel.wait_for_uploads()
    done = relocate(registry, str(tmp_path / "out"), str(tmp_path / "free"))
    assert [move.kind for move in done.moves] == ["upload"]
    registry.weights.uploads.resume()

    assert bring(registry, str(model.id)) == b"f"
    task.close()
    _context.forget_default()
