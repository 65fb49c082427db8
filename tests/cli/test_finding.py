"""`ls`, `explain`, `sql`, `projects`, `tasks`: what is found, and how it is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelstore import Model, Task
from modelstore.errors import InvalidRequestError
from modelstore.registry import Registry
from tests.cli.conftest import Json, Program, Run

_MODEL_KEYS = [
    "id", "name", "project", "framework", "url", "digest", "size", "package", "tags", "system_tags", "comment",
    "labels", "config", "iteration", "metadata", "published", "archived", "task", "parent", "created", "last_update",
]  # fmt: skip


@pytest.fixture
def three(register: Callable[..., str]) -> dict[str, str]:
    """Three models, the oldest first."""
    return {
        "a": register("s3://b/a.pt", "--tag", "x", "--tag", "y", "--project", "p/one", "--metadata", "acc=0.5"),
        "b": register("s3://b/b.onnx", "--tag", "y", "--project", "p/one", "--metadata", "acc=0.9", "--publish"),
        "c": register("s3://b/c.pt", "--tag", "z", "--metadata", "acc=high"),
    }


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "cba"),
        (["--project", "p/one"], "ba"),
        (["--name", "c"], "c"),
        (["--name-regex", "[ab]"], "ba"),
        (["--tags", "x", "--tags", "z"], "ca"),
        (["--tags", "__$and", "--tags", "y", "--tags", "-x"], "b"),
        (["--tags", "-y"], "c"),
        (["--tags", '["__$and", "x", "y"]'], "a"),
        (["--tags", "['__$not', 'y']"], "c"),
        (["--where", "acc > 0.6"], "b"),
        (["--where", "tag('x') or framework == 'ONNX'"], "ba"),
        (["--metadata", "acc=0.9"], "b"),
        (["--search", "ACC 0.9"], "b"),
        (["--where", "search('acc') and not search('hi')"], "ba"),
        (["--metadata", "acc=0.9", "--metadata", "other=1"], ""),
        (["--published"], "b"),
        (["--order-by", "name"], "abc"),
        (["--order-by", "-metadata.acc"], "bac"),
        (["--limit", "2"], "cb"),
        (["--tags", '["x", "-y"]', "--dialect", "clearml-server"], ""),
    ],
)
def test_filters_are_those_of_query_models(run: Run, three: dict[str, str], words: list[str], found: str) -> None:
    """The command line asks; the registry answers."""
    by_id = {model: letter for letter, model in three.items()}

    assert "".join(by_id[model] for model in run("ls", "-q", *words).stdout.split()) == found


def test_archived_models_show_when_asked_for(run: Run, three: dict[str, str]) -> None:
    """Hidden is not gone."""
    run("archive", three["c"])

    assert three["c"] not in run("ls", "-q").stdout
    assert three["c"] in run("ls", "-q", "--archived").stdout


def test_count_counts_whatever_the_limit(run: Run, run_json: Json, three: dict[str, str]) -> None:
    """And is JSON where that was asked."""
    assert run("ls", "--count", "--limit", "1").stdout == "3\n"
    assert run_json("ls", "--count", "--tags", "y") == {"count": 2}


def test_the_json_of_a_model_keeps_its_keys(run_json: Json, three: dict[str, str]) -> None:
    """Scripts are written against these; one that goes, or means something else, breaks them."""
    found = run_json("ls")

    assert [list(model) for model in found] == [_MODEL_KEYS] * 3
    assert found[1]["metadata"] == {"acc": {"type": "float", "value": "0.9"}}
    assert found[1]["url"] == "s3://b/b.onnx"
    assert found[1] == Model(three["b"]).to_dict()


def test_an_empty_list_is_nothing_for_people_and_a_list_for_programs(
    run: Run, run_json: Json, registry: Registry
) -> None:
    """No heading over nothing; but `[]`, not silence, for a parser."""
    assert run("ls").stdout == ""
    assert run_json("ls") == []


def test_more_models_than_a_page_are_all_listed(run: Run, run_json: Json, registry: Registry) -> None:
    """They are read page by page, and none is lost between two."""
    with registry.transaction():
        ids = {registry.models.create(name=f"m{number % 7}").id for number in range(1_203)}

    assert set(run("ls", "-q").stdout.split()) == ids
    assert len(run_json("ls", "--order-by", "name", "--limit", "1100")) == 1_100
    assert run("ls").stdout.count("\n") == 1_204


def test_a_pipe_gets_whole_ids_and_exact_times(run: Run, three: dict[str, str]) -> None:
    """What is cut for a terminal would be lost on a program."""
    heading, newest, *_ = run("ls").stdout.splitlines()

    assert heading.split() == ["ID", "NAME", "PROJECT", "FRAMEWORK", "TAGS", "SIZE", "STATE", "UPDATED"]
    assert newest.split()[0] == three["c"]


def test_an_operator_that_the_shell_ate_is_guessed(run: Run, three: dict[str, str]) -> None:
    """`--tags "__$and"` reaches us as `--tags __`."""
    assert "single quotes" in run("ls", "--tags", "__").stderr


@pytest.mark.parametrize("text", ["[", "[1", "]", "{}"])
def test_what_is_no_list_is_a_tag(run: Run, three: dict[str, str], text: str) -> None:
    """Only a word that begins and ends like a list is read as one."""
    assert run("ls", "-q", "--tags", text).stdout == ""


@pytest.mark.parametrize("text", ["[1, ", "[x]", "[f()]", "['a' 'b', 3]"])
def test_a_list_that_cannot_be_read_is_refused(run: Run, three: dict[str, str], text: str) -> None:
    """Nothing is evaluated, and nothing is guessed."""
    code = 0 if not text.endswith("]") else 2

    assert run("ls", "--tags", text, code=code).stdout == ""


# explain


@pytest.mark.parametrize(
    ("words", "formula"),
    [
        (["demo", "-TF"], '"demo" OR NOT "TF"'),
        (["demo", "--", "-broken"], '"demo" OR NOT "broken"'),
        (["__$and", "a", "__$or", "b", "c"], '"a" AND ("b" OR "c")'),
        (["a", "--where", "acc > 0.9"], '"a" AND meta("acc") > 0.9'),
        (["--where", "published"], "published == true"),
        ([], "TRUE"),
    ],
)
def test_explain_says_how_a_query_is_read_and_needs_no_registry(run: Run, words: list[str], formula: str) -> None:
    """Where there is none yet, one can still learn the language."""
    assert run("explain", *words).stdout == f"{formula}\n"


def test_explain_tells_how_the_index_answers(run: Run, run_json: Json, three: dict[str, str]) -> None:
    """With the statement, for those who want to see it run."""
    text = run("explain", "y", "--plan").stdout
    answer = run_json("explain", "y", "-x", "--plan")

    assert "plan\n" in text
    assert "SELECT" in text
    assert list(answer) == ["formula", "plan", "sql"]
    assert answer["plan"]
    assert answer["sql"].lstrip().upper().startswith(("SELECT", "WITH"))
    assert run_json("explain", "y") == {"formula": '"y"', "plan": None, "sql": None}


def test_explain_reads_a_list_as_the_server_of_clearml_does_when_told(run: Run) -> None:
    """The same list, two readings."""
    words = ["a", "-b", "c"]

    assert run("explain", *words).stdout != run("explain", "--dialect", "clearml-server", *words).stdout


# sql


def test_sql_reads_the_views(run: Run, run_json: Json, three: dict[str, str]) -> None:
    """For whatever no filter can say."""
    statement = "select framework, count(*) as n, null as absent from v_models group by framework order by n desc"

    assert run_json("sql", statement) == [
        {"framework": "PyTorch", "n": 2, "absent": None},
        {"framework": "ONNX", "n": 1, "absent": None},
    ]
    assert run("sql", statement).stdout.splitlines()[1].split() == ["PyTorch", "2", "NULL"]
    assert run("sql", "-", text="select 1 as one").stdout == "one\n1\n"


@pytest.mark.parametrize(
    "statement",
    [
        "delete from models",
        "update models set name = 'x'",
        "insert into tags (name) values ('x')",
        "drop table ops",
        "create table x (y)",
        "create temp table x (y)",
        "pragma query_only = off",
        "pragma user_version = 99",
        "pragma writable_schema = on",
        "pragma journal_mode = delete",
        "attach database 'attached.db' as other",
        "vacuum into 'vacuumed.db'",
        "select load_extension('evil')",
        "begin immediate",
        "reindex",
        "select 1; delete from models",
        "with x as (select 1) delete from models",
        "select writefile('written', 'x')",
        "",
        "-- nothing",
        "selec",
        "select \0",
        "select ?",
        "select \ud800",
    ],
)
def test_nothing_can_be_changed_through_sql(
    registry: Registry,
    run: Run,
    three: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
) -> None:
    """Not the database, not the connection, not the disk; and each refusal is one of ours."""
    monkeypatch.chdir(tmp_path)
    before = _state(registry)
    with pytest.raises(InvalidRequestError):
        list(registry.select(statement))

    assert _state(registry) == before
    run("sql", statement, code=2)
    assert os.listdir(tmp_path) == ["modelstore-home"]


def _state(registry: Registry) -> tuple[object, ...]:
    rows = registry.database.all("SELECT seq, stamp FROM ops")
    names = registry.database.all("SELECT id, name FROM models ORDER BY id")
    version = registry.database.one("PRAGMA user_version")
    assert version is not None
    return ([tuple(r) for r in rows], [tuple(r) for r in names], tuple(version))


@pytest.mark.parametrize(
    "statement", ["pragma table_info(models)", "pragma user_version", "explain select 1", "values (1)"]
)
def test_sql_may_look_at_the_schema(run: Run, three: dict[str, str], statement: str) -> None:
    """Whoever writes SQL has to find out what there is."""
    assert run("sql", statement).stdout


def test_values_that_json_lacks_are_told_apart(run_json: Json, three: dict[str, str]) -> None:
    """Bytes and infinities come in the form that metadata uses."""
    assert run_json("sql", "select x'00ff' as b, 1e999 as i") == [{"b": {"$bytes": "00ff"}, "i": {"$float": "inf"}}]


def test_a_reader_sees_one_state_while_others_write(registry: Registry, register: Callable[..., str]) -> None:
    """Half of a batch of changes in a report would be worse than yesterday's report."""
    register("s3://b/one")
    with registry.select("select id from v_models") as rows:
        reading = iter(rows)
        first = next(reading)
        register("s3://b/two")

        assert [first, *reading] == [first]


# projects and tasks


def test_projects_are_listed_with_what_they_hold(run: Run, run_json: Json, three: dict[str, str]) -> None:
    """Archived and removed models do not count."""
    run("archive", three["a"])

    (project,) = run_json("projects")
    assert list(project) == ["id", "name", "description", "output_uri", "models", "tasks"]
    assert (project["name"], project["models"], project["tasks"]) == ("p/one", 1, 0)
    assert "p/one" in run("projects").stdout


def test_tasks_are_listed(run: Run, run_json: Json, program: Program) -> None:
    """With the status that a script would wait for."""
    task = Task.init("p/two", "an experiment")
    task.close()

    (found,) = run_json("tasks", "--project", "p/two", "--status", "completed")
    assert list(found) == [
        "id", "name", "project", "type", "status", "status_message", "comment", "tags", "parent", "output_uri",
        "last_iteration", "published", "archived", "created", "last_update", "started", "completed",
    ]  # fmt: skip
    assert (found["name"], found["status"]) == ("an experiment", "completed")
    assert run_json("tasks", "--status", "failed") == []
    assert "an experiment" in run("tasks", "--name-regex", "exp").stdout
    assert run("tasks", "--project", "p/three", code=3).stdout == ""


def test_json_of_lists_is_one_document(run: Run, three: dict[str, str]) -> None:
    """Written element by element, read as a whole."""
    assert len(json.loads(run("ls", "--json").stdout)) == 3
