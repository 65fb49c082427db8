"""Downloads: whole, verified, stubborn against servers that fail, and never half visible."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelstore.errors import (
    BlobNotFoundError,
    IntegrityError,
    ModelStoreError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from modelstore.storage import syncing
from modelstore.storage.blobs import exists
from modelstore.storage.fingerprints import hash_file
from modelstore.storage.retries import Patience
from modelstore.storage.transfer import download, fetch
from modelstore.testing import faults
from modelstore.testing.httpserver import Behaviour, HttpServer, http_server
from modelstore.testing.storage import HASTY, Notes
from tests.effort import share

BIG = 20 << 20  # three parts


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with http_server() as one:
        yield one


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(BIG + 12_345)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


SERVERS: dict[str, dict[str, Any]] = {
    "ranges": {},
    "no ranges": {"ranges": False},
    "no length": {"ranges": False, "length": False},
    "chunks": {"ranges": False, "chunked": True},
    "ranges in chunks": {"chunked": True},
    "no etag": {"etag": ""},
    "an etag that changes": {"etag": "random"},
    "dropped connections": {"drop_after": 3 << 20},
    "dropped once": {"ranges": False, "drop_after": 5 << 20, "drops": 1},
    "dropped in a chunk": {"ranges": False, "chunked": True, "drop_after": 5 << 20, "drops": 1},
    "errors": {"statuses": [500, 502, 503, 429]},
    "too many requests": {"statuses": [429], "retry_after_s": 0},
}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("size", [0, 1, 100_000, BIG + 12_345])
def test_bytes_arrive_whole_from(server: HttpServer, tmp_path: Path, data: bytes, name: str, size: int) -> None:
    """Every kind of server that there is, with objects of no, one and several parts."""
    keywords = {key: list(value) if isinstance(value, list) else value for key, value in SERVERS[name].items()}
    url = server.serve(f"/{name}/{size}.pt", data[:size], **keywords)
    came = download(url, tmp_path / "b", patience=Patience(first_pause_s=0.01), expected_size=size)

    assert (tmp_path / "b").read_bytes() == data[:size]
    assert came.fingerprint.digest == digest(data[:size])
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["b"]


def test_a_small_object_costs_one_request(server: HttpServer, tmp_path: Path) -> None:
    """No HEAD, no probe: the first request brings the bytes."""
    url = server.serve("/small", b"x" * 1000)
    download(url, tmp_path / "b")

    assert server.requests["GET /small"] == 1
    assert server.requests["HEAD /small"] == 0


def test_a_large_object_crosses_the_wire_once(tmp_path: Path, data: bytes) -> None:
    """Parallel parts do not overlap."""
    with http_server() as server:
        download(server.serve("/big", data), tmp_path / "b")

        assert server.sent_bytes == len(data)
        assert server.requests["GET /big"] <= 3


def test_parts_come_side_by_side(tmp_path: Path, data: bytes) -> None:
    """Where a connection brings little, others are opened beside it: here no part comes before all are asked for."""
    together = threading.Barrier(3, timeout=60)
    with http_server() as server:
        url = server.serve("/slow", data, gate=together.wait)
        download(url, tmp_path / "b")

        assert server.requests["GET /slow"] == 3
    assert not together.broken
    assert (tmp_path / "b").read_bytes() == data


def test_redirects_are_followed(server: HttpServer, tmp_path: Path) -> None:
    """From server to server, relative and absolute, and not for ever."""
    with http_server() as other:
        target = other.serve("/there", b"there")
        server.serve("/one", b"", redirect="/two")
        server.serve("/two", b"", redirect=target)
        server.serve("/loop", b"", redirect="/loop")
        download(f"{server.url}/one", tmp_path / "b")
        with pytest.raises(StorageUnavailableError):
            download(f"{server.url}/loop", tmp_path / "c", patience=HASTY)

    assert (tmp_path / "b").read_bytes() == b"there"


def test_credentials_of_netrc_stay_with_their_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As curl does it; a redirect must not carry them elsewhere."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password pw\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with http_server() as server:
        url = server.serve("/a", b"x", authorization="Basic bWU6cHc=")
        download(url, tmp_path / "b")
        with pytest.raises(StorageUnavailableError, match="refused"):
            download(url.replace("127.0.0.1", "localhost"), tmp_path / "c")
        own = server.serve("/own", b"x", authorization="Bearer t")
        download(own, tmp_path / "d", storage_options={"headers": {"Authorization": "Bearer t"}})

    assert (tmp_path / "b").read_bytes() == b"x"


def test_signatures_do_not_show_in_errors(server: HttpServer, tmp_path: Path) -> None:
    """Signed addresses end up in tickets and logs."""
    with pytest.raises(BlobNotFoundError) as caught:
        download(f"{server.url}/missing?X-Amz-Signature=s3cret", tmp_path / "b")

    cause = caught.value.__cause__
    assert "s3cret" not in f"{caught.value} {cause}"
    assert "missing" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, BlobNotFoundError),
        (410, BlobNotFoundError),
        (403, StorageUnavailableError),
        (500, StorageUnavailableError),
    ],
)
def test_lasting_errors_are_told_soon(
    server: HttpServer, tmp_path: Path, status: int, error: type[ModelStoreError]
) -> None:
    """Refusals at once, failures after a few attempts; and nothing is left."""
    url = server.serve(f"/status/{status}", b"x", statuses=[status] * 100)

    with pytest.raises(error):
        download(url, tmp_path / "b", patience=HASTY)
    assert not (tmp_path / "b").exists()
    assert list(tmp_path.glob(".*.part")) == []
    assert server.requests[f"GET /status/{status}"] == (3 if status == 500 else 1)


def test_a_server_that_never_gets_on_is_given_up(server: HttpServer, tmp_path: Path, data: bytes) -> None:
    """Cutting every whole answer, with no way to continue: an error, and not for ever."""
    url = server.serve("/cut", data, ranges=False, drop_after=1 << 20)

    with pytest.raises(StorageUnavailableError):
        download(url, tmp_path / "b", patience=HASTY)
    assert list(tmp_path.glob("*b*")) == []


def test_answers_from_the_wrong_place_are_not_taken(server: HttpServer, tmp_path: Path, data: bytes) -> None:
    """A broken cache in between sends other bytes than asked for, and says so."""
    url = server.serve("/shifted", data, shift=5)
    try:
        download(url, tmp_path / "b", patience=HASTY)
    except ModelStoreError:
        assert not (tmp_path / "b").exists()
    else:
        assert (tmp_path / "b").read_bytes() == data


def test_no_server_is_an_error_of_ours(tmp_path: Path) -> None:
    """Nobody listens there."""
    for scheme in ("http", "https"):
        with pytest.raises(StorageUnavailableError) as caught:
            download(f"{scheme}://127.0.0.1:9/a", tmp_path / "b", patience=HASTY)
        assert isinstance(caught.value.__cause__, OSError)


def test_wrong_bytes_are_refused(server: HttpServer, tmp_path: Path) -> None:
    """By size before they are fetched, by digest after."""
    url = server.serve("/wrong", b"wrong")

    with pytest.raises(IntegrityError, match="5 bytes"):
        download(url, tmp_path / "b", expected_size=4)
    with pytest.raises(IntegrityError, match="digest"):
        download(url, tmp_path / "b", expected_digest=digest(b"right"))
    assert not (tmp_path / "b").exists()


def test_a_file_is_continued_with_what_is_missing(tmp_path: Path, data: bytes) -> None:
    """After a kill, from whatever point the file had come to."""
    with http_server() as server:
        url = server.serve("/big", data)
        target, notes = tmp_path / "b", Notes()
        fetch(url, target, partial=notes)
        for kept in (0, 1, 9 << 20, len(data) - 1, len(data)):
            os.truncate(target, kept)
            server.sent_bytes = 0
            came = fetch(url, target, partial=notes)

            assert target.read_bytes() == data
            assert came.fingerprint == hash_file(target)
            assert server.sent_bytes == len(data) - kept


def test_another_object_is_not_glued_to_the_first(tmp_path: Path, data: bytes) -> None:
    """Same address, new content: begun again, also when it is shorter than what is here."""
    with http_server() as server:
        url = server.serve("/big", data)
        target, notes = tmp_path / "b", Notes()
        fetch(url, target, partial=notes)
        for other in (data[::-1], data[: 1 << 20], b""):
            server.serve("/big", other)
            came = fetch(url, target, partial=notes)

            assert target.read_bytes() == other
            assert came.fingerprint.digest == digest(other)


def test_an_object_that_changes_meanwhile_is_never_mixed(tmp_path: Path, data: bytes) -> None:
    """Every part says which version it is of."""
    with http_server() as server:
        url = server.serve("/moving", data, bytes_per_s=50e6)
        timer = threading.Timer(0.08, lambda: server.serve("/moving", data[::-1]))
        timer.start()
        came = download(url, tmp_path / "b", patience=Patience(first_pause_s=0.01))
        timer.join()

    assert (tmp_path / "b").read_bytes() in {data, data[::-1]}
    assert came.fingerprint == hash_file(tmp_path / "b")


@settings(max_examples=share(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(
        dict,
        ranges=st.booleans(),
        chunked=st.booleans(),
        etag=st.sampled_from([None, "", "random", '"x"', 'W/"x"']),
        drop_after=st.none() | st.integers(0, BIG),
        drops=st.integers(0, 2),
        statuses=st.lists(st.sampled_from([429, 500, 503]), max_size=2),
    ),
    st.integers(0, BIG),
)
def test_whatever_a_server_does_the_bytes_are_right_or_there_are_none(
    server: HttpServer, tmp_path: Path, data: bytes, behaviour: dict[str, Any], size: int
) -> None:
    """Failing is allowed, lying is not."""
    server.resources["/any"] = Behaviour(data[:size], **behaviour)
    target = tmp_path / "any"
    target.unlink(missing_ok=True)
    try:
        download(f"{server.url}/any", target, patience=Patience(first_pause_s=0.005))
    except StorageUnavailableError:
        assert not target.exists()
    else:
        assert target.read_bytes() == data[:size]


def test_progress_moves_within_a_part_and_is_told_from_the_calling_thread(
    server: HttpServer, tmp_path: Path, data: bytes
) -> None:
    """A bar that stands still for eight megabytes looks dead on a slow line."""
    url = server.serve("/progress", data[: 5 << 20], bytes_per_s=10e6)
    url_parts = server.serve("/progress2", data, bytes_per_s=5e6)
    seen: list[tuple[int, int | None, int]] = []

    def note(done: int, total: int | None) -> None:
        seen.append((done, total, threading.get_ident()))

    for one, size in ((url, 5 << 20), (url_parts, len(data))):
        seen.clear()
        download(one, tmp_path / "b", progress=note)

        assert seen[-1][:2] == (size, size)
        assert {thread for _, _, thread in seen} == {threading.get_ident()}
        assert len({done for done, _, _ in seen}) >= 3


def test_cancelling_leaves_nothing_and_ends_its_threads(server: HttpServer, tmp_path: Path, data: bytes) -> None:
    """Ctrl-C in the middle of a slow download is not to wait for the server."""
    cancelled = threading.Event()
    url = server.serve("/cancel", data, gate=lambda: cancelled.wait(60))

    def cancel(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(url, tmp_path / "b", progress=cancel)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("modelstore-download")]
    for thread in threads:
        thread.join(30)

    assert not [thread for thread in threads if thread.is_alive()]  # though the server still keeps them waiting
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
    cancelled.set()


def test_a_full_disk_is_told_and_freed(
    server: HttpServer, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache evicts and tries again on exactly this error."""
    real = os.pwrite

    def full(descriptor: int, block: Any, offset: int) -> int:
        if offset > 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, block, offset)

    monkeypatch.setattr(os, "pwrite", full)
    url = server.serve("/full", data)

    with pytest.raises(StorageFullError):
        download(url, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


@pytest.fixture
def sync_answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], threading.Event]:
    """Have the syncing of what arrives fail with an error number; writing goes on when it has been told."""

    def answer(number: int) -> threading.Event:
        told = threading.Event()
        real = os.pwrite

        def sync(descriptor: int) -> None:
            told.set()
            raise OSError(number, os.strerror(number))

        def write(descriptor: int, block: Any, offset: int) -> int:
            if offset > 1 << 20:
                told.wait(30)
            return real(descriptor, block, offset)

        monkeypatch.setattr(syncing, "_fdatasync", sync)
        monkeypatch.setattr(os, "pwrite", write)
        return told

    return answer


def test_a_disk_that_fails_while_bytes_arrive_ends_the_download(
    server: HttpServer, tmp_path: Path, data: bytes, sync_answers: Callable[[int], threading.Event]
) -> None:
    """The kernel tells such an error once: a later sync would succeed, and the bytes be lost."""
    told = sync_answers(errno.EIO)
    url = server.serve("/broken", data)

    with pytest.raises(StorageError, match="Input/output error"):
        download(url, tmp_path / "b")
    assert told.is_set()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_what_cannot_be_synced_early_is_synced_at_the_end(
    server: HttpServer, tmp_path: Path, data: bytes, sync_answers: Callable[[int], threading.Event]
) -> None:
    """Some filesystems know no fdatasync."""
    told = sync_answers(errno.ENOSYS)
    download(server.serve("/unknown", data), tmp_path / "b")

    assert told.is_set()
    assert (tmp_path / "b").read_bytes() == data


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", range(1, 5))
def test_a_killed_download_leaves_no_target(server: HttpServer, tmp_path: Path, step: int) -> None:
    """kill -9 at each numbered step: the old file or the new one, whole."""
    url = server.serve("/kill", b"new" * 10_000)
    target = tmp_path / "b"
    target.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        faults.install(f"transfer.download.{step}=kill")
        download(url, target)
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert target.read_bytes() == (b"new" * 10_000 if step == 4 else b"old")
    download(url, target)
    assert target.read_bytes() == b"new" * 10_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_file_killed_at_any_moment_is_a_beginning_of_the_object(tmp_path: Path, data: bytes) -> None:
    """That is what makes it resumable: no holes, whatever the order in which parts came."""
    with http_server() as server:
        url = server.serve("/any-moment", data, bytes_per_s=40e6)
        target = tmp_path / "b"
        seen = set()
        for some in (0, 1, len(data) // 3, len(data) // 2, len(data) * 3 // 4):
            target.unlink(missing_ok=True)
            child = os.fork()
            if child == 0:
                try:
                    fetch(url, target)
                finally:
                    os._exit(0)
            while some and (not target.exists() or target.stat().st_size < some):
                time.sleep(0.001)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kept = target.read_bytes() if target.exists() else b""

            assert some <= len(kept)
            assert kept == data[: len(kept)]
            seen.add(len(kept))

    assert len(seen) > 1  # the kills did hit different moments


def test_existence_is_asked_not_guessed(server: HttpServer) -> None:
    """A server that fails says nothing about what it has."""
    url = server.serve("/there", b"x")
    failing = server.serve("/failing", b"x", statuses=[403])

    assert exists(url)
    assert not exists(f"{server.url}/not-there")
    with pytest.raises(StorageUnavailableError):
        exists(failing)


@pytest.mark.parametrize("ranges", [True, False])
def test_memory_does_not_grow_with_the_object(tmp_path: Path, ranges: bool) -> None:
    """256 MiB come through a bounded number of buffers."""
    script = """if True:
        import resource, sys
        from pathlib import Path
        from modelstore.storage.transfer import download
        url, target = sys.argv[1:]
        download(url + "/small", Path(target))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert download(url + "/large", Path(target)).fingerprint.size == 256 << 20
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    with http_server() as server:
        server.serve("/small", b"x")
        server.serve("/large", bytes(256 << 20), ranges=ranges)
        grown = subprocess.run(
            [sys.executable, "-c", script, server.url, str(tmp_path / "b")],
            check=True, capture_output=True, text=True, cwd=Path.cwd(),
        ).stdout  # fmt: skip

    assert int(grown) < (128 << 10 if ranges else 32 << 10)  # KiB
