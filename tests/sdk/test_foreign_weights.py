"""Weights that are somebody else's: registered by URL, and perhaps no longer what they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstore import InputModel, Model, Registry
from modelstore.errors import DownloadError, IntegrityError
from modelstore.testing.httpserver import HttpServer, http_server


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as running:
        yield running


def local(model: Model | InputModel, *, force: bool = False) -> bytes:
    return Path(str(model.get_local_copy(raise_on_error=True, force_download=force))).read_bytes()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_change_under_an_unpublished_url_is_reported_and_the_new_bytes_are_given(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with both digests; whoever asked for the newest bytes gets them."""
    model = InputModel.import_model(server.serve("/a.pt", b"first"))
    assert local(model) == b"first"
    server.serve("/a.pt", b"second")
    assert local(model) == b"first"
    caplog.clear()
    assert local(model, force=True) == b"second"
    assert digest(b"first") in caplog.text
    assert digest(b"second") in caplog.text
    caplog.clear()
    assert local(model, force=True) == b"second"
    assert not caplog.records


def test_a_change_under_a_published_url_is_an_error(server: HttpServer, registry: Registry) -> None:
    """What was fetched before the publication is what was published, here and wherever the journal goes."""
    model = InputModel.import_model(server.serve("/a.pt", b"first"))
    local(model)
    model.publish()
    assert (model.digest, model.size) == (digest(b"first"), 5)
    server.serve("/a.pt", b"other")
    with pytest.raises(DownloadError) as caught:
        local(model, force=True)

    assert isinstance(caught.value.__cause__, IntegrityError)
    assert local(model) == b"first"
    registry.rebuild()
    assert Model(model.id).digest == digest(b"first")
    assert registry.check(deep=True) == []


def test_what_is_fetched_first_after_the_publication_counts(server: HttpServer) -> None:
    """Nothing was known when it was published; from the first copy on, everything is."""
    model = InputModel.import_model(server.serve("/a.pt", b"first"), create_as_published=True)
    assert local(model) == b"first"
    server.serve("/a.pt", b"other")

    with pytest.raises(DownloadError):
        local(model, force=True)


def test_reading_does_not_make_a_model_the_one_changed_last(server: HttpServer, registry: Registry) -> None:
    """The order of queries, and the history, are those of changes."""
    old = InputModel.import_model(server.serve("/a.pt", b"a"))
    new = InputModel.import_model(server.serve("/b.pt", b"b"))
    before = [operation for _, operation in registry.operations()]
    local(old)

    assert [model.id for model in Model.query_models()] == [new.id, old.id]
    assert [operation for _, operation in registry.operations()] == before


def test_a_removed_and_restored_cache_does_not_hide_a_change(
    server: HttpServer, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """The registry remembers what it was, not the cache."""
    model = InputModel.import_model(server.serve("/a.pt", b"first"))
    local(model)
    registry.weights.cache.release(digest(b"first"))
    registry.weights.cache.clear()
    server.serve("/a.pt", b"second")
    caplog.clear()

    assert local(model) == b"second"
    assert "have changed" in caplog.text
