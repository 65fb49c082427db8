"""`OutputModel`: from a draft to a registered model, and every way to give it weights."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from modelstore import Framework, InputModel, Model, OutputModel, Registry, Task
from modelstore.errors import (
    BlobNotFoundError,
    DownloadError,
    InvalidRequestError,
    MissingWeightsError,
    ModelNotFoundError,
    PublishedModelError,
    TaskClosedError,
)
from modelstore.sdk.output_model import Waitable

MakeFile = Callable[..., Path]
Unchanged = Callable[..., AbstractContextManager[None]]


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


# -- drafts -----------------------------------------------------------------------------------------------------------


def test_making_an_object_changes_nothing(task: Task, unchanged: Unchanged) -> None:
    """A script that stops before it has weights must leave no empty model behind."""
    with unchanged():
        model = OutputModel(task, name="n", tags=["a"], framework="PyTorch", label_enumeration={"cat": 1})
        model.comment = "c"
        model.add_tags("b")
        model.config_dict = {"layers": 3}
        model.project = "other"
        model.set_upload_destination("memory://bucket")

        assert model.id is None
        assert model.url is None
        assert not model.published
        assert not model.archived
        assert model.history() == []
        assert model.get_local_copy() is None


def test_a_draft_shows_what_it_will_be(task: Task, make_file: MakeFile) -> None:
    """What is read before registration is what is there after it."""
    task.set_model_label_enumeration({"bg": 0})
    task.set_model_config(config_dict={"depth": 2})
    model = OutputModel(task)
    model.tags = ["b", "a"]
    model.comment = "note"

    def shown() -> list[Any]:
        return [model.name, model.project, model.tags, model.labels, model.config_dict, model.task, model.original_task]

    before = shown()
    model.update_weights(make_file(), update_comment=False)

    assert shown() == before
    assert before[0] == "train"
    assert before[2:5] == [["a", "b"], {"bg": 0}, {"depth": 2}]
    assert model.comment == "note"


def test_a_draft_checks_what_it_is_given(task: Task, unchanged: Unchanged) -> None:
    """An error belongs to the line that made it, not to the end of the training."""
    model = OutputModel(task)
    with unchanged():
        for field, value in [("name", ""), ("name", 5), ("comment", 5), ("framework", 5), ("tags", "abc")]:
            with pytest.raises(InvalidRequestError):
                setattr(model, field, value)
        with pytest.raises(InvalidRequestError):
            model.update_labels({"a": "b"})  # type: ignore[dict-item]

    assert (model.name, model.comment, model.framework, model.tags) == ("train", None, None, [])


@pytest.mark.parametrize(
    "arguments",
    [
        {"config_text": "a", "config_dict": {"a": 1}},
        {"config_dict": ["a"]},
        {"label_enumeration": {"a": "1"}},
        {"label_enumeration": {1: 1}},
        {"tags": "abc"},
        {"tags": ["__$or"]},
        {"name": "a\0b"},
        {"name": "x" * 10_000},
        {"comment": 5},
        {"framework": 5},
    ],
)
def test_a_bad_argument_is_refused_when_the_object_is_made(task: Task, arguments: dict[str, Any]) -> None:
    """And by an error that is a ValueError, as ClearML's are."""
    with pytest.raises(InvalidRequestError):
        OutputModel(task, **arguments)


def test_without_a_task_the_current_one_is_taken(task: Task) -> None:
    """Examples write OutputModel(name=...) alone."""
    assert OutputModel(name="n").task == task.id


def test_without_any_task_it_is_a_clear_error() -> None:
    """ClearML's message, and its ValueError."""
    with pytest.raises(ValueError, match="no current task was found"):
        OutputModel()


def test_metadata_registers_a_draft_whole(task: Task) -> None:
    """Others never see a half-made model."""
    model = OutputModel(task, name="n", tags=["t"], comment="c")
    model.set_metadata("k", 1)
    found = Model(str(model.id))

    assert (found.name, found.tags, found.comment, found.get_metadata_casted("k")) == ("n", ["t"], "c", 1)
    assert [entry.action for entry in found.history() if entry.key == "name"] == ["create"]


def test_a_refused_change_registers_nothing(task: Task, unchanged: Unchanged) -> None:
    """A typo in a metadata key must not make an empty model."""
    model = OutputModel(task)
    with unchanged():
        with pytest.raises(InvalidRequestError):
            model.set_metadata("", 1)
        with pytest.raises(InvalidRequestError):
            model.set_all_metadata({"k": object()})
        with pytest.raises(MissingWeightsError):
            model.publish()
        with pytest.raises(InvalidRequestError):
            model.system_tags = ["__$x"]
        with pytest.raises(DownloadError):
            model.get_weights(raise_on_error=True)
        model.delete_metadata("k")

    assert model.id is None


def test_an_object_stays_in_its_set_when_it_is_registered(task: Task, make_file: MakeFile) -> None:
    """A hash that changes loses objects in sets and dictionaries."""
    model = OutputModel(task)
    kept = {model}
    model.update_weights(make_file())

    assert model in kept
    assert model == Model(str(model.id))
    assert hash(model) == hash(Model(str(model.id)))


# -- one file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_stored_with_digest_and_size(task: Task, make_file: MakeFile) -> None:
    """The model is its bytes; the user's file stays where it is."""
    path = make_file(content=b"0123456789")
    model = OutputModel(task)
    url = model.update_weights(str(path))

    assert (model.digest, model.size, model.framework) == (digest(b"0123456789"), 10, "PyTorch")
    assert url == model.url
    assert url is not None
    assert url.startswith("file:///")
    assert url.endswith("/best.pt")
    assert Path(str(model.get_local_copy())).read_bytes() == b"0123456789"
    assert path.read_bytes() == b"0123456789"
    assert model.comment == "snapshot best.pt stored"
    assert task.models.output[-1] == model
    assert task.models["output"]["best"].id == model.id


def test_paths_of_every_kind_are_welcome(task: Task, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """ClearML fails on a pathlib.Path."""
    path = make_file()
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    for one in (path, str(path), path.name, f"~/{path.name}", os.fsencode(path)):
        model = OutputModel(task)
        model.update_weights(one)  # type: ignore[arg-type]

        assert model.size == 7


def test_stored_bytes_are_those_of_the_moment_of_the_call(task: Task, make_file: MakeFile) -> None:
    """ClearML hands out the local file after it was overwritten."""
    path = make_file(content=b"one")
    model = OutputModel(task)
    model.update_weights(path)
    path.write_bytes(b"OVERWRITTEN LOCALLY")

    assert Path(str(model.get_weights())).read_bytes() == b"one"
    assert Path(str(Model(str(model.id)).get_local_copy())).read_bytes() == b"one"


def test_two_models_with_one_file_name_keep_their_bytes(task: Task, make_file: MakeFile) -> None:
    """In ClearML the second overwrites the first, and removing one deletes the other's."""
    one, two = OutputModel(task, name="one"), OutputModel(task, name="two")
    one.update_weights(make_file(content=b"1"))
    two.update_weights(make_file(content=b"22"))
    Model.remove(one)

    assert Path(str(two.get_local_copy())).read_bytes() == b"22"


def test_an_empty_file_is_a_file(task: Task, make_file: MakeFile) -> None:
    """ClearML can never fetch it back."""
    model = OutputModel(task)
    model.update_weights(make_file(content=b""))

    assert Path(str(model.get_local_copy(raise_on_error=True))).read_bytes() == b""
    assert model.size == 0


def test_the_next_weights_take_the_place_of_the_former(task: Task, make_file: MakeFile) -> None:
    """One OutputModel is one model; its history tells what it was before."""
    model = OutputModel(task)
    model.update_weights(make_file("a.pt", b"1"), iteration=1)
    model.update_weights(make_file("b.pt", b"2"), iteration=2)

    assert len(Model.query_models()) == 1
    assert (model.iteration, model.comment) == (2, "snapshot b.pt stored")
    assert [entry.new for entry in model.history() if entry.key == "iteration"] == [1, 2]
    assert [entry.new for entry in model.history() if entry.key == "digest"] == [digest(b"1"), digest(b"2")]


def test_an_iteration_is_kept_on_the_model_and_the_greatest_on_the_task(task: Task, make_file: MakeFile) -> None:
    """ClearML drops it with async_enable=False."""
    model = OutputModel(task)
    for iteration in (7, 3):
        model.update_weights(make_file(content=str(iteration).encode()), iteration=iteration, async_enable=False)

    assert (model.iteration, task.get_last_iteration()) == (3, 7)
    model.update_weights(make_file(content=b"x"))
    assert model.iteration is None


def test_a_target_filename_names_the_stored_file(task: Task, make_file: MakeFile) -> None:
    """Its ending comes from the file where it has none."""
    model = OutputModel(task)

    assert str(model.update_weights(make_file(), target_filename="final.pth")).endswith("/final.pth")
    assert str(model.update_weights(make_file(), target_filename="final")).endswith("/final.pt")
    assert str(model.update_weights(make_file(), target_filename="模型 🤖.pt")).endswith(
        "/%E6%A8%A1%E5%9E%8B%20%F0%9F%A4%96.pt"
    )
    assert Path(str(model.get_local_copy())).name == "模型 🤖.pt"


def test_the_comment_begins_with_what_was_stored_last(task: Task, make_file: MakeFile) -> None:
    """The rest of the comment is the user's."""
    model = OutputModel(task, comment="mine\nand more")
    model.update_weights(make_file("a.pt"))
    model.update_weights(make_file("b.pt", b"2"))

    assert model.comment == "snapshot b.pt stored\nmine\nand more"
    model.comment = "new"
    model.update_weights(make_file("c.pt", b"3"), update_comment=False)
    assert model.comment == "new"


def test_a_comment_that_another_object_set_survives_new_weights(task: Task, make_file: MakeFile) -> None:
    """Every setter of ClearML's sends the whole cached record again."""
    model = OutputModel(task)
    model.update_weights(make_file(), update_comment=False)
    _ = model.comment
    other = Model(str(model.id))
    other.comment = "theirs"
    other.name = "renamed"
    model.update_weights(make_file(content=b"2"), update_comment=False)

    assert (model.comment, model.name) == ("theirs", "renamed")


@pytest.mark.parametrize("name", ["a\nb.pt", "-rf.pt", "a b%20c.pt", "🦊.pt", "..pt", "x" * 240 + ".pt"])
def test_odd_file_names_are_stored_and_come_back_with_their_ending(task: Task, make_file: MakeFile, name: str) -> None:
    """A framework looks at the ending."""
    model = OutputModel(task)
    model.update_weights(make_file(name, b"odd"))
    path = Path(str(model.get_local_copy(raise_on_error=True)))

    assert path.read_bytes() == b"odd"
    assert path.suffix == ".pt"


def test_a_file_name_that_is_no_unicode_is_stored(task: Task, tmp_path: Path) -> None:
    """Old file systems are full of them."""
    raw = os.fsencode(tmp_path) + b"/caf\xe9.pt"
    with open(raw, "wb") as file:
        file.write(b"x")
    model = OutputModel(task)
    model.update_weights(os.fsdecode(raw), auto_delete_file=True)

    assert Path(str(model.get_local_copy(raise_on_error=True))).read_bytes() == b"x"
    assert not os.path.exists(raw)


# -- registered URIs --------------------------------------------------------------------------------------------------


def test_a_uri_is_registered_without_being_read(task: Task) -> None:
    """The page spells the parameter registered_uri."""
    for spelling in ("register_uri", "registered_uri"):
        model = OutputModel(task)
        url = model.update_weights(**{spelling: "s3://bucket/dir/net.onnx"})  # type: ignore[arg-type]

        assert url == model.url == "s3://bucket/dir/net.onnx"
        assert (model.digest, model.size, model.framework) == (None, None, "ONNX")
        assert model.comment == "snapshot s3://bucket/dir/net.onnx stored"
        assert model._link_name is None
    assert task.output_models_id == {"net": model.id}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"weights_filename": "a", "register_uri": "s3://b/c"},
        {"weights_filename": "a", "registered_uri": "s3://b/c"},
        {"register_uri": "s3://b/c", "registered_uri": "s3://b/d"},
        {"weights_filename": ""},
        {"weights_filename": 5},
        {"weights_filename": "a\0b"},
        {"register_uri": "s3://key:secret@bucket/a"},
        {"register_uri": "a\0b"},
    ],
)
def test_exactly_one_source_of_weights_is_wanted(task: Task, unchanged: Unchanged, arguments: dict[str, Any]) -> None:
    """Both or neither is a ValueError in ClearML too."""
    with unchanged(), pytest.raises(InvalidRequestError):
        OutputModel(task).update_weights(**arguments)


def test_a_uri_of_the_registrys_own_bytes_shares_them(task: Task, make_file: MakeFile) -> None:
    """Bytes in use by two models outlive the removal of one, however the second came to them."""
    one, two = OutputModel(task, name="one"), OutputModel(task, name="two")
    one.update_weights(make_file())
    two.update_weights(register_uri=one.url)

    assert (two.digest, two.size) == (one.digest, one.size)
    assert Model.remove(one)
    assert Path(str(two.get_local_copy(raise_on_error=True))).read_bytes() == b"weights"


def test_a_uri_of_bytes_that_the_registry_does_not_have_is_refused(
    task: Task, registry: Registry, unchanged: Unchanged
) -> None:
    """It would be a model that can never be had."""
    missing = registry.folder / "objects" / "sha256" / "ab" / ("ab" * 32) / "x.pt"
    with unchanged(), pytest.raises(BlobNotFoundError):
        OutputModel(task).update_weights(register_uri=missing.as_uri())


def test_a_registered_uri_takes_the_place_of_stored_weights(task: Task, make_file: MakeFile) -> None:
    """The digest of the former bytes says nothing about the new ones."""
    model = OutputModel(task)
    model.update_weights(make_file())
    model.update_weights(register_uri="s3://bucket/other.pt", is_package=True)

    assert (model.digest, model.size, model.system_tags) == (None, None, ["package"])


# -- where they go ----------------------------------------------------------------------------------------------------


def test_the_closest_destination_wins(
    task: Task, make_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Call, model, task, class, environment, registry: in this order."""
    places = {name: (tmp_path / name).as_uri() for name in ("env", "class", "task", "model", "call")}
    model = OutputModel(task)

    def stored_in() -> str:
        url = str(model.update_weights(make_file(), async_enable=False))
        return next((name for name, place in places.items() if url.startswith(f"{place}/")), "registry")

    assert stored_in() == "registry"
    monkeypatch.setenv("MODELSTORE_DEFAULT_OUTPUT_URI", places["env"])
    assert stored_in() == "env"
    OutputModel.set_default_upload_uri(places["class"])
    assert stored_in() == "class"
    task.output_uri = places["task"]
    assert stored_in() == "task"
    for registry in (True, False):
        task.output_uri = registry
        assert stored_in() == "registry"
        assert task.output_uri is None
    task.output_uri = None
    assert stored_in() == "class"
    task.output_uri = places["task"]
    model.set_upload_destination(places["model"])
    assert stored_in() == "model"
    assert model.upload_storage_uri == places["model"]
    url = model.update_weights(make_file(), upload_uri=places["call"], async_enable=False)
    assert str(url).startswith(places["call"])
    assert stored_in() == "call"  # as in ClearML, it sticks


def test_the_address_at_a_destination_holds_the_digest(task: Task, make_file: MakeFile, tmp_path: Path) -> None:
    """Two contents never share an address; the same content is sent once."""
    out = tmp_path / "out"
    first, second = OutputModel(task), OutputModel(task)
    one = first.update_weights(make_file(content=b"1"), upload_uri=out, async_enable=False)
    two = second.update_weights(make_file(content=b"2"), upload_uri=out, async_enable=False)
    again = OutputModel(task).update_weights(make_file(content=b"1"), upload_uri=out, async_enable=False)

    assert one == again
    assert one != two
    assert hashlib.sha256(b"1").hexdigest() in str(one)
    assert Path(str(first.get_local_copy())).read_bytes() == b"1"


def test_memory_is_a_destination_and_no_folder(
    task: Task, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ClearML makes a folder named "memory:" in the working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model = OutputModel(task)
    url = model.update_weights(make_file(), upload_uri="memory://bucket/x", async_enable=False)

    assert str(url).startswith("memory://")
    assert os.listdir() == []
    assert Path(str(model.get_local_copy())).read_bytes() == b"weights"


@pytest.mark.parametrize(
    "uri", ["http://example.com/x", "modelstore://x", "nosuchscheme://x", "s3://k:s@b/x", 5, "a\0b"]
)
def test_a_destination_that_cannot_be_is_refused_at_once(
    task: Task, make_file: MakeFile, unchanged: Unchanged, uri: Any
) -> None:
    """And the former one stays."""
    model = OutputModel(task)
    with unchanged():
        with pytest.raises((ValueError, OSError)) as caught:
            model.set_upload_destination(uri)
        with pytest.raises((ValueError, OSError)):
            model.update_weights(make_file(), upload_uri=uri)

    assert type(caught.value).__module__ == "modelstore.errors"
    assert model.upload_storage_uri is None


def test_an_empty_destination_changes_nothing(task: Task) -> None:
    """As in ClearML."""
    model = OutputModel(task)
    model.set_upload_destination("memory://b")
    model.set_upload_destination("")

    assert model.upload_storage_uri == "memory://b"


# -- deleting the user's files ----------------------------------------------------------------------------------------


def test_files_are_deleted_only_when_asked(task: Task, make_file: MakeFile) -> None:
    """ClearML's default deletes checkpoints."""
    path = make_file()
    OutputModel(task).update_weights(path)
    assert path.exists()
    OutputModel(task).update_weights(path, auto_delete_file=True)
    assert not path.exists()


def test_a_stored_file_is_never_its_own_leftover(task: Task, make_file: MakeFile) -> None:
    """Registering what get_local_copy returned, with deletion, would delete the stored bytes."""
    one, two = OutputModel(task), OutputModel(task)
    one.update_weights(make_file())
    two.update_weights(str(one.get_local_copy()), auto_delete_file=True)

    assert Path(str(one.get_local_copy(raise_on_error=True))).read_bytes() == b"weights"


def test_only_what_was_stored_is_deleted_from_a_folder(
    task: Task, make_file: MakeFile, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that appears or changes while the folder is being stored was never stored."""
    folder = make_file("run/a.pt", b"a").parent
    make_file("run/deep/b.pt", b"b")
    confirm = registry.weights.confirm

    def meanwhile(uri: str | None) -> bool:
        make_file("run/new.pt", b"new")
        make_file("run/a.pt", b"changed")
        return confirm(uri)

    monkeypatch.setattr(registry.weights, "confirm", meanwhile)
    OutputModel(task).update_weights(folder, auto_delete_file=True)

    assert sorted(path.name for path in folder.rglob("*")) == ["a.pt", "new.pt"]


def test_a_folder_that_was_stored_whole_goes_whole(task: Task, make_file: MakeFile) -> None:
    """Nested empty folders too, which ClearML leaves."""
    folder = make_file("run/a.pt").parent
    make_file("run/deep/er/b.pt", b"b")
    (folder / "empty" / "nest").mkdir(parents=True)
    model = OutputModel(task)
    model.update_weights_package(weights_path=folder, auto_delete_file=True)

    assert not folder.exists()
    assert Path(str(model.get_local_copy()), "deep", "er", "b.pt").read_bytes() == b"b"


def test_a_failed_call_deletes_nothing(task: Task, make_file: MakeFile, unchanged: Unchanged, tmp_path: Path) -> None:
    """ClearML deletes a package's files and then says that the model is published."""
    model = OutputModel(task)
    model.update_weights(make_file("first.pt"))
    model.publish()
    folder = make_file("run/a.pt").parent
    path = make_file("b.pt")
    with unchanged(folder / "a.pt", path):
        for call in (
            lambda: model.update_weights(path, auto_delete_file=True),
            lambda: model.update_weights(folder, auto_delete_file=True),
            lambda: model.update_weights_package(weights_path=folder, auto_delete_file=True),
            lambda: model.update_weights_package([path], auto_delete_file=True),
        ):
            with pytest.raises(PublishedModelError):
                call()


# -- packages ---------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_package(task: Task, make_file: MakeFile) -> None:
    """Its framework is not guessed from ".zip"; ClearML says TensorFlow."""
    folder = make_file("run/a.txt", b"a").parent
    make_file("run/sub/b.txt", b"b")
    model = OutputModel(task)
    url = model.update_weights(folder)

    assert str(url).endswith("/run.zip")
    assert (model.system_tags, model.framework) == (["package"], None)
    files = model.get_weights_package()
    assert isinstance(files, list)
    assert [path.name for path in files] == ["a.txt", "sub"]
    assert (files[1] / "b.txt").read_bytes() == b"b"
    assert str(model.get_weights_package(return_path=True)) == str(model.get_local_copy()) == str(files[0].parent)
    archive = model.get_weights_package(return_path=True, extract_archive=False)
    assert zipfile.ZipFile(str(archive)).namelist() == ["a.txt", "sub/b.txt"]
    assert model.get_weights_package(extract_archive=False) == [Path(str(archive))]
    assert str(model.get_weights()) == str(archive)


def test_a_list_of_files_keeps_names_relative_to_their_common_folder(task: Task, make_file: MakeFile) -> None:
    """As in ClearML."""
    paths = [make_file("run/a/x.bin", b"1"), make_file("run/b/y.bin", b"2")]
    model = OutputModel(task)
    url = model.update_weights_package([str(paths[0]), paths[1]])

    assert str(url).endswith("/model_package.zip")
    folder = Path(str(model.get_local_copy()))
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.bin")) == ["a/x.bin", "b/y.bin"]


def test_the_next_package_is_what_readers_get(task: Task, make_file: MakeFile) -> None:
    """In ClearML the second package is invisible, even in a new process and with force_download."""
    model = OutputModel(task)
    for content in (b"v1", b"v2"):
        model.update_weights_package([make_file("w.bin", content)])

        assert Path(str(model.get_local_copy()), "w.bin").read_bytes() == content


def test_two_packages_of_the_same_files_are_the_same_bytes(task: Task, make_file: MakeFile) -> None:
    """Time stamps in archives make them different every time elsewhere."""
    one, two = OutputModel(task), OutputModel(task)
    path = make_file("w.bin")
    one.update_weights_package([path])
    os.utime(path, (1, 1))
    two.update_weights_package([path])

    assert one.digest == two.digest


@pytest.mark.parametrize("extract", [True, False])
def test_asking_for_the_archive_and_for_its_content_do_not_disturb_each_other(
    task: Task, make_file: MakeFile, extract: bool
) -> None:
    """In ClearML the first answer is given again, whatever is asked."""
    model = OutputModel(task)
    model.update_weights_package([make_file("w.bin")])
    for wanted in (extract, not extract, extract):
        assert Path(str(model.get_local_copy(extract_archive=wanted))).is_dir() is wanted


def test_an_archive_that_is_no_package_is_unpacked_only_when_asked(task: Task, tmp_path: Path) -> None:
    """A .pt file is a zip: unpacking it by itself would break every PyTorch model."""
    for name in ("w.zip", "w.pt"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("inner", "x")
        model = OutputModel(task)
        model.update_weights(tmp_path / name)

        assert Path(str(model.get_local_copy())).is_file()
        assert Path(str(model.get_local_copy(extract_archive=True))).is_dir() is name.endswith("zip")
        with pytest.raises(ValueError, match="not packaged"):
            model.get_weights_package()


def test_a_zip_can_be_said_to_be_a_package(task: Task, tmp_path: Path) -> None:
    """`is_package=True`."""
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("inner", "x")
    model = OutputModel(task)
    model.update_weights(tmp_path / "w.zip", is_package=True)

    assert Path(str(model.get_local_copy()), "inner").read_text() == "x"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"weights_filenames": ["x"], "weights_path": "y"},
        {"weights_filenames": []},
        {"weights_filenames": ["nope"]},
        {"weights_filenames": "nope"},
        {"weights_path": "nope"},
        {"weights_path": "here"},
        {"weights_path": "empty"},
        {"weights_filenames": ["here", "here"]},
        {"weights_filenames": ["empty"]},
        {"weights_filenames": ["here"], "target_filename": "../x"},
        {"weights_filenames": ["here"], "iteration": "soon"},
    ],
)
def test_a_package_that_cannot_be_is_refused(
    task: Task, make_file: MakeFile, unchanged: Unchanged, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    """ClearML uploads an empty zip and says nothing."""
    monkeypatch.chdir(make_file("here").parent)
    Path("empty").mkdir()
    with unchanged(), pytest.raises((InvalidRequestError, BlobNotFoundError)):
        OutputModel(task).update_weights_package(**arguments)


# -- configuration and labels -----------------------------------------------------------------------------------------


def test_a_configuration_comes_back_as_it_went_in(task: Task, make_file: MakeFile) -> None:
    """Before and after registration, as text and as dictionary."""
    config = {"a.b": 1, "nested": {"t": (1, 2), "nan": float("inf"), "none": None}, 3: "x", "u": "é"}
    model = OutputModel(task, config_dict=config)
    assert model.config_dict == config
    model.update_weights(make_file())

    assert Model(str(model.id)).config_dict == config
    assert '"t": [\n' in model.config_text
    assert '"é"' in model.config_text
    model.update_design(config_text='{"x": 1}')
    assert (model.config_text, model.config_dict) == ('{"x": 1}', {"x": 1})


def test_a_configuration_can_be_cleared(task: Task, make_file: MakeFile) -> None:
    """In ClearML it cannot, once the model exists."""
    task.set_model_config(config_dict={"from": "task"})
    model = OutputModel(task)
    model.config_dict = {}
    model.update_weights(make_file())
    assert model.config_text == ""

    for clear in (
        lambda: model.update_design(config_dict={}),
        lambda: model.update_design(config_text=""),
        lambda: setattr(model, "config_text", ""),
        lambda: setattr(model, "config_dict", {}),
    ):
        model.update_design(config_dict={"a": 1})
        clear()

        assert (model.config_text, model.config_dict) == ("", {})


def test_a_design_without_arguments_changes_nothing(task: Task, make_file: MakeFile) -> None:
    """Forgetting the argument must not clear it."""
    model = OutputModel(task, config_text="x")
    model.update_weights(make_file())

    assert model.update_design().wait() is True
    assert model.config_text == "x"


def test_labels_are_set_on_the_model_and_on_its_task(task: Task, make_file: MakeFile) -> None:
    """Later models of the task take them."""
    model = OutputModel(task)
    model.update_weights(make_file())
    result = model.update_labels({"background": 0, "label": 255, "yes": True})

    assert isinstance(result, Waitable)
    assert model.labels == task.get_labels_enumeration() == {"background": 0, "label": 255, "yes": 1}
    assert OutputModel(task).labels == model.labels
    model.labels = {}
    assert model.labels == {}


@pytest.mark.parametrize("labels", [{"a": "1"}, {"a": 1.5}, {1: 1}, {"a": None}, ["a"], None, {"a": 2**64}, {"\0": 1}])
def test_bad_labels_change_neither_model_nor_task(
    task: Task, make_file: MakeFile, unchanged: Unchanged, labels: Any
) -> None:
    """All or nothing."""
    model = OutputModel(task)
    model.update_weights(make_file())
    with unchanged(), pytest.raises(ValueError, match="label|Label"):
        model.update_labels(labels)


def test_labels_of_a_model_whose_task_has_ended_change_nothing(
    task: Task, make_file: MakeFile, unchanged: Unchanged
) -> None:
    """A task that has ended is refused before the model is touched."""
    model = OutputModel(task)
    model.update_weights(make_file())
    task.close()
    with unchanged(), pytest.raises(TaskClosedError):
        model.update_labels({"a": 1})
    model.update_weights(make_file(content=b"later"))  # weights are welcome all the same, as in ClearML

    assert model.size == 5


# -- continuing a model -----------------------------------------------------------------------------------------------


def test_a_base_model_goes_on_under_another_task(task: Task, make_file: MakeFile) -> None:
    """Fine-tuning in place."""
    first = OutputModel(task, name="n", tags=["a"])
    first.update_weights(make_file())
    other = Task.create(project_name="p", task_name="second")
    second = OutputModel(other, base_model_id=first.id, tags=["b"], comment="more")

    assert second.id == first.id
    assert (first.tags, first.comment) == (["a", "b"], "more")
    assert (second.task, second.original_task) == (other.id, task.id)
    second.update_weights(make_file(content=b"2"))
    assert first.size == 1
    assert other.models.output["best"] == first


def test_a_wrong_base_model_is_an_error(task: Task, unchanged: Unchanged) -> None:
    """ClearML swallows it and makes a new model."""
    with unchanged(), pytest.raises(ModelNotFoundError):
        OutputModel(task, base_model_id="0" * 32)


def test_a_published_base_model_keeps_its_content(task: Task, make_file: MakeFile, unchanged: Unchanged) -> None:
    """ClearML rewrites it silently."""
    model = OutputModel(task, name="n")
    model.update_weights(make_file())
    model.publish()
    with unchanged():
        for change in ({"label_enumeration": {"a": 1}}, {"config_text": "x", "name": "hijacked"}, {"framework": "X"}):
            with pytest.raises(PublishedModelError):
                OutputModel(task, base_model_id=model.id, **change)  # type: ignore[arg-type]
        again = OutputModel(task, base_model_id=model.id)
        with pytest.raises(PublishedModelError):
            again.update_weights(make_file(content=b"2"))
    renamed = OutputModel(task, base_model_id=model.id, name="allowed", tags=["t"])

    assert (renamed.name, renamed.tags, renamed.published) == ("allowed", ["t"], True)


def test_connecting_names_the_model_on_its_task(task: Task, make_file: MakeFile) -> None:
    """The name holds from the next weights on, at once where it is registered."""
    model = OutputModel(task)
    model.connect(task, name="teacher")
    model.update_weights(make_file())
    assert task.models.output["teacher"] == model
    model.connect(task, "student")
    assert task.models.output["student"] == model
    task.connect(model, "again")
    assert task.models.output["again"] == model
    with pytest.raises(ValueError, match="the task that made it"):
        model.connect(Task.create("p", "other"))


def test_a_model_is_made_from_the_input_of_the_same_name(task: Task, make_file: MakeFile) -> None:
    """Lineage without anybody writing it down."""
    source = InputModel.import_model("s3://bucket/best.pt")
    task.connect(source, name="best")
    model = OutputModel(task)
    model.update_weights(make_file("best.pt"))

    assert model.parent == source.id


def test_frameworks_are_guessed_from_names_and_never_from_archives(task: Task, make_file: MakeFile) -> None:
    """And a framework that was given stays."""
    for name, framework in [("a.safetensors", Framework.safetensors), ("a.zip", None), ("a.onnx", "ONNX")]:
        model = OutputModel(task)
        model.update_weights(make_file(name))

        assert model.framework == framework
    model = OutputModel(task, framework=Framework.keras)
    model.update_weights(make_file("a.pt"))
    assert model.framework == "Keras"
    model.framework = "Mine"
    assert Model(str(model.id)).framework == "Mine"


def test_threads_register_one_draft_once(task: Task, registry: Registry) -> None:
    """A model that several threads annotate is one model."""
    from concurrent.futures import ThreadPoolExecutor

    model = OutputModel(task)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: model.set_metadata(f"k{i}", i), range(16)))

    assert len(Model.query_models()) == 1
    assert model.get_all_metadata_casted() == {f"k{i}": i for i in range(16)}
