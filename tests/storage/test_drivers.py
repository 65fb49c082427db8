"""Storages whose drivers come from elsewhere and read their arguments out of the URI, against imitations of them."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import BlobNotFoundError, InvalidUriError, StorageUnavailableError
from modelstore.storage.blobs import open_file, stat
from modelstore.storage.filesystems import open_filesystem
from modelstore.storage.retries import Patience
from modelstore.storage.transfer import download
from tests.web import serving

DATA = os.urandom(6 << 20)  # more than one part
BLOB = "a" * 40


class _Site(BaseHTTPRequestHandler):
    """Answers what `answer` knows: JSON, or bytes of which ranges can be had."""

    protocol_version = "HTTP/1.1"

    def answer(self, path: str) -> Any:
        raise NotImplementedError

    def do_GET(self) -> None:
        self._send(self.answer(self.path))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._send(self.answer(self.path))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Silence."""

    def _send(self, found: Any) -> None:
        body = found if isinstance(found, bytes) else json.dumps(found or {}).encode()
        self.send_response(404 if found is None else 200)
        if found is None:  # as the hub says it
            missing = "Revision" if "/revision/" in self.path else "Entry" if "/tree/" in self.path else "Repo"
            self.send_header("X-Error-Code", f"{missing}NotFound")
        if isinstance(found, bytes) and (wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            begin, end = int(wanted[1]), min(int(wanted[2] or len(body)) + 1, len(body))
            self._headers_buffer.clear()  # type: ignore[attr-defined] # the status line, which is another one
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(body)}")
            body = body[begin:end]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Hub(_Site):
    def answer(self, path: str) -> Any:
        file = {"type": "file", "oid": BLOB, "size": len(DATA), "path": "nets/w.bin"}
        if re.fullmatch(r"/api/models/me/net/tree/(main|v1)/nets\?.*", path):
            return [file]
        if re.fullmatch(r"/api/models/me/net(/revision/v1)?", path):
            return {"id": "me/net", "_id": "1", "sha": "b" * 40, "private": False, "tags": [], "siblings": []}
        return DATA if re.fullmatch(r"/me/net/resolve/(main|v1)/nets/w.bin", path) else None


@pytest.fixture
def hub() -> Iterator[dict[str, Any]]:
    """Options that lead the driver of ``hf://`` here."""
    pytest.importorskip("huggingface_hub", reason="the driver of hf://")
    with serving(_Hub) as url:
        yield {"endpoint": url, "token": False}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("revision", ["", "@v1"])
def test_weights_on_the_hugging_face_hub_are_fetched_opened_and_asked_for(
    hub: dict[str, Any], tmp_path: Path, revision: str
) -> None:
    """By its own driver, which finds owner, repository and revision in the URI."""
    uri = f"hf://me/net{revision}/nets/w.bin"
    download(uri, tmp_path / "w", storage_options=hub)
    with open_file(uri, hub) as stream:
        stream.seek(-10, os.SEEK_END)
        end = stream.read()

    assert (tmp_path / "w").read_bytes() == DATA
    assert end == DATA[-10:]
    assert (stat(uri, hub).size, stat(uri, hub).etag) == (len(DATA), BLOB)


@pytest.mark.filterwarnings("ignore")
def test_what_the_hub_does_not_have_is_not_there(hub: dict[str, Any], tmp_path: Path) -> None:
    """File, revision or repository."""
    for uri in ("hf://me/net/nets/other.bin", "hf://me/net@v2/nets/w.bin", "hf://me/other/nets/w.bin"):
        with pytest.raises(BlobNotFoundError):
            download(uri, tmp_path / "w", storage_options=hub)
    with pytest.raises(StorageUnavailableError):
        download(
            "hf://me/net/nets/w.bin",
            tmp_path / "w",
            storage_options=hub | {"endpoint": "http://127.0.0.1:9"},
            patience=Patience(attempts=1),
        )


class _GitHub(_Site):
    def answer(self, path: str) -> Any:
        trees: dict[str, Any] = {
            "/trees/v1": [{"path": "nets", "mode": "040000", "type": "tree", "sha": "t1"}],
            "/trees/t1": [{"path": "w.bin", "mode": "100644", "type": "blob", "size": 1000, "sha": BLOB}],
        }
        if path in trees:
            return {"tree": trees[path]}
        return {"content": base64.b64encode(DATA[:1000]).decode()} if path == "/contents/nets/w.bin?ref=v1" else None


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lead the driver of ``github://`` here."""
    pytest.importorskip("requests", reason="the driver of github:// needs it")
    from fsspec.implementations.github import GithubFileSystem

    with serving(_GitHub) as url:
        monkeypatch.setattr(GithubFileSystem, "url", url + "/trees/{sha}")
        monkeypatch.setattr(GithubFileSystem, "content_url", url + "/contents/{path}?ref={sha}")
        GithubFileSystem.clear_instance_cache()
        yield
        GithubFileSystem.clear_instance_cache()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("github")
def test_weights_in_a_git_repository_are_fetched(tmp_path: Path) -> None:
    """Organisation, repository and revision stand where others have a user, a password and a host."""
    uri = "github://org:repo@v1/nets/w.bin"
    download(uri, tmp_path / "w")

    assert (tmp_path / "w").read_bytes() == DATA[:1000]
    assert (stat(uri).size, stat(uri).etag) == (1000, BLOB)
    with pytest.raises(BlobNotFoundError):
        stat("github://org:repo@v1/nets/other.bin")


def test_what_a_uri_leaves_out_is_said() -> None:
    """The driver's own words are those of a Python call."""
    pytest.importorskip("requests", reason="the driver of github:// needs it")
    with pytest.raises(InvalidUriError, match=r"FSSPEC_GITHUB_") as caught:
        open_filesystem("github://nets/w.bin")

    assert "'org' and 'repo'" in str(caught.value)


@pytest.mark.parametrize("uri", ["dir://a/b", "generic://a", "data://a", "filecache://a"])
def test_what_only_stands_in_front_of_a_storage_is_none(uri: str) -> None:
    """fsspec knows them as schemes."""
    with pytest.raises(InvalidUriError, match="names no storage"):
        open_filesystem(uri)


def test_a_file_that_is_not_there_leaves_nothing_half_made() -> None:
    """Python says on standard error, on some versions, what goes wrong while an object is thrown away."""
    import gc

    seen: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, seen.append
    try:
        with pytest.raises(BlobNotFoundError):
            open_file("memory://nothing/here.pt")
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert seen == []
