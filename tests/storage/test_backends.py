"""The contract of storages, run against each: real servers, started here, where their packages are installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstore.errors import IntegrityError, InvalidUriError, ModelStoreError, ReadOnlyStorageError
from modelstore.storage.blobs import delete, exists, open_file, stat
from modelstore.storage.filesystems import open_filesystem, split_remote
from modelstore.storage.packages import pack
from modelstore.storage.transfer import download
from modelstore.storage.uploads import upload
from modelstore.storage.uris import join
from modelstore.testing.httpserver import http_server
from modelstore.testing.storage import HASTY, NAMES, Notes, StorageContract
from tests.npm import azure_connection, azure_server, free_port, npm_program, npm_server

SECRET = "s3cret-" + uuid.uuid4().hex  # in every credential below, and in no message


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


class TestLocal(StorageContract):
    has_etags = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return str(tmp_path / "modelstore-home" / "a place")


class TestFileUri(StorageContract):
    has_etags = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return (tmp_path / "modelstore-home" / "ä place").as_uri()


class TestMemory(StorageContract):
    has_etags = False

    @pytest.fixture
    def place(self) -> Iterator[str]:
        name = f"memory://{uuid.uuid4().hex}"
        yield name
        fs, path = open_filesystem(name)
        if fs.exists(path):
            fs.rm(path, recursive=True)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@needs("s3fs", "moto", "flask")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestS3(StorageContract):
    @pytest.fixture
    def place(self, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = f"bucket-{uuid.uuid4().hex}"
        fs, _ = open_filesystem(f"s3://{bucket}")
        fs.clear_instance_cache()
        fs, _ = open_filesystem(f"s3://{bucket}")
        fs.mkdir(bucket)
        return f"s3://{bucket}/models"

    def test_the_etag_is_checked_and_a_crashed_upload_is_continued(self, place: str, tmp_path: Path) -> None:
        """The parts that arrived before the crash are not sent again; those that differ are."""
        data = os.urandom(40 << 20)
        (tmp_path / "a").write_bytes(data)
        notes, uri = Notes(), join(place, "a")

        class CrashError(Exception):
            pass

        def crash(done: int, _total: int | None) -> None:
            if done > 20 << 20:
                raise CrashError

        with pytest.raises(CrashError):
            upload(tmp_path / "a", uri, checkpoint=notes, progress=crash)
        assert not exists(uri)
        assert notes.state is not None
        state = notes.state
        done = upload(tmp_path / "a", uri, checkpoint=notes)

        assert notes.state == state
        assert done.etag is not None
        assert done.etag.strip('"').endswith("-5")
        assert self.raw_read(uri, {}) == data

    def test_a_failed_upload_without_a_checkpoint_leaves_no_parts(self, place: str, tmp_path: Path) -> None:
        """They would be paid for, unseen, for ever."""
        (tmp_path / "a").write_bytes(bytes(40 << 20))

        def fail(done: int, _total: int | None) -> None:
            if done > 10 << 20:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            upload(tmp_path / "a", join(place, "a"), progress=fail)
        fs, path = open_filesystem(place)
        assert fs.list_multipart_uploads(path.partition("/")[0]) == []

    def test_clearmls_form_with_host_and_port(self, place: str, s3_server: str, tmp_path: Path) -> None:
        """`s3://host:port/bucket/key` is how ClearML writes MinIO."""
        (tmp_path / "a").write_bytes(b"x")
        upload(tmp_path / "a", join(place, "a"))
        uri = place.replace("s3://", s3_server.replace("http://", "s3://") + "/") + "/a"
        download(uri, tmp_path / "b")

        assert (tmp_path / "b").read_bytes() == b"x"

    def test_an_archive_in_a_bucket_is_read_by_a_chain(self, place: str, tmp_path: Path) -> None:
        """One member out of a package, without the others."""
        (tmp_path / "w").write_bytes(b"weights" * 1000)
        pack([("in/w.pt", tmp_path / "w"), ("other", tmp_path / "w")], tmp_path / "a.zip")
        upload(tmp_path / "a.zip", join(place, "a.zip"))
        came = download(f"zip://in/w.pt::{place}/a.zip", tmp_path / "b")

        assert (tmp_path / "b").read_bytes() == b"weights" * 1000
        assert came.fingerprint.size == 7000

    def test_a_missing_bucket_is_an_error_of_ours(self, place: str, tmp_path: Path) -> None:
        """On every way to it."""
        del place
        (tmp_path / "a").write_bytes(b"x")
        uri = f"s3://no-such-bucket-{uuid.uuid4().hex}/a"
        for action in (
            lambda: upload(tmp_path / "a", uri, patience=HASTY),
            lambda: download(uri, tmp_path / "b", patience=HASTY),
            lambda: stat(uri),
        ):
            with pytest.raises(ModelStoreError) as caught:
                action()
            assert SECRET not in str(caught.value)


@pytest.fixture(scope="module")
def s3rver_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    folder = str(tmp_path_factory.mktemp("s3rver"))
    yield from npm_server(
        [str(npm_program("s3rver")), "--silent", "--address", "127.0.0.1", "--port", str(port), "--directory", folder],
        port,
    )


@needs("s3fs")
@pytest.mark.skipif(npm_program("s3rver") is None, reason="needs s3rver: `make test-azure` installs it")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestS3OfAnotherMaker(StorageContract):
    """What only moto's server does like this would show here."""

    @pytest.fixture
    def place(self, s3rver_server: int, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{s3rver_server}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "S3RVER")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3RVER")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = f"bucket-{uuid.uuid4().hex}"
        fs, _ = open_filesystem(f"s3://{bucket}")
        fs.clear_instance_cache()
        fs, _ = open_filesystem(f"s3://{bucket}")
        fs.mkdir(bucket)
        return f"s3://{bucket}/models"


@pytest.fixture(scope="module")
def gs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from gcp_storage_emulator.server import create_server

    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@needs("gcsfs", "gcp_storage_emulator")
@pytest.mark.filterwarnings("ignore")
class TestGoogle(StorageContract):
    names = tuple(name for name in NAMES if ";" not in name and "%" not in name)  # the emulator cannot

    @pytest.fixture
    def place(self, gs_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs_server)
        bucket = f"bucket-{uuid.uuid4().hex}"
        fs, _ = open_filesystem(f"gs://{bucket}", {"token": "anon", "project": "p"})
        fs.mkdir(bucket)
        return f"gs://{bucket}/models"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"token": "anon", "project": "p"}


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from azure_server(str(tmp_path_factory.mktemp("azure")))


@needs("adlfs")
@pytest.mark.skipif(npm_program("azurite-blob") is None, reason="needs Azurite: `make test-azure` installs it")
@pytest.mark.filterwarnings("ignore")
class TestAzure(StorageContract):
    @pytest.fixture
    def place(self, azure: int, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure_connection(azure))
        container = f"box-{uuid.uuid4().hex}"
        fs, _ = open_filesystem(f"az://{container}")
        fs.mkdir(container)
        return f"az://{container}/models"


@pytest.fixture(scope="module")
def ftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer

    authorizer = DummyAuthorizer()
    authorizer.add_user("me", SECRET, str(tmp_path_factory.mktemp("ftp")), perm="elradfmwMT")

    class Handler(FTPHandler):  # type: ignore[misc] # the library has no types
        encoding = "utf-8"

    Handler.authorizer = authorizer
    server = ThreadedFTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.05, "handle_exit": False}, daemon=True)
    thread.start()
    yield int(server.address[1])
    server.close_all()
    thread.join(5)


@needs("pyftpdlib")
@pytest.mark.filterwarnings("ignore")
class TestFtp(StorageContract):
    names = tuple(name for name in NAMES if ";" not in name)  # fsspec splits listings there
    has_etags = False

    @pytest.fixture
    def place(self, ftp_server: int) -> str:
        return f"ftp://127.0.0.1:{ftp_server}/{uuid.uuid4().hex}"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"username": "me", "password": SECRET, "encoding": "utf-8"}


@pytest.fixture(scope="module")
def sftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    import asyncio

    import asyncssh

    root = tmp_path_factory.mktemp("sftp")
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    server: list[Any] = [None]
    connections: list[Any] = []

    class Server(asyncssh.SSHServer):  # type: ignore[misc] # skipped by the type checker
        def connection_made(self, conn: Any) -> None:
            connections.append(conn)

        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("me", SECRET)

    async def serve() -> None:
        server[0] = await asyncssh.create_server(
            Server, "127.0.0.1", 0, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda chan: asyncssh.SFTPServer(chan, chroot=str(root)),
        )  # fmt: skip
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()

    async def stop() -> None:
        server[0].close()
        for connection in connections:
            connection.abort()
        await asyncio.sleep(0.1)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.1)
        loop.stop()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    yield server[0].sockets[0].getsockname()[1]
    asyncio.run_coroutine_threadsafe(stop(), loop)
    thread.join(5)
    loop.close()


@needs("asyncssh", "sshfs")
@pytest.mark.filterwarnings("ignore")
class TestSftp(StorageContract):
    has_etags = False

    @pytest.fixture
    def place(self, sftp_server: int) -> str:
        return f"sftp://me@127.0.0.1:{sftp_server}/{uuid.uuid4().hex}"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"password": SECRET, "known_hosts": None, "client_keys": None}


@pytest.fixture(scope="module")
def dav_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    from cheroot.wsgi import Server
    from wsgidav.wsgidav_app import WsgiDAVApp

    app = WsgiDAVApp({
        "provider_mapping": {"/": str(tmp_path_factory.mktemp("dav"))},
        "simple_dc": {"user_mapping": {"*": True}},
        "logging": {"enable": False}, "verbose": 0,
    })  # fmt: skip
    server = Server(("127.0.0.1", 0), app)
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield int(server.bind_addr[1])
    server.stop()
    thread.join(5)


@needs("webdav4", "wsgidav", "cheroot")
@pytest.mark.filterwarnings("ignore")
class TestWebdav(StorageContract):
    names = tuple(name for name in NAMES if ";" not in name)  # wsgidav takes what follows for parameters
    etag_resolution_s = 1.1

    @pytest.fixture
    def place(self, dav_server: int) -> str:
        return f"dav://127.0.0.1:{dav_server}/{uuid.uuid4().hex}"


# -- what is not there -------------------------------------------------------------------------------------------------


def test_a_missing_driver_says_how_to_install_it() -> None:
    """The command that helps, not the import that failed. In a child, where none of them can be imported."""
    script = """if True:
        import sys
        from modelstore.errors import MissingDriverError
        from modelstore.storage.filesystems import EXTRAS, drivers, open_filesystem

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {"s3fs", "gcsfs", "adlfs", "sshfs", "paramiko", "webdav4"}:
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Refuse())
        for name, (extra, _) in EXTRAS.items():
            command = f'pip install "modelstore-local[{extra}]"'
            assert drivers()[name] == command, drivers()
            try:
                open_filesystem(f"{name}://host/bucket/key")
            except MissingDriverError as error:
                assert command in str(error), error
                assert isinstance(error.__cause__, ImportError)
            else:
                raise AssertionError(name)
        print("all")
    """
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=Path.cwd())

    assert done.stdout == "all\n", done.stderr


@pytest.mark.parametrize(("uri", "near"), [("s33://b/k", "s3://"), ("htps://h/k", "https://"), ("gss://b", "gs://")])
def test_an_unknown_scheme_names_its_neighbours(uri: str, near: str) -> None:
    """Most are slips of the finger."""
    with pytest.raises(InvalidUriError, match=near):
        open_filesystem(uri)


def test_the_registrys_own_scheme_is_no_storage() -> None:
    """Only the registry that has the object knows where it lies."""
    with pytest.raises(InvalidUriError, match="registry"):
        open_filesystem(f"modelstore://sha256/{'0' * 64}/a")


def test_clearmls_spellings_mean_what_they_mean_there() -> None:
    """fsspec alone takes the host for a bucket."""
    assert split_remote("azure://acc.blob.core.windows.net/box/a/b") == ("az", "az://box/a/b", {"account_name": "acc"})
    assert split_remote("s3://h:9000/b/k") == ("s3", "s3://b/k", {"endpoint_url": "http://h:9000"})
    assert split_remote("s3://b/k:1") == ("s3", "s3://b/k:1", {})
    assert split_remote("gcs://b/k") == ("gs", "gs://b/k", {})


def test_chains_of_local_archives(tmp_path: Path) -> None:
    """File URIs in a chain are decoded, fsspec's caches left out, and nonsense refused."""
    (tmp_path / "w").write_bytes(b"weights")
    (tmp_path / "a b").mkdir()
    pack([("in/w.pt", tmp_path / "w")], tmp_path / "a b/c%41.zip")
    for chain in (f"zip://in/w.pt::{tmp_path}/a b/c%41.zip", f"zip://in/w.pt::simplecache::{tmp_path}/a b/c%41.zip"):
        download(chain, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"weights"
    with pytest.raises(InvalidUriError):
        open_filesystem(f"s3://b/k::{tmp_path}/x.zip")


def test_the_web_is_read_only(tmp_path: Path) -> None:
    """Said before anything is sent."""
    (tmp_path / "a").write_bytes(b"x")
    with http_server() as server:
        for action in (lambda: upload(tmp_path / "a", f"{server.url}/a"), lambda: delete(f"{server.url}/a")):
            with pytest.raises(ReadOnlyStorageError):
                action()

        assert not server.requests


def test_open_files_over_the_web_without_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain installation reads https:// weights in place, with ranges and without."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda what, *a: None if what == "aiohttp" else real(what, *a))
    data = os.urandom(300_000)
    with http_server() as server:
        for path, behaviour in (("/ranges", {}), ("/none", {"ranges": False})):
            with open_file(server.serve(path, data, **behaviour)) as stream:
                stream.seek(200_000)

                assert stream.read(10) == data[200_000:200_010]
                assert stream.read() == data[200_010:]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("etags", [("one", "two"), ("", "")])
def test_a_file_over_the_web_that_changes_while_it_is_read_is_an_error(etags: tuple[str, str], *, ranges: bool) -> None:
    """By its ETag, or by its length where there is none; bytes of two versions are never put together."""
    old, new = os.urandom(12 << 20), os.urandom((12 << 20) + 1)
    with http_server() as server:
        url = server.serve("/w", old, ranges=ranges, etag=etags[0])
        with open_file(url) as stream:
            assert stream.read(10) == old[:10]
            server.serve("/w", new if not etags[0] else new[:-1], ranges=ranges, etag=etags[1])
            stream.seek(11 << 20)
            with pytest.raises(IntegrityError, match="changed"):
                stream.read(10)


def test_a_member_of_a_changing_archive_is_an_error(tmp_path: Path) -> None:
    """What is read out of an archive is read as carefully."""
    big = tmp_path / "big"
    big.write_bytes(os.urandom(12 << 20))
    pack([("w.pt", big)], tmp_path / "c.zip")
    data = (tmp_path / "c.zip").read_bytes()
    with http_server() as server:
        url = server.serve("/c.zip", data, etag="one")
        with open_file(f"zip://w.pt::{url}") as stream:
            assert stream.read(10) == big.read_bytes()[:10]
            server.serve("/c.zip", data, etag="two")
            with pytest.raises(IntegrityError, match="changed"):
                stream.read()
