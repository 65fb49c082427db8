"""Questions about models over HTTP: the answers of the registry itself, page by page."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.ids import project_id
from modelstore.registry import Registry
from modelstore.registry.search import ModelSearch
from modelstore.storage.fingerprints import hash_file
from tests.server.conftest import Client


@pytest.fixture
def filled(team: Registry) -> Registry:
    for number in range(25):
        tags = ["even" if number % 2 == 0 else "odd", "all"]
        model = team.models.create(name=f"m{number:02}", tags=tags, project="vision" if number < 10 else None)
        team.models.set_metadata(model.id, {"accuracy": (None, number / 25)})
        if number in (3, 4):
            team.models.publish(model.id, require_weights=False)
    return team


QUESTIONS: list[dict[str, Any]] = [
    {},
    {"tags": ["__$and", "even", "__$not", "x"]},
    {"project": "vision", "order_by": "name"},
    {"where": "accuracy > 0.5 and tag('odd')", "order_by": ["-metadata.accuracy", "name"]},
    {"metadata": {"accuracy": 0.4}},
    {"search": "m07"},
    {"name": "m03", "include_archived": True},
    {"only_published": True},
]


def test_pages_together_are_the_answer_of_the_registry(client: Client, filled: Registry) -> None:
    """Whatever is asked, and however large a page is."""
    counts = []
    for question in QUESTIONS:
        expected = [model.id for model in ModelSearch(**question).run(filled)]
        counts.append(len(expected))
        for limit in (1, 7, 1000):
            found: list[str] = []
            cursor = None
            while True:
                page = client("POST", "/v1/models/search", question | {"limit": limit, "cursor": cursor}).json
                found += [model["id"] for model in page["models"]]
                cursor = page["next"]
                if cursor is None:
                    break
            assert found == expected, question
    assert counts == [25, 13, 10, 6, 1, 1, 1, 2]


def test_what_a_limited_exchange_asks_for_is_what_the_registry_says(client: Client, filled: Registry) -> None:
    """Models, archived ones too, their parents, the tasks that made or use them, and the projects above all those."""
    ids = {model.name: model.id for model in ModelSearch().run(filled)}
    task = filled.tasks.create(name="t", project="nlp/ner").id
    child = filled.models.create(name="child", parent=ids["m20"], task=task, links=[(task, "input", "x")]).id
    filled.models.archive(child)
    filled.models.delete(ids["m21"])

    def select(**filters: Any) -> set[str]:
        return set(client("POST", "/v1/select", {"filters": filters}).json["entities"])

    assert select(name="child") == {child, ids["m20"], task, project_id("nlp"), project_id("nlp/ner")}
    assert select(project="vision") == {ids[f"m{n:02}"] for n in range(10)} | {project_id("vision")}
    assert select() == (set(ids.values()) - {ids["m21"]}) | {child, task} | {
        project_id(name) for name in ("vision", "nlp", "nlp/ner")
    }
    assert select(project="unheard of") == select(name="m21") == set()
    assert client("POST", "/v1/select", {"filters": {"limit": 10**30}}).status == 400


def test_a_model_is_shown_without_paths_of_the_server(client: Client, filled: Registry) -> None:
    """They mean nothing to the caller, and are nobody's business."""
    objects = filled.weights.objects
    snapshot = objects.temporary()
    snapshot.write_bytes(b"weights")
    uri = objects.put(snapshot, hash_file(snapshot), "x.pt")
    model = filled.models.create(name="stored", uri=uri).id

    answer = client("GET", f"/v1/models/{model}")

    assert (answer.json["name"], answer.json["url"]) == ("stored", uri)
    assert str(filled.folder).encode() not in answer.body
    assert client("GET", f"/v1/models/{'0' * 32}").status == 404


@pytest.mark.parametrize(
    "question",
    [
        {"where": "accuracy >>"},
        {"where": "(" * 100_000},
        {"tags": ["__$nto"]},
        {"tags": "a"},
        {"order_by": "nothing"},
        {"cursor": "x"},
        {"cursor": "WzFd"},
        {"limit": 0},
        {"limit": 10**9},
        {"name_regex": "("},
        {"unheard_of": 1},
        {"metadata": {"a": {"b": 1}}},
        {"dialect": "x"},
        {"project": "no such"},
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_the_reason(client: Client, question: dict[str, Any]) -> None:
    """And is no mistake of the server."""
    answer = client("POST", "/v1/models/search", question)

    assert answer.status in (400, 404), answer.body
    assert answer.json["error"]["message"]


def test_regular_expressions_are_for_admins(people: dict[str, Client], filled: Registry) -> None:
    """One can keep a server busy for ever: whoever may only read shall not be able to stop it."""
    for question in ({"name_regex": "^(a+)+$"}, {"where": "name matches '^(a+)+$'"}):
        assert people["write"]("POST", "/v1/models/search", question).status == 403
        assert people["write"]("POST", "/v1/select", {"filters": question}).status == 403
        assert people["admin"]("POST", "/v1/models/search", question).status == 200


def test_conflicts_are_listed_with_both_values(client: Client, team: Registry, tmp_path: Any) -> None:
    """As the command shows them."""
    model = team.models.create(name="first").id
    with Registry(tmp_path / "other", actor="ann") as other:
        other.sync(client.url)
        other.models.edit(model, name="ann's")
        team.models.edit(model, name="ours")
        other.sync(client.url)

    (conflict,) = client("GET", "/v1/conflicts").json["conflicts"]
    assert (conflict["key"], conflict["before"]) == ("name", "first")
    assert {branch["value"] for branch in conflict["branches"]} == {"ann's", "ours"}
