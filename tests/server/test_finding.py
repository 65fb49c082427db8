"""Questions about models over HTTP: the answers of the registry itself, page by page."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

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
    return team


QUESTIONS: list[dict[str, Any]] = [
    {},
    {"tags": ["__$and", "even", "__$not", "x"]},
    {"project": "vision", "order_by": "name"},
    {"where": "metadata.accuracy > 0.5 and tag('odd')", "order_by": ["-metadata.accuracy", "name"]},
    {"metadata": {"accuracy": 0.4}},
    {"search": "m07"},
    {"name": "m03", "include_archived": True},
    {"only_published": True},
]


def test_pages_together_are_the_answer_of_the_registry(client: Client, filled: Registry) -> None:
    """Whatever is asked, and however large a page is."""
    for question in QUESTIONS:
        try:
            expected = [model.id for model in ModelSearch(**question).run(filled)]
        except ValueError:
            continue
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
