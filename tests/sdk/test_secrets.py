"""Passwords, tokens and signatures: in no file of registry or cache, no log line, no error."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelstore import InputModel, OutputModel, Registry, StorageManager, Task
from modelstore.cli.app import cli
from modelstore.errors import InvalidUriError, ModelStoreError, StorageError
from modelstore.storage.blobs import stat
from modelstore.storage.failures import translate
from modelstore.testing.httpserver import http_server

MakeFile = Callable[..., Path]

SECRET = "s3cret-0f1e2d3c4b5a"

URIS = [
    f"https://me:{SECRET}@host/a.pt",
    f"https://{SECRET}@host/a.pt",
    f"s3://key:{SECRET}@bucket/a.pt",
    f"ftp://me:{SECRET}@host/a.pt",
    f"sftp://me:{SECRET}@host/a.pt",
    f"zip://a.pt::https://me:{SECRET}@host/a.zip",
    f"https://host/a.pt?X-Amz-Signature={SECRET}&X-Amz-Date=1",
    f"https://host/a.pt?X%2DAmz%2DSignature={SECRET}",
    f"https://host/a.pt?sv=2024&sig={SECRET}",
    f"https://host/a.pt?access_token={SECRET}",
    f"https://host/a.pt?api_key={SECRET}",
    f"s3://bucket/a.pt?token={SECRET}",
]


@pytest.fixture
def nowhere(registry: Registry, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> Iterator[None]:
    """Look through everything that was written, afterwards."""
    caplog.set_level(logging.DEBUG)
    registry.check()
    yield
    registry.close()
    assert SECRET not in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "registry.db" for path in files)
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
        assert SECRET not in path.name


@pytest.mark.parametrize("uri", URIS, ids=str)
def test_a_uri_with_a_secret_is_refused_by_everything_that_would_keep_it(
    uri: str, task: Task, make_file: MakeFile, nowhere: None
) -> None:
    """The message names the address without it, and nothing was written."""
    model = OutputModel(task)
    calls: list[Callable[[], object]] = [
        lambda: InputModel.import_model(uri),
        lambda: InputModel.load_model(uri),
        lambda: model.update_weights(register_uri=uri),
        lambda: model.update_weights(make_file(), upload_uri=uri),
        lambda: model.set_upload_destination(uri),
        lambda: OutputModel.set_default_upload_uri(uri),
        lambda: setattr(task, "output_uri", uri),
        lambda: task.update_output_model(uri),
        lambda: StorageManager.upload_file(str(make_file()), f"{uri}&x"),
    ]
    for call in calls:
        with pytest.raises(ModelStoreError) as caught:
            call()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    for words in (("register", uri), ("register", str(make_file()), "--destination", uri)):
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 2
        assert SECRET not in result.stdout + result.stderr


def test_a_signed_address_can_be_downloaded_without_leaving_a_trace(
    registry: Registry, nowhere: None, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not registered, so its signature need not be kept; the cache knows the address without it."""
    with http_server() as server:
        uri = f"{server.serve('/a.pt', b'weights')}?X-Amz-Signature={SECRET}"
        path = StorageManager.get_local_copy(uri)
        missing = StorageManager.get_local_copy(uri.replace("/a.pt", "/b.pt"))

    assert path is not None
    assert Path(path).read_bytes() == b"weights"
    assert missing is None
    assert "b.pt" in caplog.text


@pytest.mark.parametrize("uri", URIS, ids=str)
def test_errors_of_a_storage_do_not_show_it_either(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what we say, nor what a library said that we pass on."""
    monkeypatch.setattr(
        "modelstore.storage.retries.random.uniform", lambda _low, _high: 0.0
    )  # no pauses between the tries
    told = translate(ConnectionError(f"Cannot connect to {uri} (through http://me:{SECRET}@proxy:1)"), uri)
    assert SECRET not in str(told)
    with pytest.raises((InvalidUriError, StorageError)) as caught:
        stat(uri.replace("host", "127.0.0.1:9").replace("s3://bucket", "http://127.0.0.1:9"))
    assert SECRET not in str(caught.value)


def test_the_environments_destination_is_held_to_the_same(
    monkeypatch: pytest.MonkeyPatch, make_file: MakeFile, nowhere: None
) -> None:
    """A variable is where people put such things."""
    monkeypatch.setenv("MODELSTORE_DEFAULT_OUTPUT_URI", f"https://me:{SECRET}@host/models")
    result = CliRunner().invoke(cli, ["register", str(make_file())])
    where = CliRunner().invoke(cli, ["where"])

    assert result.exit_code == 2
    assert SECRET not in result.stderr + where.stdout + where.stderr
