"""The download cache against a model of it: a Hypothesis state machine, with what it takes to run one.

    TestCache = CacheMachine.TestCase

`FolderOrigin` and the checks are re-exported here; the soak of kills is `modelstore.testing.cache_soak`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelstore.cache import Cache, CachedFile
from modelstore.cache.process import forget_processes
from modelstore.errors import IntegrityError, StorageUnavailableError
from modelstore.testing.cache_origin import (
    FolderDownload,
    FolderOrigin,
    check_bytes,
    check_folder,
    damage,
    extract_copy,
)

__all__ = ["CacheMachine", "FolderDownload", "FolderOrigin", "check_bytes", "check_folder", "damage", "extract_copy"]

_URIS = [f"s3://bucket/{folder}/{name}" for folder in "ab" for name in ("net.pt", "net.bin", "réseau 1.h5")]
_CONTENTS = [b"", b"x", b"y" * 100, b"z" * 5000, b"w" * 70_000]


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class CacheMachine(RuleBasedStateMachine):
    """One or two `Cache` objects on one folder, against a dictionary.

    The model is kept simple on purpose. For each URI it knows what the origin holds and what the cache last returned.
    A URI is *settled* when nothing has disturbed its bytes since: then the same path must come back without touching
    the origin. Otherwise the old bytes or the origin's may come back, and nothing else.
    """

    uris = Bundle("uris")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="modelstore-machine-"))
        self.origin = FolderOrigin(self.folder / "origin", block_bytes=1 << 12)
        self.caches = [self._open(), self._open()]
        self.held: dict[str, CachedFile] = {}  # by digest: what this process was handed and has not let go
        self.last: dict[str, CachedFile] = {}  # by URI
        self.settled: set[str] = set()
        self.unindexed: set[str] = set()
        self.damaged: set[str] = set()
        self.pinned: set[str] = set()
        self.behind: dict[str, bytes] = {}

    def teardown(self) -> None:
        """Leave nothing behind."""
        forget_processes()
        shutil.rmtree(self.folder)

    def _open(self) -> Cache:
        return Cache(self.folder / "cache", max_bytes=1 << 30, min_free_bytes=0)

    def _disturb(self, digest: str) -> None:
        self.settled -= {uri for uri, file in self.last.items() if file.digest == digest}

    def _forgotten(self) -> None:
        self.settled.clear()
        self.unindexed = set(self.last)

    def _returned(self, uri: str, file: CachedFile) -> None:
        check_bytes(file)
        self.held[file.digest] = self.last[uri] = file
        if file.fetched:
            self.unindexed.discard(uri)
        if uri not in self.unindexed:  # what comes from this process's memory alone may have to be fetched again
            self.settled.add(uri)
        self.damaged.discard(file.digest)

    @initialize(target=uris, content=st.sampled_from(_CONTENTS))
    def start(self, content: bytes) -> str:
        """Let there be one URI at least."""
        self.origin.put(_URIS[0], content)
        self.behind[_URIS[0]] = content
        return _URIS[0]

    @rule(target=uris, uri=st.sampled_from(_URIS), content=st.sampled_from(_CONTENTS))
    def put(self, uri: str, content: bytes) -> str:
        """The origin changes, or appears; the cache is not told."""
        self.origin.put(uri, content)
        self.behind[uri] = content
        return uri

    @rule(uri=uris, which=st.booleans(), verify=st.booleans())
    def fetch(self, uri: str, which: bool, verify: bool) -> None:  # noqa: FBT001
        """What is settled comes back as it was; else what was cached, or what the origin holds."""
        before, settled = self.origin.reads(), uri in self.settled
        file = self.caches[which].fetch(uri, self.origin, verify=verify)
        if settled:
            assert self.origin.reads() == before, "a hit touched the origin"
            assert (file.path, file.digest) == (self.last[uri].path, self.last[uri].digest)
        possible = {_digest(self.behind[uri])} | ({self.last[uri].digest} if uri in self.last else set())
        assert file.digest in possible
        self._returned(uri, file)

    @rule(uri=uris, which=st.booleans())
    def force(self, uri: str, which: bool) -> None:  # noqa: FBT001
        """What the origin holds now, in one read; equal bytes under an equal name keep their path."""
        before = self.origin.reads()
        file = self.caches[which].fetch(uri, self.origin, force_download=True)
        assert self.origin.reads() == before + 1
        assert file.fetched
        assert file.path.read_bytes() == self.behind[uri]
        before_it = self.last.get(uri)
        if before_it is not None and (before_it.digest, before_it.path.name) == (file.digest, file.path.name):
            assert file.path == before_it.path
        self._returned(uri, file)

    @rule(uri=uris)
    def expect(self, uri: str) -> None:
        """With the digest of what the origin holds, nothing else may come back, whatever was cached before."""
        content = self.behind[uri]
        file = self.caches[0].fetch(uri, self.origin, expected=_digest(content))
        assert file.path.read_bytes() == content
        # The bytes may have come from another URI; then this one still leads to what it led to.
        check_bytes(file)
        self.held[file.digest] = file
        self.damaged.discard(file.digest)
        self.settled.discard(uri)
        self.last[uri] = file

    @rule(uri=uris)
    def expect_something_else(self, uri: str) -> None:
        """Bytes that were not expected are refused, and nothing is kept of them."""
        before = self.caches[0].info().bytes
        try:
            self.caches[0].fetch(uri, self.origin, expected=_digest(b"no such bytes"))
        except IntegrityError:
            assert self.caches[0].info().bytes == before
        else:
            raise AssertionError("bytes that were not expected came back")

    @rule(uri=uris)
    def offline(self, uri: str) -> None:
        """A hit needs no origin; a miss says so."""
        before = self.origin.reads()
        try:
            file = self.caches[1].fetch(uri, self.origin, offline=True)
        except StorageUnavailableError:
            assert uri not in self.settled
        else:
            check_bytes(file)
            if uri in self.settled:
                assert file.path == self.last[uri].path
            self.held[file.digest] = file
        assert self.origin.reads() == before

    @rule(uri=uris, name=st.sampled_from(["net.pt", "other name.onnx"]))
    def fetch_under_a_name(self, uri: str, name: str) -> None:
        """The same bytes under another name: another path, but no second download."""
        before, settled = self.origin.reads(), uri in self.settled
        file = self.caches[0].fetch(uri, self.origin, filename=name)
        assert file.path.name == name
        check_bytes(file)
        if settled:
            assert (file.digest, self.origin.reads()) == (self.last[uri].digest, before)
        self.held[file.digest] = file
        self.damaged.discard(file.digest)
        self.settled.discard(uri)
        self.last[uri] = file

    @rule(uri=uris)
    def extract(self, uri: str) -> None:
        """A folder with what is in the file."""
        file = self.caches[0].fetch(uri, self.origin)
        self._returned(uri, file)
        tree = self.caches[1].extracted(file.digest, file.path, extract_copy)
        assert (tree / "a" / "copy").read_bytes() == file.path.read_bytes()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delete=st.booleans())
    def harm(self, data: st.DataObject, delete: bool) -> None:  # noqa: FBT001
        """Somebody writes into a cached file, or deletes it, under all its names."""
        file = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        if delete:
            for path in file.path.parent.glob("*"):
                path.unlink()
        elif file.size:
            damage(file.path)
            self.damaged.add(file.digest)
        self._disturb(file.digest)

    @rule()
    def lose_the_index(self) -> None:
        """Somebody deletes the database; which URI led where is forgotten."""
        (self.folder / "cache" / "cache.db").unlink(missing_ok=True)
        self._forgotten()

    @rule()
    def break_the_index(self) -> None:
        """Somebody overwrites the database."""
        for cache in self.caches:
            cache.close()
        if (self.folder / "cache" / "cache.db").exists():
            (self.folder / "cache" / "cache.db").write_bytes(b"This is not a database. " * 500)
        self._forgotten()

    @rule()
    def restart(self) -> None:
        """As a new process would find it: nothing in memory, but what was handed out is still held."""
        forget_processes()
        self.caches = [self._open(), self._open()]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Let go of something, so that it may be evicted."""
        digest = data.draw(st.sampled_from(sorted(self.held)))
        self.caches[0].release(digest)
        del self.held[digest]
        self._disturb(digest)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), pin=st.booleans())
    def pin(self, data: st.DataObject, pin: bool) -> None:  # noqa: FBT001
        """Pin or unpin."""
        digest = data.draw(st.sampled_from(sorted(self.held)))
        if pin:
            self.caches[0].pin(digest)
            self.pinned.add(digest)
        else:
            self.caches[0].unpin(digest)
            self.pinned.discard(digest)

    @rule(max_bytes=st.sampled_from([None, 0, 1, 6000]), dry_run=st.booleans())
    def prune(self, max_bytes: int | None, dry_run: bool) -> None:  # noqa: FBT001
        """What is held or pinned stays; of the rest, as much goes as was asked; a dry run touches nothing."""
        before = {(entry.kind, entry.digest) for entry in self.caches[0].ls()}
        removal = self.caches[0].prune(max_bytes, dry_run=dry_run)
        after = self.caches[0].ls()
        assert not set(removal.objects) & (set(self.held) | self.pinned)
        assert not set(removal.trees) & self.pinned
        if dry_run:
            assert {(entry.kind, entry.digest) for entry in after} == before
        elif max_bytes is not None:
            unheld = sum(entry.size for entry in after if not (entry.in_use or entry.pinned))
            assert unheld <= max_bytes or sum(entry.size for entry in after) <= max_bytes

    @rule()
    def verify_all(self) -> None:
        """Exactly the damaged files are reported."""
        wrong = {
            "sha256:" + path.parent.name
            for path in (self.folder / "cache").glob("objects/sha256/*/*/*")
            if hashlib.sha256(path.read_bytes()).hexdigest() != path.parent.name
        }
        report = self.caches[0].verify()
        assert set(report.corrupt) == wrong
        assert set(report.corrupt) <= self.damaged
        self.damaged.clear()

    @invariant()
    def what_was_handed_out_is_there(self) -> None:
        """Until it is let go, or harmed from outside."""
        for file in self.held.values():
            check_bytes(file)

    @invariant()
    def the_folder_is_whole(self) -> None:
        """Every file is what its place says, and the index knows them all."""
        if (self.folder / "cache" / "cache.db").exists():
            self.caches[0].info()  # opens the index, and so makes it again where it was broken
            check_folder(self.folder / "cache", corrupted=self.damaged)
