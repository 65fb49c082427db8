"""The registry's own objects: stored once, whole or not at all, found again by their content."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelstore.errors import (
    BlobNotFoundError,
    IntegrityError,
    InvalidRequestError,
    InvalidUriError,
    ReadOnlyStorageError,
)
from modelstore.storage.fingerprints import Fingerprint
from modelstore.storage.objects import (
    ObjectStore,
    object_uri,
    parse_object_uri,
    remote_object_uri,
    sanitise_filename,
)
from modelstore.testing import faults

HEX = "ab" + "0" * 62


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def put(store: ObjectStore, data: bytes, name: str) -> tuple[str, Fingerprint]:
    source = store.root.parent / "source"
    source.write_bytes(data)
    snapshot, fingerprint = store.snapshot(source)
    return store.put(snapshot, fingerprint, name), fingerprint


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def left_over(store: ObjectStore) -> list[str]:
    return os.listdir(store.root / "tmp")


def test_an_object_lies_under_its_digest_with_its_name_last(store: ObjectStore) -> None:
    """A framework sees the suffix, and `ls` tells a person what is what."""
    uri, fingerprint = put(store, b"weights", "model 1.pt")
    path = store.path(fingerprint.digest, "model 1.pt")

    assert path == store.root / "sha256" / fingerprint.sha256[:2] / fingerprint.sha256 / "model 1.pt"
    assert path.read_bytes() == b"weights"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert uri == f"modelstore://sha256/{fingerprint.sha256}/model%201.pt"
    assert parse_object_uri(uri) == (fingerprint.digest, "model 1.pt")
    assert store.find(fingerprint.digest) == path
    assert store.verify(fingerprint.digest) == fingerprint
    assert left_over(store) == []


def test_the_umask_holds(store: ObjectStore) -> None:
    """Whoever keeps their files private keeps their models private."""
    before = os.umask(0o077)
    try:
        _, fingerprint = put(store, b"weights", "a")
    finally:
        os.umask(before)

    assert stat.S_IMODE(store.path(fingerprint.digest, "a").stat().st_mode) == 0o400


def test_the_same_content_twice_keeps_the_first_file(store: ObjectStore) -> None:
    """Somebody may have it open or mapped; and it costs no space."""
    uri, fingerprint = put(store, b"weights", "a.pt")
    first = store.path(fingerprint.digest, "a.pt").stat()
    again, _ = put(store, b"weights", "a.pt")

    assert again == uri
    assert store.path(fingerprint.digest, "a.pt").stat().st_ino == first.st_ino
    assert left_over(store) == []


def test_the_same_content_under_another_name_is_a_link(store: ObjectStore) -> None:
    """Two names, one set of blocks."""
    _, fingerprint = put(store, b"weights", "a.pt")
    put(store, b"weights", "b.pt")
    one, two = (store.path(fingerprint.digest, name).stat() for name in ("a.pt", "b.pt"))
    [stored] = store.iterate()

    assert one.st_ino == two.st_ino
    assert stored.names == ("a.pt", "b.pt")
    assert stored.size == 7
    assert left_over(store) == []


def test_without_hard_links_there_are_two_files(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some filesystems have none."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    put(store, b"weights", "a.pt")
    _, fingerprint = put(store, b"weights", "b.pt")

    assert store.path(fingerprint.digest, "b.pt").read_bytes() == b"weights"
    assert left_over(store) == []


def test_storing_again_repairs_a_truncated_object(store: ObjectStore) -> None:
    """The bytes are in hand; keeping the broken ones instead would be absurd."""
    _, fingerprint = put(store, b"weights", "a.pt")
    path = store.path(fingerprint.digest, "a.pt")
    path.chmod(0o644)
    path.write_bytes(b"wei")
    put(store, b"weights", "a.pt")

    assert path.read_bytes() == b"weights"


def test_storing_again_tells_a_collector_that_it_is_wanted(store: ObjectStore) -> None:
    """What looks old and unused may just have been stored by a process whose row is not there yet."""
    _, fingerprint = put(store, b"weights", "a.pt")
    folder = store.path(fingerprint.digest, "a.pt").parent
    os.utime(folder, (0, 0))
    put(store, b"weights", "a.pt")
    [stored] = store.iterate()

    assert stored.changed_at > 1e9


def test_damage_is_found(store: ObjectStore) -> None:
    """One flipped bit is enough, and every name of the object is looked at."""
    _, fingerprint = put(store, b"weights", "a.pt")
    path = store.path(fingerprint.digest, "a.pt")
    path.chmod(0o644)
    path.write_bytes(b"weighte")

    with pytest.raises(IntegrityError, match="damaged"):
        store.verify(fingerprint.digest)


def test_removing_frees_everything_once(store: ObjectStore) -> None:
    """Two names of one content are not twice its bytes."""
    _, fingerprint = put(store, b"weights", "a.pt")
    put(store, b"weights", "b.pt")

    assert store.remove(fingerprint.digest) == 7
    assert store.remove(fingerprint.digest) == 0
    assert store.find(fingerprint.digest) is None
    assert list(store.iterate()) == []
    with pytest.raises(BlobNotFoundError):
        store.verify(fingerprint.digest)


def test_an_empty_store_has_nothing(store: ObjectStore) -> None:
    """Reading makes no folders."""
    assert list(store.iterate()) == []
    assert store.find(f"sha256:{HEX}") is None
    assert store.remove(HEX) == 0
    assert store.clean() == 0
    assert not store.root.exists()


def test_only_old_leftovers_are_cleaned(store: ObjectStore) -> None:
    """A young snapshot may be somebody's work."""
    old, young = store.temporary(), store.temporary()
    old.write_bytes(b"old")
    young.write_bytes(b"young")
    os.utime(old, (0, 0))

    assert store.clean(3600) == 3
    assert left_over(store) == [young.name]
    assert store.clean(0) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_says_so(store: ObjectStore) -> None:
    """Not "permission denied: 5f2c…"."""
    store.root.mkdir()
    store.root.chmod(0o500)

    with pytest.raises(ReadOnlyStorageError):
        store.temporary()


def test_many_writers_of_one_content_agree(store: ObjectStore) -> None:
    """Eight threads, two names, one of them removing it all the time: no error, and never a wrong byte."""
    data = os.urandom(5000)
    source = store.root.parent / "source"
    source.write_bytes(data)
    errors: list[BaseException] = []
    done = threading.Event()

    def write(number: int) -> None:
        try:
            for _ in range(40):
                snapshot, fingerprint = store.snapshot(source, durable=False)
                store.put(snapshot, fingerprint, f"{number % 2}.pt", durable=False)
        except BaseException as error:  # noqa: BLE001 - told by the assertion
            errors.append(error)

    def remove() -> None:
        while not done.is_set():
            for stored in list(store.iterate()):
                store.remove(stored.digest)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(7)]
    remover = threading.Thread(target=remove)
    for thread in (*threads, remover):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    remover.join()

    assert errors == []
    assert left_over(store) == []
    for stored in store.iterate():
        assert stored.names == () or store.verify(stored.digest).size == 5000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", range(1, 5))
@pytest.mark.parametrize("before", [None, "same.pt", "other.pt"])
def test_a_killed_put_leaves_all_or_nothing(store: ObjectStore, step: int, before: str | None) -> None:
    """kill -9 at each numbered step: the object is whole or absent, and putting it again works."""
    data = os.urandom(3000)
    source = store.root.parent / "source"
    source.write_bytes(data)
    if before is not None:
        put(store, data, before)
    snapshot, fingerprint = store.snapshot(source)
    child = os.fork()
    if child == 0:
        faults.install(f"objects.put.{step}=kill")
        store.put(snapshot, fingerprint, "same.pt")
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    target = store.path(fingerprint.digest, "same.pt")
    assert target.exists() == (step == 4 or before == "same.pt")
    for stored in store.iterate():
        assert all(store.path(stored.digest, name).read_bytes() == data for name in stored.names)
    store.clean(0)
    put(store, data, "same.pt")
    assert target.read_bytes() == data
    assert left_over(store) == []


NAMES = st.text(max_size=300)


@given(NAMES)
@example("a" * 500 + ".tar.gz")
@example("x." + "y" * 300)
@example("." * 201)
@example("🤗" * 100 + ".safetensors")
def test_a_sanitised_name_is_one_component_and_stays(name: str) -> None:
    """It becomes a file name here, a key there, and part of a URI."""
    clean = sanitise_filename(name)

    assert clean not in {"", ".", ".."}
    assert not set(clean) & set("/\\\0\n")
    assert len(clean.encode()) <= 200
    assert sanitise_filename(clean) == clean
    assert parse_object_uri(object_uri(HEX, name)) == (f"sha256:{HEX}", clean)


@pytest.mark.parametrize(
    ("name", "clean"),
    [("model.pt", "model.pt"), ("🤗.bin", "🤗.bin"), ("a/b", "a_b"), ("..", "__"), ("", "file"), (".hidden", ".hidden"),
     ("a\x7fb", "a_b"), ("x" * 300 + ".safetensors", "x" * 188 + ".safetensors"), ("\ud800", "_")],
)  # fmt: skip
def test_names_keep_what_they_can(name: str, clean: str) -> None:
    """Suffix first: frameworks go by it."""
    assert sanitise_filename(name) == clean


@pytest.mark.parametrize(
    "uri", ["modelstore://sha256/abc/x", f"modelstore://md5/{HEX}/x", f"modelstore://sha256/{HEX}",
            f"modelstore://sha256/{HEX}/a/b", f"modelstore://sha256/{HEX}/..", f"modelstore://sha256/{HEX}/a%2Fb"],
)  # fmt: skip
def test_malformed_object_uris_are_refused(uri: str) -> None:
    """They come from journals that others wrote."""
    with pytest.raises(InvalidUriError):
        parse_object_uri(uri)


def test_other_uris_are_not_objects() -> None:
    """None, so that callers can go on to treat them as what they are."""
    assert parse_object_uri("s3://bucket/key") is None


@pytest.mark.parametrize("digest", ["", "sha256:abc", "md5:" + "0" * 64, HEX.upper(), f"sha256:{HEX}/.."])
def test_only_digests_are_looked_up(store: ObjectStore, digest: str) -> None:
    """Anything else could be a path out of the folder."""
    with pytest.raises(InvalidRequestError):
        store.find(digest)


@given(st.binary(max_size=8), st.binary(max_size=8), NAMES, NAMES)
def test_two_contents_never_share_an_address(a: bytes, b: bytes, name: str, other: str) -> None:
    """Whatever they are called."""
    one, two = digest(a), digest(b)
    uris = remote_object_uri("s3://bucket/models/", one, name), remote_object_uri("s3://bucket/models", two, other)

    assert (uris[0] == uris[1]) == (a == b and sanitise_filename(name) == sanitise_filename(other))
    assert uris[0].startswith(f"s3://bucket/models/sha256/{one[7:9]}/{one[7:]}/")
