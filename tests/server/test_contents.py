"""Bytes over HTTP: whole, in ranges, in pieces that are continued; never half, never others than the digest's."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.registry import Registry
from tests.server.conftest import Client

DATA = os.urandom(3_000_000)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
PATH = f"/v1/objects/{DIGEST}/net.pt"


def stored(team: Registry) -> list[str]:
    return [one.digest for one in team.weights.objects.iterate() if one.names]


def unfinished(team: Registry) -> list[str]:
    folder = team.folder / "objects" / "tmp"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def begun(client: Client, size: int = len(DATA), name: str = "net.pt") -> str:
    answer = client("POST", "/v1/uploads", {"digest": DIGEST, "name": name, "size": size})
    assert answer.status == 201
    return str(answer.json["id"])


def test_an_object_comes_as_a_whole_or_in_ranges(client: Client) -> None:
    """With its digest as ETag, so that a range can be asked of just this content."""
    assert client("PUT", PATH, DATA).status == 201
    assert client("PUT", PATH, DATA).status == 200

    whole, head = client("GET", PATH), client("HEAD", PATH)
    assert (whole.body == DATA, whole.headers["etag"], whole.headers["accept-ranges"]) == (True, f'"{DIGEST}"', "bytes")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(DATA)))
    for wanted, expected in (
        ("bytes=0-0", DATA[:1]),
        ("bytes=1000000-2999999", DATA[1_000_000:]),
        ("bytes=2999990-9999999", DATA[-10:]),
        ("bytes=2999999-", DATA[-1:]),
        ("bytes=-7", DATA[-7:]),
    ):
        part = client("GET", PATH, Range=wanted)
        assert (part.status, part.body) == (206, expected), wanted
        begin = len(DATA) - len(expected) if wanted.startswith("bytes=-") else int(wanted[6:].split("-")[0])
        assert part.headers["content-range"] == f"bytes {begin}-{begin + len(expected) - 1}/{len(DATA)}"
    assert client("GET", PATH, Range="bytes=3000000-").status == 416
    assert client("GET", PATH, Range="bytes=0-1", If_Range='"other"').status == 200
    assert client("GET", PATH, Range="bytes=0-1", If_Range=f'"{DIGEST}"').body == DATA[:2]
    assert client("GET", PATH, If_None_Match=f'"{DIGEST}"').status == 304
    for odd in ("bytes=5-2", "bytes=-", "bytes=0-1,5-6", "lines=0-1", "bytes=x", f"bytes={'9' * 5000}-"):
        assert client("GET", PATH, Range=odd).body == DATA


def test_an_object_is_found_under_any_name(client: Client) -> None:
    """Its bytes are the same."""
    client("PUT", PATH, DATA)

    assert client("GET", f"/v1/objects/{DIGEST}/other%20name.bin").body == DATA
    assert client("GET", f"/v1/objects/sha256:{'0' * 64}/net.pt").status == 404


def test_every_size_arrives(client: Client, team: Registry) -> None:
    """Both ways; of nothing there is a digest too."""
    sizes = (0, 1, 1 << 20, (1 << 20) + 1)
    for size in sizes:
        data = DATA[:size]
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        upload = client("POST", "/v1/uploads", {"digest": digest, "name": "a", "size": size}).json

        assert client("PATCH", f"/v1/uploads/{upload['id']}", data, Upload_Offset="0").status == 204
        assert client("GET", f"/v1/objects/{digest}/a").body == data
        assert client("PUT", f"/v1/objects/{digest}/b", data).status == 201
    assert (len(stored(team)), unfinished(team)) == (len(sizes), [])


def test_an_upload_goes_on_where_it_ended(client: Client, team: Registry) -> None:
    """Piece by piece; nothing is visible before the last one, and the digest is right."""
    upload = f"/v1/uploads/{begun(client)}"
    assert client("PATCH", upload, DATA[:1_500_000], Upload_Offset="0").headers["upload-offset"] == "1500000"
    assert stored(team) == []

    assert client("PATCH", upload, DATA, Upload_Offset="0").status == 409
    assert client("PATCH", upload, DATA[9:], Upload_Offset="9").headers["upload-offset"] == "1500000"
    again = client("POST", "/v1/uploads", {"digest": DIGEST, "name": "net.pt", "size": len(DATA)})
    assert (again.status, f"/v1/uploads/{again.json['id']}", again.json["offset"]) == (200, upload, 1_500_000)
    state = client("HEAD", upload)
    assert (state.headers["upload-offset"], state.headers["upload-length"]) == ("1500000", str(len(DATA)))
    assert client("PATCH", upload, DATA[1_500_000:], Upload_Offset="1500000").status == 204
    assert client("GET", PATH).body == DATA
    assert client("HEAD", upload).status == 404
    assert client("POST", "/v1/uploads", {"digest": DIGEST, "name": "net.pt", "size": len(DATA)}).json["complete"]
    assert unfinished(team) == []


def test_other_bytes_than_those_of_the_digest_are_never_stored(client: Client, team: Registry) -> None:
    """Too many, too few with an end, or damaged on the way; what came of them is gone."""
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    assert client("PUT", PATH, wrong).status == 422
    assert client("PUT", PATH, DATA[:-1]).status == 422
    assert client("PATCH", f"/v1/uploads/{begun(client)}", wrong, Upload_Offset="0").status == 422
    assert (stored(team), unfinished(team)) == ([], [])

    upload = f"/v1/uploads/{begun(client)}"
    assert client("PATCH", upload, DATA + b"x", Upload_Offset="0").status == 400
    assert stored(team) == []
    assert client("DELETE", upload).status == 204
    assert unfinished(team) == []


TRICKS = [
    f"/v1/objects/{DIGEST}/..%2F..%2F..%2Fmodelstore.json",
    f"/v1/objects/{DIGEST}/../../../modelstore.json",
    f"/v1/objects/{DIGEST}/..",
    f"/v1/objects/{DIGEST}/%2e%2e",
    f"/v1/objects/{DIGEST}/a%00b",
    f"/v1/objects/{DIGEST}/a%5Cb",
    f"/v1/objects/{DIGEST}/{'x' * 201}",
    f"/v1/objects/{DIGEST}/{quote('é' * 101)}",
    "/v1/objects/sha256:../../modelstore.json",
    f"/v1/objects/{'0' * 64}/x",
    f"/v1/objects/sha256:{'A' * 64}/x",
    f"/v1/objects/md5:{'0' * 32}/x",
    "/v1/objects/..%2f..%2fmodelstore.json/x",
]


def test_no_trick_in_a_path_leads_out_of_the_objects(client: Client, team: Registry) -> None:
    """Neither to read nor to write."""
    for path in TRICKS:
        assert client("GET", path).status in (400, 404), path
        assert client("PUT", path, DATA).status in (400, 404, 405), path
    assert stored(team) == []


def test_no_trick_in_a_name_gets_into_an_upload(client: Client, team: Registry) -> None:
    """The names of uploads are made by the server."""
    for name in ("..", "a/b", "a\\b", "", "x" * 201, "a\x00b", "\ud800"):
        assert client("POST", "/v1/uploads", {"digest": DIGEST, "name": name, "size": 1}).status == 400, name
    for bad in ("../x", "..%2Fx", "0" * 31, "G" * 32):
        assert client("PATCH", f"/v1/uploads/{bad}", b"", Upload_Offset="0").status in (404, 405)
    assert unfinished(team) == []


def test_an_upload_belongs_to_its_token(people: dict[str, Client]) -> None:
    """Two who send the same object do not get in each other's way."""
    one, other = begun(people["write"]), begun(people["admin"])

    assert one != other
    assert people["admin"]("PATCH", f"/v1/uploads/{one}", DATA, Upload_Offset="0").status == 404
    assert people["write"]("PATCH", f"/v1/uploads/{one}", DATA, Upload_Offset="0").status == 204


def test_an_upload_without_room_is_refused_before_it_begins(client: Client) -> None:
    """Rather than when the disk is full."""
    answer = client("POST", "/v1/uploads", {"digest": DIGEST, "name": "x", "size": 2**62})

    assert (answer.status, answer.json["error"]["type"]) == (507, "StorageFullError")


@pytest.fixture
def half_sent(client: Client) -> Iterator[str]:
    """An upload whose sender has stopped in the middle, with the connection open."""
    upload = begun(client)
    with _half(client, "PATCH", f"/v1/uploads/{upload}"):
        while client("HEAD", f"/v1/uploads/{upload}").headers["upload-offset"] == "0":
            time.sleep(0.01)
        yield upload


def _half(client: Client, method: str, path: str) -> socket.socket:
    place = urlsplit(client.url)
    line = socket.create_connection((place.hostname, place.port or 0))
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpload-Offset: 0\r\nContent-Length: {len(DATA)}\r\n\r\n"
    line.sendall(head.encode() + DATA[:2_500_000])
    return line


def test_two_do_not_write_into_one_upload(client: Client, half_sent: str) -> None:
    """Whoever comes while another is sending is told to wait, or begins one of his own."""
    refused = client("PATCH", f"/v1/uploads/{half_sent}", b"", Upload_Offset="0")

    assert (refused.status, refused.json["error"]["type"]) == (503, "UploadBusy")
    own = begun(client)
    assert own != half_sent
    assert client("PATCH", f"/v1/uploads/{own}", DATA, Upload_Offset="0").status == 204
    assert client("GET", PATH).body == DATA


def test_what_came_before_a_line_went_dead_is_kept(client: Client, team: Registry) -> None:
    """Of an upload; of an object in one piece nothing is."""
    with _half(client, "PUT", PATH):
        pass
    upload = begun(client)
    with _half(client, "PATCH", f"/v1/uploads/{upload}"):
        pass
    while (offset := client("HEAD", f"/v1/uploads/{upload}").headers["upload-offset"]) != "2500000":
        time.sleep(0.01)

    answer = client("PATCH", f"/v1/uploads/{upload}", DATA[int(offset) :], Upload_Offset=offset)
    while answer.status == 503:  # the server has not noticed yet that the other is gone
        answer = client("PATCH", f"/v1/uploads/{upload}", DATA[int(offset) :], Upload_Offset=offset)
    assert answer.status == 204
    assert client("GET", PATH).body == DATA
    assert unfinished(team) == []


def test_leftovers_of_uploads_go_after_a_day(client: Client, team: Registry, tmp_path: Path) -> None:
    """Nobody will continue them."""
    from modelstore.server.uploads import Uploads

    client("PATCH", f"/v1/uploads/{begun(client)}", DATA[:9], Upload_Offset="0")
    Uploads(team).sweep()
    assert len(unfinished(team)) == 2
    for path in (team.folder / "objects" / "tmp").iterdir():
        os.utime(path, (1, 1))

    Uploads(team).sweep()
    assert unfinished(team) == []
