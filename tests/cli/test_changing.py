"""`register`, `tag`, `meta`, `publish`, `archive`, `rm`, `restore`: what changes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelstore import InputModel, OutputModel, Task
from modelstore.errors import InvalidRequestError, ModelStoreError
from modelstore.registry import Registry
from modelstore.registry.registration import register_files
from tests.cli.conftest import Json, Run


def test_a_file_is_stored_and_everything_said_of_it_kept(run_json: Json, weights: Path) -> None:
    """One command from a file to a whole model."""
    model = run_json(
        "register", weights, "--name", "yolo", "--project", "vision/ocr", "--tag", "a", "--tag", "b",
        "--label", "cat=0", "--label", "dog=1", "--metadata", "acc=0.93", "--metadata", "note=007",
        "--comment", "first", "--iteration", "12", "--publish",
    )  # fmt: skip
    weights.write_bytes(b"trained over")

    assert (model["name"], model["project"], model["tags"]) == ("yolo", "vision/ocr", ["a", "b"])
    assert model["labels"] == {"cat": 0, "dog": 1}
    assert model["metadata"] == {"acc": {"type": "float", "value": "0.93"}, "note": {"type": "str", "value": "007"}}
    assert (model["comment"], model["iteration"], model["published"]) == ("first", 12, True)
    assert (model["framework"], model["size"]) == ("PyTorch", 22)
    assert Path(model["url"].removeprefix("file://")).read_bytes() == b"weights of a small net"


def test_a_folder_is_stored_as_a_package(run: Run, run_json: Json, tmp_path: Path) -> None:
    """With everything in it, and unpacked when it is wanted."""
    (tmp_path / "bundle" / "sub").mkdir(parents=True)
    (tmp_path / "bundle" / "a.txt").write_text("a")
    (tmp_path / "bundle" / "sub" / "b.txt").write_text("b")
    model = run_json("register", tmp_path / "bundle")
    local = Path(run("get", model["id"]).stdout.strip())

    assert (model["name"], model["package"]) == ("bundle", True)
    assert sorted(str(p.relative_to(local)) for p in local.rglob("*")) == ["a.txt", "sub", "sub/b.txt"]


def test_a_uri_is_written_down_and_nothing_is_read(run_json: Json) -> None:
    """It need not even exist yet."""
    model = run_json("register", "s3://nowhere/models/net%20v1.onnx", "--package", "--tag", "x")

    assert (model["url"], model["name"], model["framework"]) == (
        "s3://nowhere/models/net%20v1.onnx",
        "net%20v1",
        "ONNX",
    )
    assert (model["package"], model["digest"], model["size"]) == (True, None, None)


def test_a_uri_of_a_file_is_a_uri(run_json: Json, weights: Path) -> None:
    """So a large file can stay where it is."""
    model = run_json("register", weights.as_uri())

    assert model["url"] == weights.as_uri()
    assert run_json("get", model["id"])["path"] == str(weights)


def test_a_uri_registered_again_is_the_model_that_has_it(run: Run, run_json: Json) -> None:
    """As `import_model` does; and it says so."""
    first = run("register", "s3://b/net.pt", "--tag", "x").stdout
    again = run("register", "s3://b/net.pt", "--tag", "y", "--publish")

    assert again.stdout == first
    assert "registered already" in again.stderr
    assert [m["tags"] for m in run_json("ls")] == [["x"]]
    assert run_json("show", first.strip())["published"]


def test_a_file_can_be_stored_elsewhere(run: Run, run_json: Json, weights: Path, tmp_path: Path) -> None:
    """As with `upload_uri`: only the digest is kept here."""
    model = run_json("register", weights, "--destination", tmp_path / "share")

    assert model["url"].startswith((tmp_path / "share").as_uri())
    assert model["digest"].startswith("sha256:")
    assert Path(run("get", model["id"]).stdout.strip()).read_bytes() == weights.read_bytes()


def test_the_default_destination_of_the_environment_holds_here_too(
    run_json: Json, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever set it does not want weights on this disk."""
    monkeypatch.setenv("MODELSTORE_DEFAULT_OUTPUT_URI", str(tmp_path / "share"))

    assert run_json("register", weights)["url"].startswith((tmp_path / "share").as_uri())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--tag", "__$and"], 2),
        (["--tag", ""], 2),
        (["--label", "cat=many"], 2),
        (["--label", "cat"], 2),
        (["--metadata", "=3"], 2),
        (["--metadata", "a=1", "--metadata", "a=2"], 2),
        (["--name", "x" * 2_000], 2),
        (["--project", "a//b"], 2),
        (["--package"], 2),
        (["--destination", "https://host/there"], 2),
        (["--iteration", "99999999999999999999"], 2),
    ],
)
def test_a_registration_that_is_refused_leaves_nothing(
    run: Run, registry: Registry, weights: Path, words: list[str], code: int
) -> None:
    """Neither a model nor bytes: arguments are checked before anything is read."""
    run("register", weights, *words, code=code)

    assert registry.database.all("SELECT * FROM ops") == []
    assert list(registry.weights.objects.iterate()) == []


def test_bytes_freed_between_storing_and_registering_are_stored_again(registry: Registry, weights: Path) -> None:
    """The other process may remove the last model that had them at just that moment."""
    first = register_files(registry, weights, name="first")
    registry.models.delete(first.id)
    registry.weights.release(first)
    second = register_files(registry, weights, name="second")

    assert registry.weights.local_copy(second, verify=True).read_bytes() == weights.read_bytes()


# tags and metadata


def test_tags_come_and_go_at_once(run: Run, register: Callable[..., str]) -> None:
    """And a call without changes only reads."""
    model = register("s3://b/x", "--tag", "old", "--tag", "kept")

    assert run("tag", model, "+new", "bare", "-old", "-absent").stdout.split() == ["bare", "kept", "new"]
    assert run("tag", model).stdout.split() == ["bare", "kept", "new"]


def test_odd_tags_can_be_written(run: Run, run_json: Json, register: Callable[..., str]) -> None:
    """Dashes, pluses, blanks, options of the command itself."""
    model = register("s3://b/x")
    run("tag", model, "+-dashed", "++plus", "+two words", "+--json", "+🐍")
    assert run_json("show", model)["tags"] == sorted(["-dashed", "+plus", "two words", "--json", "🐍"])
    run("tag", model, "--", "--dashed", "-+plus", "---json")

    assert run_json("show", model)["tags"] == sorted(["two words", "🐍"])


def test_a_tag_both_added_and_removed_is_refused(run: Run, register: Callable[..., str]) -> None:
    """Whichever won, half of those who type it would be surprised."""
    assert run("tag", register("s3://b/x"), "+a", "-a", code=2).stdout == ""


def test_metadata_is_what_it_looks_like(run_json: Json, register: Callable[..., str]) -> None:
    """So that `--where "acc > 0.9"` finds what was typed."""
    model = register("s3://b/x")
    found = run_json("meta", model, "f=0.93", "i=3", "b=true", "l=[1, 2]", 'd={"a": 1}', "s=v2", "z=007", 'q="1"', "e=")

    assert {key: (v["type"], v["value"]) for key, v in found.items()} == {
        "b": ("bool", "True"),
        "d": ("dict", '{"a": 1}'),
        "e": ("str", ""),
        "f": ("float", "0.93"),
        "i": ("int", "3"),
        "l": ("list", "[1, 2]"),
        "q": ("str", "1"),
        "s": ("str", "v2"),
        "z": ("str", "007"),
    }


def test_a_type_can_be_forced(run: Run, run_json: Json, register: Callable[..., str]) -> None:
    """1.10 is a version, not 1.1."""
    model = register("s3://b/x")

    assert run_json("meta", model, "version=1.10", "--type", "str") == {"version": {"type": "str", "value": "1.10"}}
    run("meta", model, "n=abc", "--type", "int", code=2)


def test_metadata_is_set_and_deleted_in_one_change(run: Run, run_json: Json, register: Callable[..., str]) -> None:
    """Others see both or neither; and one that is refused takes the other with it."""
    model = register("s3://b/x", "--metadata", "a=1", "--metadata", "b=2")

    assert list(run_json("meta", model, "c=3", "--delete", "a")) == ["b", "c"]
    run("meta", model, "c=x", "--type", "int", "--delete", "b", code=2)
    assert run("meta", model).stdout.split() == ["KEY", "TYPE", "VALUE", "b", "int", "2", "c", "int", "3"]


# life cycle


def test_several_models_are_published_together_or_not_at_all(
    run: Run, run_json: Json, register: Callable[..., str], registry: Registry
) -> None:
    """A release is often a pair."""
    whole, empty = register("s3://b/x"), registry.models.create(name="empty").id

    assert "--allow-empty" in run("publish", whole, empty, code=1).stderr
    assert not run_json("show", whole)["published"]
    assert [m["published"] for m in run_json("publish", whole, empty, "--allow-empty")] == [True, True]


def test_archive_and_unarchive(run: Run, run_json: Json, register: Callable[..., str]) -> None:
    """Naming a model twice changes it once."""
    model = register("s3://b/x")

    assert run("archive", model, model[:8]).stdout == f"archived {model}  x\n"
    assert run_json("show", model)["archived"]
    assert [m["archived"] for m in run_json("unarchive", "x")] == [False]


def test_removing_frees_what_nothing_else_uses(
    run: Run, run_json: Json, register: Callable[..., str], weights: Path
) -> None:
    """The same bytes under two models are freed with the second."""
    first, second = register(weights), register(weights)
    stored = Path(run("get", first).stdout.strip())

    assert run_json("rm", first)["freed_bytes"] == 0
    assert stored.exists()
    assert run_json("rm", second)["freed_bytes"] == 22
    assert not stored.exists()
    assert weights.exists()


def test_a_dry_run_says_what_the_removal_then_does(
    run_json: Json, register: Callable[..., str], weights: Path, tmp_path: Path
) -> None:
    """To the byte, also for models that share theirs."""
    (tmp_path / "other.pt").write_bytes(b"other")
    models = [register(weights), register(weights), register(tmp_path / "other.pt"), register("s3://b/x")]
    for some in (models[:1], models[2:], models[:2], models):
        told = run_json("rm", "--dry-run", *some)
        assert told.pop("dry_run") is True
        if some is models:
            done = run_json("rm", *some)
            assert done.pop("dry_run") is False
            assert told == done
            assert list(done) == ["models", "links", "uploads", "freed_bytes"]
            assert done["freed_bytes"] == 27
    assert run_json("ls", "--archived") == []


def test_a_model_in_use_is_removed_only_by_force(run: Run, run_json: Json, weights: Path) -> None:
    """Also in a dry run, which would otherwise promise too much."""
    task = Task.init("p", "user")
    model = InputModel.import_model("s3://b/x.pt", name="x")
    model.connect(task, name="start")
    task.close()

    assert "--force" in run("rm", "x", code=1).stderr
    run("rm", "x", "--dry-run", code=1)
    removal = run_json("rm", "x", "--force")
    assert removal["links"] == [{"task": task.id, "direction": "input", "name": "start"}]


def test_restore_brings_a_model_back(run: Run, run_json: Json, register: Callable[..., str], weights: Path) -> None:
    """Whole when its weights were kept, and with a word about it when they were not."""
    kept, freed = register(weights, "--name", "kept", "--tag", "t"), register("s3://b/x", "--name", "remote")
    before = run_json("show", kept)
    run("rm", kept, freed, "--keep-weights")
    assert "modelstore restore" in run("show", kept, code=3).stderr
    assert run("restore", kept, "remote").stderr == ""
    after = run_json("show", kept)

    assert {**before, "last_update": ""} == {**after, "last_update": ""}
    run("get", kept, "--verify")
    run("rm", kept)
    assert "are gone" in run("restore", kept).stderr
    run("get", kept, code=3)
    run("restore", kept, code=3)


def test_published_content_cannot_be_changed_from_here_either(run: Run, register: Callable[..., str]) -> None:
    """Tags and metadata can."""
    model = register("s3://b/x", "--publish")
    run("tag", model, "+t")
    run("meta", model, "a=1")

    assert "published" in run("publish", model).stdout


# which model is meant


def test_a_model_is_named_by_id_beginning_or_name(run: Run, register: Callable[..., str]) -> None:
    """Capital digits too, as other programs write them."""
    model = register("s3://b/x", "--name", "the one")

    for name in (model, model[:4], model[:12].upper(), "the one", f" {model} "):
        assert run("show", name).stdout.splitlines()[0] == f"the one  {model}"


def test_a_name_of_several_models_is_refused_with_their_ids(run: Run, register: Callable[..., str]) -> None:
    """Never a guess: the command may be `rm`."""
    first, second = register("s3://b/x", "--name", "same"), register("s3://b/y", "--name", "same")
    complaint = run("rm", "same", code=2).stderr

    assert first[:12] in complaint
    assert second[:12] in complaint
    run("rm", first)
    assert run("show", "same").exit_code == 0  # what was removed is in nobody's way


def test_a_whole_id_wins_over_a_name_and_a_beginning_does_not(run: Run, registry: Registry) -> None:
    """Somebody will name a model after the id of another."""
    model = registry.models.create(name="real")
    registry.models.create(name=model.id)
    registry.models.create(name=model.id[:6])

    assert run("show", model.id).stdout.startswith("real")
    run("show", model.id[:6], code=2)


def test_an_unknown_name_suggests_the_nearest(run: Run, register: Callable[..., str]) -> None:
    """A slip of a finger costs one more command, not a search."""
    register("s3://b/x", "--name", "resnet50-imagenet")

    assert "resnet50-imagenet" in run("show", "resnet50-imagnet", code=3).stderr


@pytest.mark.parametrize("text", ["", "%", "_", "x' or '1'='1", "\U0001f40d" * 3000, "zz\x00zz"])
def test_any_text_is_a_question_and_none_an_accident(registry: Registry, run: Run, text: str) -> None:
    """Names come from shell variables that may hold anything."""
    from modelstore.registry.lookup import find_model

    registry.models.create(name="something")
    with pytest.raises(ModelStoreError):
        find_model(registry, text)


def test_history_is_that_of_removed_models_too(run: Run, run_json: Json, register: Callable[..., str]) -> None:
    """Who removed it is a question one asks of what is gone."""
    model = register("s3://b/x", "--tag", "t")
    run("tag", model, "-t")
    run("rm", model)
    entries = run_json("history", model[:10])

    assert list(entries[0]) == ["kind", "entity", "name", "at", "actor", "action", "key", "old", "new", "stamp"]
    assert [(e["action"], e["key"], e["old"], e["new"]) for e in entries][:2] == [
        ("delete", "deleted", None, True),
        ("edit", "tag:t", True, None),
    ]
    assert "tag:t" in run("history", model).stdout


def test_show_tells_where_a_model_comes_from_and_where_it_went(run: Run, run_json: Json, weights: Path) -> None:
    """The task that made it, the model it was made from, what was made of it, who uses it."""
    base = InputModel.import_model("s3://b/base.pt", name="base")
    task = Task.init("p", "training")
    base.connect(task, name="net")
    made = OutputModel(task, name="made")
    made.update_weights(weights)
    task.close()
    shown, text = run_json("show", "base"), run("show", "made").stdout

    reference = {"id": task.id, "name": "training", "project": "p", "status": "completed"}
    assert shown["lineage"] == {
        "task": None,
        "parent": None,
        "children": [{"id": made.id, "name": "made"}],
        "consumers": [reference],
    }
    assert run_json("show", "made")["lineage"]["task"] == reference
    assert run_json("show", "made")["lineage"]["parent"] == {"id": base.id, "name": "base"}
    assert list(shown)[-4:] == ["uploads", "weights", "scalars", "plots"]
    assert "made by task" in text
    assert "made from model" in text


def test_registering_several_processes_at_once_gives_every_model_its_row(registry: Registry, weights: Path) -> None:
    """Here the same file from four threads: one content, four models, no error."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: register_files(registry, weights, name=f"m{n}"), range(12)))

    assert len({record.id for record in found}) == 12
    assert len(list(registry.weights.objects.iterate())) == 1


def test_names_with_control_characters_are_refused(registry: Registry, weights: Path) -> None:
    """Before the file is read."""
    with pytest.raises(InvalidRequestError):
        register_files(registry, weights, name="a\nb")

    assert list(registry.weights.objects.iterate()) == []
