"""Many processes on one cache."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelstore.cache import Cache
from modelstore.testing.cache_origin import FolderOrigin, check_bytes, check_folder

Spawn = Callable[..., "subprocess.Popen[str]"]

URI = "s3://bucket/net.pt"

_FETCH = """
while time.time() < float(arguments[1]):
    time.sleep(0.001)
file = cache.fetch(arguments[0], origin)
check_bytes(file)
print(file.digest)
"""


def _race(spawn: Spawn, prelude: str = "", count: int = 8) -> set[str]:
    """Let so many processes fetch at the same moment; return the digests they got."""
    # Late enough for all to have been started and to have imported what they need.
    start = str(time.time() + 1.5)
    children = [spawn(prelude + _FETCH, URI, start) for _ in range(count)]
    outputs = [child.communicate(timeout=100)[0].split() for child in children]
    assert all(child.returncode == 0 for child in children)
    return {output[0] for output in outputs}


def test_of_eight_processes_that_ask_for_a_cold_uri_one_downloads(
    spawn: Spawn, cache: Cache, origin: FolderOrigin
) -> None:
    """A job array starts everywhere at once, and the origin pays for one."""
    digest = origin.put(URI, os.urandom(1 << 20))

    assert _race(spawn, "origin.pause_s = 0.001\n") == {digest}
    assert origin.reads() == 1
    assert origin.bytes_read() == 1 << 20
    check_folder(cache.folder)


def test_with_locks_that_exclude_nobody_there_is_more_work_and_no_wrong_byte(
    spawn: Spawn, cache: Cache, origin: FolderOrigin
) -> None:
    """On several network filesystems locks succeed for everybody."""
    digest = origin.put(URI, os.urandom(1 << 20))
    prelude = (
        "import filelock\n"
        "filelock.FileLock.acquire = lambda *_, **__: None\n"
        "filelock.FileLock.release = lambda *_: None\n"
    )

    assert _race(spawn, prelude + "origin.pause_s = 0.001\n") == {digest}
    assert origin.reads() > 1
    check_folder(cache.folder)
    assert list((cache.folder / "partial").iterdir()) == []


@pytest.mark.parametrize("failure", ["NotImplementedError('no flock')", "OSError(37, 'no locks available')"])
def test_where_there_are_no_locks_the_cache_works_without(
    spawn: Spawn, cache: Cache, origin: FolderOrigin, failure: str
) -> None:
    """An error would make the cache useless on filesystems where it is merely less thrifty."""
    digest = origin.put(URI, b"weights")
    prelude = f"import filelock\ndef fail(*_, **__): raise {failure}\nfilelock.FileLock.acquire = fail\n"

    assert _race(spawn, prelude, count=1) == {digest}
    assert Cache(cache.folder, locking=False).fetch(URI, origin, offline=True).digest == digest


def test_eight_processes_that_open_a_new_cache_at_once_all_succeed(
    spawn: Spawn, cache: Cache, origin: FolderOrigin
) -> None:
    """Creating the index and switching its log on are not safe to do twice, unless somebody saw to it."""
    code = """
while time.time() < float(arguments[0]):
    time.sleep(0.001)
for n in range(10):
    check_bytes(cache.fetch(f"s3://b/{arguments[1]}/{n}.pt", origin))
"""
    for who in range(8):
        for n in range(10):
            origin.put(f"s3://b/{who}/{n}.pt", b"%d-%d" % (who, n))
    start = str(time.time() + 1.0)
    children = [spawn(code, start, str(who)) for who in range(8)]
    for child in children:
        child.communicate(timeout=100)

    assert [child.returncode for child in children] == [0] * 8
    assert cache.info().objects == 80
    check_folder(cache.folder)


def test_what_another_live_process_holds_is_not_evicted(spawn: Spawn, cache: Cache, origin: FolderOrigin) -> None:
    """And goes as soon as that process ends, however it ends."""
    digest = origin.put(URI, b"weights")
    child = spawn("print(cache.fetch(arguments[0], origin).path, flush=True)\nsys.stdin.read()", URI)
    assert child.stdout is not None
    path = Path(child.stdout.readline().strip())
    removal = cache.clear()

    assert (removal.objects, removal.in_use) == ((), 1)
    assert path.read_bytes() == b"weights"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped yet: a zombie holds nothing
    assert cache.clear().objects == (digest,)
    child.communicate()
    assert not path.exists()


def test_eviction_and_hits_of_other_processes_do_not_collide(spawn: Spawn, cache: Cache, origin: FolderOrigin) -> None:
    """Between a hit and its lease there is no moment in which the file can go."""
    uris = [f"s3://b/{n}.pt" for n in range(5)]
    for uri in uris:
        origin.put(uri, uri.encode() * 100)
    evictor = spawn("import itertools\nfor _ in itertools.count():\n    cache.clear()")
    user = """
from modelstore.cache.process import forget_processes
import random
for _ in range(12):
    uri = f"s3://b/{random.randrange(5)}.pt"
    file = cache.fetch(uri, origin)
    check_bytes(file, uri.encode() * 100)
    tree = cache.extracted(file.digest, file.path, extract_copy)
    time.sleep(random.random() * 0.002)
    check_bytes(file, uri.encode() * 100)
    assert (tree / "a" / "copy").read_bytes() == uri.encode() * 100
    cache.release(file.digest)
"""
    users = [spawn(user) for _ in range(2)]
    for child in users:
        child.communicate(timeout=100)
    evictor.kill()
    evictor.communicate()

    assert [child.returncode for child in users] == [0, 0]
    check_folder(cache.folder)


def test_a_forked_child_can_use_the_cache_and_holds_what_its_parent_held(
    spawn: Spawn, cache: Cache, origin: FolderOrigin
) -> None:
    """Data loaders fork; a connection or a held lock carried into the child would damage the index or block."""
    origin.put(URI, b"weights")
    origin.put(URI + "2", b"others")
    code = """
import os, threading
first = cache.fetch(arguments[0], origin)
stop = threading.Event()
def work():
    while not stop.is_set():
        cache.fetch(arguments[0], origin, verify=True)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
read, write = os.pipe()
for _ in range(10):
    child = os.fork()
    if child == 0:
        check_bytes(cache.fetch(arguments[0], origin))
        check_bytes(cache.fetch(arguments[0] + "2", origin))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
child = os.fork()
if child == 0:
    cache.fetch(arguments[0] + "2", origin)
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""
    parent = spawn(code, URI)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    parent.wait(100)
    removal = cache.clear()
    assert parent.stdin is not None
    parent.stdin.close()
    _gone(orphan)

    # The parent is dead; what it was handed is the child's as well.
    assert (removal.objects, removal.in_use) == ((), 2)
    check_folder(cache.folder)


def _gone(pid: int) -> None:
    while True:  # as long as the test may take
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def test_a_process_that_ends_leaves_no_lease_behind(spawn: Spawn, cache: Cache, origin: FolderOrigin) -> None:
    """And its times of use are written."""
    origin.put(URI, b"weights")
    child = spawn("cache.fetch(arguments[0], origin)", URI)
    child.communicate(timeout=100)

    assert list((cache.folder / "leases").iterdir()) == []
    assert len(cache.clear().objects) == 1


def test_a_process_that_ends_does_not_bring_a_deleted_cache_back(
    spawn: Spawn, cache: Cache, origin: FolderOrigin
) -> None:
    """Somebody deleted the folder for good."""
    origin.put(URI, b"weights")
    code = "import shutil\nfor _ in 1, 2: cache.fetch(arguments[0], origin)\nshutil.rmtree(root / 'cache')"
    child = spawn(code, URI)
    child.communicate(timeout=100)

    assert child.returncode == 0
    assert not cache.folder.exists()


def test_a_download_killed_in_the_middle_is_continued_by_the_next_process(
    spawn: Spawn, cache: Cache, origin: FolderOrigin
) -> None:
    """Nine of ten blocks are on disk; they are not fetched again."""
    content = os.urandom(40_960)
    origin.put(URI, content)
    child = spawn("cache.fetch(arguments[0], origin)", URI, plan="origin.block#9=kill")
    child.communicate(timeout=100)
    assert child.returncode == -9
    assert cache.info().partial_bytes > 9 * 4096

    check_bytes(cache.fetch(URI, origin), content)
    assert origin.bytes_read() == len(content)
    assert list((cache.folder / "partial").iterdir()) == []


def test_a_live_download_is_never_continued_by_another(spawn: Spawn, cache: Cache, origin: FolderOrigin) -> None:
    """Two writers in one file make a mixture; without locks both must still come out right."""
    content = os.urandom(400_000)
    origin.put(URI, content)
    code = "origin.pause_s = 0.005\nimport modelstore.cache as c\ncache = c.Cache(cache.folder, locking=False)\n"
    child = spawn(code + "print('go', flush=True)\ncheck_bytes(cache.fetch(arguments[0], origin))", URI)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.2)

    check_bytes(Cache(cache.folder, locking=False).fetch(URI, origin, force_download=True), content)
    child.communicate(timeout=100)
    assert child.returncode == 0


def test_the_soak_runs_from_the_command_line() -> None:
    """It prints its figures, and each child is killed at another step."""
    here = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "modelstore.testing.cache_soak", "--kills", "30", "--seed", "5"],
        env=os.environ | {"PYTHONPATH": here}, check=True, capture_output=True, text=True,
    )  # fmt: skip

    assert " 0 wrong files" in done.stdout
