"""What a server takes in: nobody writes another's operations, nobody rewrites what is there, and no garbage."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from modelstore import ids
from modelstore.index.heads import read_heads
from modelstore.records.operations import Operation
from modelstore.registry import Registry
from modelstore.server import Settings, Tokens, service
from modelstore.testing.reference import fold, read_index
from modelstore.testing.servers import server_thread
from tests.server.conftest import Client

_WRITER = "a" * 16
_COUNTER = count()


def made(actor: str, *, writer: str = _WRITER, ms: int | None = None, **changes: Any) -> Operation:
    stamp = ids.make_stamp(ids.now_ms(), next(_COUNTER), writer) if ms is None else ids.make_stamp(ms, 0, writer)
    return Operation(stamp, "model", ids.new_id(), "create", {"name": "m", **changes}, actor=actor)


@pytest.fixture
def ann(team: Registry, people: dict[str, Client]) -> Client:
    return Client(people["read"].url, Tokens(team).create("ann", "write"))


@pytest.fixture
def bob(team: Registry, people: dict[str, Client]) -> Client:
    return Client(people["read"].url, Tokens(team).create("bob", "write", ("train-*",)))


def test_a_token_brings_operations_of_its_own_actors_alone(
    team: Registry, ann: Client, bob: Client, people: dict[str, Client]
) -> None:
    """Ann's name is on what Ann did. An admin passes on anybody's."""
    assert ann.push(made("ann@laptop")).json["new"] == 1
    assert bob.push(made("train-7", writer="b" * 16)).json["new"] == 1

    refused = ann.push(made("bob@desk"), made("ann@laptop"))

    assert refused.status == 403
    assert "bob@desk" in refused.json["error"]["message"]
    assert len(list(team.operations())) == 2
    assert people["admin"].push(made("bob@desk", writer="c" * 16)).json["new"] == 1


def test_a_writer_belongs_to_the_first_token_that_wrote_with_it(
    team: Registry, ann: Client, bob: Client, people: dict[str, Client]
) -> None:
    """Bob cannot put operations of his into Ann's sequence, nor Ann's writer into his hands by being quick."""
    first = made("ann@laptop")
    assert ann.push(first, heads={_WRITER: first.stamp}).status == 200

    assert bob.push(made("bob@desk")).status == 403
    relayed = made("ann@laptop", writer="d" * 16)
    assert people["admin"].push(relayed, heads={"d" * 16: relayed.stamp}).status == 200
    assert bob.push(made("bob@desk", writer="d" * 16)).status == 403
    assert ann.push(made("ann@laptop", writer="d" * 16)).status == 200
    own = team.models.create(name="here")
    stamp = next(o.stamp for _, o in team.operations() if o.entity == own.id)
    assert bob.push(made("bob@desk", writer=stamp[16:])).status == 403


def test_what_was_written_is_never_changed(team: Registry, ann: Client, people: dict[str, Client]) -> None:
    """Known operations are passed over in silence when they are what they were, by whoever brings them."""
    first = made("ann@laptop")
    ann.push(first)

    assert people["write"].push(first).json == {"new": 0, "known": 1, "entities": []}
    for other in (replace(first, changes={"name": "other"}), replace(first, actor="bob")):
        for who in (ann, people["admin"]):
            assert who.push(other).status == 409
    assert ann.push(made("ann", ms=5), made("ann", ms=5)).status == 409
    assert [o for _, o in team.operations()] == [first]


def test_nobody_hides_what_another_has_yet_to_send(team: Registry, ann: Client, people: dict[str, Client]) -> None:
    """A head says that all before it is here: only whom the writer belongs to may say so, of what has arrived."""
    mine, far = made("ann@laptop"), ids.make_stamp(2**46, 0, "b" * 16)

    assert ann.push(mine, heads={_WRITER: mine.stamp, "b" * 16: far}).status == 200
    assert read_heads(team.database.connection) == {_WRITER: mine.stamp}
    assert people["admin"].push(heads={"b" * 16: far}).status == 422
    assert ann.push(heads={_WRITER: ids.make_stamp(2**46, 0, _WRITER)}).status == 422


def test_nobody_holds_up_what_comes_after_him(
    team: Registry, ann: Client, people: dict[str, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever claims to begin a transaction without end is passed on by himself; others come in parcels, as ever."""
    monkeypatch.setattr("modelstore.sync.partners.PARCEL", 2)
    first = made("ann@laptop", ms=5)
    endless = replace(first, batch=first.stamp, batch_size=10**9)
    assert ann.push(endless, heads={_WRITER: endless.stamp}).status == 200
    assert ann.push(heads={_WRITER: endless.stamp}).status == 200
    for number in range(9):
        team.models.create(name=str(number))

    pulled = people["read"]("POST", "/v1/journal/pull", {"known": {"heads": {}, "strays": []}}).body
    assert pulled.count(b'{"heads"') >= 5
    assert endless.stamp.encode() in pulled


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"uri": "modelstore://sha256/../../etc/passwd"}, "object"),
        ({"uri": f"modelstore://sha256/{'0' * 64}/..%2F..%2Fetc%2Fpasswd"}, "object"),
        ({"uri": f"modelstore://sha256/{'0' * 64}/.."}, "object"),
        ({"digest": "sha256:../../x"}, "digest"),
        ({"digest": "md5:" + "0" * 32}, "digest"),
        ({"unheard_of": 1}, "the key 'unheard_of'"),
        ({"size": 2**70}, "64 bits"),
    ],
)
def test_what_no_registry_would_write_is_refused(
    team: Registry, people: dict[str, Client], changes: dict[str, Any], word: str
) -> None:
    """Whoever brings it: an admin passes on operations, not garbage."""
    answer = people["admin"].push(made("a", **changes), made("a"))

    assert (answer.status, word in answer.json["error"]["message"]) == (422, True)
    assert list(team.operations()) == []


def test_what_no_journal_can_hold_is_refused(team: Registry, people: dict[str, Client]) -> None:
    """Python reads it, and cannot write it down."""
    line = made("a", config={"dict": 0}).to_json()

    for value in ("NaN", "-Infinity", "1e999", '"\\ud800"', '{"\\udfff": 1}'):
        assert people["admin"].push(line.replace('"dict":0', f'"dict":{value}')).status == 422, value
    assert list(team.operations()) == []


def test_an_operation_from_the_future_is_refused(people: dict[str, Client]) -> None:
    """It would win over everything for years, and drag everybody's clock along; a skewed clock is no matter."""
    assert people["admin"].push(made("a", ms=ids.now_ms() + 3_600_000)).status == 200
    assert people["admin"].push(made("a", ms=ids.now_ms() + 90_000_000)).status == 422
    assert people["admin"].push(made("a", ms=2**48 - 1)).status == 422


def test_a_transaction_cannot_be_joined_from_outside(ann: Client) -> None:
    """It would be undone with it, and shown as its part."""
    foreign = ids.make_stamp(5, 0, "b" * 16)

    assert ann.push(replace(made("ann"), batch=foreign, batch_size=2)).status == 403


def test_a_parcel_is_taken_in_as_a_whole_or_not_at_all(team: Registry, ann: Client) -> None:
    """The last line is bad: nothing of the others is there."""
    for bad in ("{", "null", "[]", '{"stamp":1}', "\x00", '{"heads":[]}', '{"error":1}'):
        assert ann.push(made("ann"), bad).status in (422, 503), bad
    assert list(team.operations()) == []
    too_large = ann.push(*[made("ann", comment="x" * 1000, ms=n + 5) for n in range(1500)])
    assert (too_large.status, "--max-body" in too_large.json["error"]["hint"]) == (413, True)


def test_large_parcels_of_many_clients_wait_on_the_disk(team: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is read by the thread that takes it in; whoever goes away in the middle leaves nothing."""
    files: list[Any] = []
    make = tempfile.SpooledTemporaryFile

    def noted(*arguments: Any, **options: Any) -> Any:
        files.append(make(*arguments, **options))
        return files[-1]

    monkeypatch.setattr(service, "SpooledTemporaryFile", noted)
    with server_thread(Settings(str(team.folder), port=0, max_body=4 << 20)) as url:
        parcel = [made("ann", comment="x" * 2000, ms=n + 5) for n in range(1000)]
        assert Client(url).push(*parcel).json["new"] == 1000
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port or 0)) as line:
            head = f"POST /v1/journal/push HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 3000000\r\n"
            line.sendall(f"{head}Content-Type: application/x-ndjson\r\n\r\n".encode() + b"x" * 2_000_000)
            while len(files) < 2 or not files[1]._rolled:
                time.sleep(0.01)
        while not files[1].closed:
            time.sleep(0.01)
    assert (files[0]._rolled, files[0].closed) == (True, True)
    assert not [path for path in team.folder.iterdir() if path.name.startswith("tmp")]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_OFTEN = (0, 0, 0, 0, 0, 0, 0, 1)


def _mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any] = _JSON) -> st.SearchStrategy[Any]:
    return st.sampled_from(_OFTEN).flatmap(lambda pick: bad if pick else good)


_STAMPS = st.builds(ids.make_stamp, st.integers(1, 2**41), st.integers(0, 3), st.sampled_from([_WRITER, "b" * 16]))
_TEXTS = st.text(max_size=8) | st.sampled_from(["", "..", "a/b", "\x00", "modelstore://x", "\u202e", "s3://b/x"])
_VALUES = {
    "name": _TEXTS,
    "project": _TEXTS,
    "parent": st.sampled_from(["0" * 32, "x"]),
    "uri": _TEXTS | st.just(f"modelstore://sha256/{'0' * 64}/x.pt"),
    "digest": st.sampled_from([None, f"sha256:{'0' * 64}", "x"]),
    "size": st.integers(-(2**64), 2**64),
    "deleted": st.booleans(),
    "labels": st.dictionaries(_TEXTS, _JSON, max_size=2),
    "config": st.dictionaries(st.sampled_from(["text", "dict"]), _JSON, max_size=2),
    "comment": _TEXTS,
    "status": _TEXTS,
    "description": _TEXTS,
    "tag:a": st.sampled_from([True, None, False]),
    "meta:k": st.tuples(st.sampled_from(["int", "str", "float", "dict", "odd"]), _JSON),
    "param:a": _JSON,
    "config:x": _JSON,
    "link:input:x": st.sampled_from(["0" * 32, "x"]),
    "resolved:name:": st.lists(_STAMPS, max_size=2),
}
_SCALARS = st.fixed_dictionaries({"scalars": _mostly(st.dictionaries(_TEXTS, _JSON, max_size=2))})
_PLOTS = st.fixed_dictionaries(
    {
        "plot": st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["plotly", "image", "media", "x"]),
                "title": _TEXTS,
                "series": _TEXTS,
                "iteration": st.integers(-3, 2**64),
                "time": st.integers(0, 9),
            },
            optional={"figure": _JSON, "url": _TEXTS, "digest": st.just(f"sha256:{'0' * 64}"), "name": _TEXTS},
        )
    }
)
_CHANGES = st.lists(st.sampled_from(sorted(_VALUES)), max_size=3, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: _mostly(_VALUES[key] | st.none()) for key in keys})
)
_RECORDS = st.fixed_dictionaries(
    {
        "stamp": _mostly(_STAMPS),
        "kind": _mostly(st.sampled_from(["model", "model", "task", "project"])),
        "entity": _mostly(st.sampled_from(["0" * 32, "1" * 32])),
        "action": _mostly(st.sampled_from(["create", "create", "edit", "publish", "delete", "restore", "report"])),
        "changes": _mostly(_CHANGES | _CHANGES | _SCALARS | _PLOTS),
        "actor": _mostly(st.sampled_from(["write@x", "write", "other"])),
    },
    optional={
        "parents": _mostly(st.dictionaries(st.sampled_from(sorted(_VALUES)), _STAMPS, max_size=1)),
        "batch": _mostly(st.tuples(_STAMPS, st.integers(-1, 3))),
    },
)


@given(
    records=st.lists(_RECORDS, min_size=1, max_size=3),
    heads=st.dictionaries(st.sampled_from([_WRITER, "b" * 16, "x"]), _STAMPS, max_size=1),
    who=st.sampled_from(["write", "admin"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_operation_whatever_breaks_the_server_or_the_registry(
    team: Registry, people: dict[str, Client], records: list[Any], heads: dict[str, str], who: str
) -> None:
    """Refused with a reason, or taken in; then it is in the fold, and can be sent on and shown."""
    answers = [people[who].push(json.dumps(record), heads={}) for record in records]
    answers.append(people[who].push(heads=heads))

    for answer in answers:
        assert answer.status in (200, 400, 403, 409, 422), answer.body
        event(f"status {answer.status}")
    if any(answer.status == 200 for answer in answers[:-1]):
        pulled = people["read"]("POST", "/v1/journal/pull", {"known": {"heads": {}, "strays": []}})
        assert pulled.body.endswith(b'{"end":true}\n')
        for path, question in (
            ("models/search", {"include_archived": True}),
            ("objects/missing", {}),
            ("select", {"filters": {}}),
        ):
            found = people["read"]("POST", f"/v1/{path}", question)
            assert found.status == 200, found.body
        assert people["read"]("GET", "/v1/conflicts").status == 200
        assert read_index(team.database.connection) == fold(o for _, o in team.operations())


def test_a_registry_that_took_in_garbage_can_still_be_checked(
    team: Registry, people: dict[str, Client], tmp_path: Path
) -> None:
    """Names that mean something to file systems and terminals are only names."""
    people["admin"].push(
        made("\x1b[31mred", name="../../etc/passwd", project="/../..", comment="<script>"),
        made("a@\n", name="\x00", ms=6, config={"text": "x"}),
    )

    assert [f for f in team.check(deep=True) if f.severity == "error"] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {"team", "cache"} & {p.name for p in tmp_path.iterdir()}
    )
