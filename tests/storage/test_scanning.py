"""Looking into pickles: everything that loading would import is listed, whatever the wrapping, and nothing runs."""

from __future__ import annotations

import bz2
import collections
import datetime as dt
import gzip
import io
import lzma
import os
import pickle
import pickletools
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.errors import BlobNotFoundError
from modelstore.storage.imports import harm_of
from modelstore.storage.pickles import Walk, walk
from modelstore.storage.scanning import scan


class Evil:
    """Runs a command when it is loaded."""

    def __init__(self, command: str = "true") -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


SYSTEM = ("posix", "system")


def walked(data: bytes) -> Walk:
    return walk(io.BytesIO(data), len(data))


def verdict_of(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return scan(path).verdict


class _Recording(pickle._Unpickler):  # Python's own reading, as the oracle
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.asked: list[tuple[str, str]] = []

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        self.asked.append((module, name))
        return found


PLAIN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=300), st.binary(),
        st.sampled_from([collections.OrderedDict, dt.date(2020, 1, 1), 1j, range(3), frozenset({1}), {1, 2},
                         collections.Counter("aab"), bytearray(b"x"), "posix", "system", Ellipsis, slice(1)]),
    ),
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner)),
    max_leaves=20,
)  # fmt: skip


@given(PLAIN, st.sampled_from(range(6)), st.booleans())
def test_the_walk_finds_what_python_would_import(value: Any, protocol: int, optimised: bool) -> None:
    """No more and no less, in the same order: the memo, the stack and the old names are followed as Python does."""
    data = pickle.dumps(value, protocol)
    if optimised:
        data = pickletools.optimize(data)
    oracle = _Recording(data)
    oracle.load()
    found = walked(data)

    assert list(found.imports) == list(dict.fromkeys(map(_named_today, oracle.asked)))
    assert (found.pickles, found.problem) == (1, "")


def _named_today(asked: tuple[str, str]) -> tuple[str, str]:
    """The oracle is asked for Python 2's names where the pickle has them; one that is in Python 3 as well stays."""
    import _compat_pickle

    moved = _compat_pickle.NAME_MAPPING.get(asked)
    return moved or (_compat_pickle.IMPORT_MAPPING.get(asked[0], asked[0]), asked[1])


@given(st.binary(max_size=300))
def test_no_bytes_upset_it(data: bytes) -> None:
    """It ends, with a finding or with none."""
    walked(data)


@given(st.randoms(use_true_random=False), st.sampled_from(range(6)))
def test_damaged_pickles_never_hide_what_comes_before_the_damage(rng: random.Random, protocol: int) -> None:
    """Loading runs what it meets until it fails."""
    data = bytearray(pickle.dumps([Evil(), "x" * 50, {"a": (1, 2)}], protocol))
    whole = walked(bytes(data))
    for _ in range(rng.randrange(1, 5)):
        data[rng.randrange(len(data) - 30, len(data))] = rng.randrange(256)

    assert SYSTEM in whole.imports
    assert SYSTEM in walked(bytes(data)).imports


def test_nothing_runs(tmp_path: Path) -> None:
    """The oldest trick: the command would make a file."""
    canary = tmp_path / "ran"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Evil(f"touch {canary}")))

    assert scan(tmp_path / "a.pkl").verdict == "dangerous"
    assert not canary.exists()


def zipped(data: bytes, name: str = "archive/data.pkl", method: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("archive/version", "3\n")
        archive.writestr(name, data)
        archive.writestr("archive/data/0", bytes(100_000))
    return target.getvalue()


def tarred(data: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        info = tarfile.TarInfo("pickle")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def npy(data: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "torch": zipped,
    "torch, renamed": lambda data: zipped(data, "archive/data/1"),
    "compressed zip": lambda data: zipped(data, method=zipfile.ZIP_DEFLATED),
    "zip in zip": lambda data: zipped(zipped(data), "net.pt"),
    "zip behind something": lambda data: b"#!/bin/sh\nexit\n" + zipped(data),
    "old torch": lambda data: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + data + bytes(5000),
    "tar": tarred,
    "tar.gz": lambda data: gzip.compress(tarred(data)),
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
    "zlib, uncompressed": lambda data: zlib.compress(data, 0),
    "npy": npy,
    "npz": lambda data: zipped(npy(data), "arr_0.npy"),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_every_wrapping_that_loaders_open_is_opened(tmp_path: Path, wrapping: str, protocol: int) -> None:
    """By its bytes, whatever the name says."""
    data = WRAPPINGS[wrapping](pickle.dumps({"weights": [1.0], "x": Evil()}, protocol))
    harmless = WRAPPINGS[wrapping](pickle.dumps(collections.OrderedDict(weights=[1.0]), protocol))

    assert verdict_of(tmp_path / "model", data) == "dangerous"
    assert verdict_of(tmp_path / "model.safetensors", data) == "dangerous"
    assert verdict_of(tmp_path / "model.pt", harmless) == "harmless"


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (opcodes(text("posix"), b"\x94", text("system"), b"\x94", b"00", b"h\x00h\x01\x93"), SYSTEM),
        (opcodes(text("posix"), text("x"), b"0", text("system"), b"\x93"), SYSTEM),
        (opcodes(text("system"), text("posix"), b"q\x07", b"0q\x08", b"0h\x07h\x08\x93"), SYSTEM),
        (opcodes(b"(", text("a"), b"1", text("posix"), text("system"), b"\x93"), SYSTEM),
        (opcodes(text("posix"), text("system"), b"2\x93"), ("system", "system")),
        (opcodes(text("os"), b"N\x93"), ("?", "?")),
        (opcodes(text("os"), text("a"), text("b"), b"\x86\x93"), ("?", "?")),
        (b"cposix\nsystem\n(S'true'\ntR.", SYSTEM),
        (b"(S'true'\niposix\nsystem\n.", SYSTEM),
        (b"(cposix\nsystem\nS'true'\no.", SYSTEM),
        (b"c__builtin__\neval\n(S'1'\ntR.", ("builtins", "eval")),
        (b"S'\xe9\\q'\n0cposix\nsystem\n(S'true'\ntR.", SYSTEM),
        (b"V\xe9\\q\n0I01\n0F1e5\n0L5L\n0cposix\nsystem\n(S'true'\ntR.", SYSTEM),
        (b"\x80\x04S'posix'\nVsystem\n\x93.", SYSTEM),
        (b"\x80\x04S'po\\x73ix'\nVsystem\n\x93.", ("?", "?")),
        (b"\x80\x02\x82\x07.", ("copyreg extension", "7")),
        (opcodes(text("collections"), text("_sys.exit"), b"\x93"), ("collections", "_sys.exit")),
        (opcodes(text("x"), text("__reduce__.__globals__"), b"\x93"), ("x", "__reduce__.__globals__")),
    ],
)
def test_names_are_followed_wherever_they_come_from(tmp_path: Path, data: bytes, found: tuple[str, str]) -> None:
    """Those that cannot be followed count as dangerous."""
    assert found in walked(data).imports
    if found[0] not in ("system", "copyreg extension"):
        assert verdict_of(tmp_path / "a.pkl", data) == "dangerous"


def _with_a_wrong_checksum(data: bytes) -> bytes:
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    return data[: at + 16] + b"\0\0\0\0" + data[at + 20 :]


def _with_a_flag(data: bytes) -> bytes:
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    return data[: at + 8] + b"\x01\x00" + data[at + 10 :]


def _with_two_names(data: bytes) -> bytes:
    return data.replace(b"archive/data.pkl", b"archive/data.txt", 1)


@pytest.mark.parametrize("trick", [_with_a_wrong_checksum, _with_a_flag, _with_two_names])
def test_an_archive_that_only_forgiving_loaders_open_is_not_cleared(
    tmp_path: Path, trick: Callable[[bytes], bytes]
) -> None:
    """PyTorch's reader checks less than Python's."""
    data = trick(zipped(pickle.dumps(Evil())))

    assert verdict_of(tmp_path / "a.pt", data) in {"dangerous", "unreadable"}


def test_what_begins_like_something_else_is_walked_all_the_same(tmp_path: Path) -> None:
    """Magic bytes can be opcodes: `G` begins a number, `\\x89` is False, `P` an id, `B` a block of bytes."""
    payload = b"cposix\nsystem\n(S'true'\ntR."
    for head in (b"GGUF\0\0\0\0\0", b"\x890", b"\x89", b"PNG\n", b"B\0\0\0\0", b"\x80\x02B\x02\0\0\0xx"):
        assert verdict_of(tmp_path / "model.gguf", head + payload) == "dangerous", head


def test_joblibs_arrays_are_skipped_to_see_what_comes_behind(tmp_path: Path) -> None:
    """Their bytes lie between the opcodes; of every type, compressed or not, with objects as a pickle of their own."""
    joblib = pytest.importorskip("joblib")
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "a.joblib"
    honest = {"a": numpy.arange(50_000.0), "b": numpy.array(["ä", "b"]), "c": numpy.zeros(3, dtype=[("x", "f4")]),
              "d": numpy.asfortranarray(numpy.ones((30, 20), "f2")), "e": numpy.array(["2020"], dtype="M8[D]"),
              "f": numpy.array([], "i1"), "g": numpy.array([b"abc"]), "h": numpy.ones(3, "c16")}  # fmt: skip
    for compress in (0, 3, ("gzip", 3), ("lzma", 3)):
        joblib.dump(honest, path, compress=compress)
        assert (scan(path).verdict, scan(path).problems) == ("harmless", ())
    joblib.dump([numpy.array([Evil()], dtype=object)], path)
    assert scan(path).verdict == "dangerous"


def test_what_joblib_skips_as_an_array_is_walked_as_well(tmp_path: Path) -> None:
    """`joblib.load` skips these bytes; whoever loads the file with pickle runs them."""
    hidden = b"cposix\nsystem\n(S'true'\ntR."
    data = b"".join([
        b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(", text("shape"), b"K", bytes([len(hidden)]), b"\x85",
        text("dtype"), b"cnumpy\ndtype\n", text("u1"), b"\x85Rub", hidden, b".",
    ])  # fmt: skip

    assert verdict_of(tmp_path / "a.joblib", data) == "dangerous"
    assert verdict_of(tmp_path / "a.joblib", data.replace(hidden, bytes(len(hidden)))) == "harmless"


def test_numpys_headers_say_whether_there_are_objects(tmp_path: Path) -> None:
    """A field may be called O."""
    numpy = pytest.importorskip("numpy")
    for number, dtype in enumerate(["f8", "U3", [("Objects", "f4"), ("O", "i4", (2,))], "M8[D]"]):
        numpy.save(tmp_path / f"{number}.npy", numpy.zeros(2, dtype=dtype))
        assert scan(tmp_path / f"{number}.npy").verdict == "no pickle"
    numpy.save(tmp_path / "o.npy", numpy.array([(1, Evil())], dtype=[("x", "f4"), ("y", "O")]), allow_pickle=True)
    assert scan(tmp_path / "o.npy").verdict == "dangerous"
    assert verdict_of(tmp_path / "x.npy", b"\x93NUMPY\x01\x00\xff\xff{'descr'") == "unreadable"


def test_files_that_hold_no_pickle_are_told_as_such(tmp_path: Path) -> None:
    """Weights in safe formats, texts, and noise."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    for number, data in enumerate([
        struct.pack("<Q", len(header)) + header + bytes(4), b'{"a": 1}', b"", b"hello world\n" * 100, b"\0" * 10_000,
        b"GGUF\x03\0\0\0" + bytes(100), b"\x89HDF\r\n\x1a\n" + bytes(100), zipped(b"plain text", "a.txt"),
    ]):  # fmt: skip
        assert verdict_of(tmp_path / f"{number}.bin", data) == "no pickle", number


def test_a_broken_pickle_is_not_cleared(tmp_path: Path) -> None:
    """Where a pickle is meant; what it does before it breaks, it does."""
    assert verdict_of(tmp_path / "a.pkl", pickle.dumps([1, 2, 3])[:-2]) == "unreadable"
    assert verdict_of(tmp_path / "a.pkl", b"not a pickle at all") == "unreadable"
    assert verdict_of(tmp_path / "a.pkl", pickle.dumps(Evil())[:-5]) == "dangerous"


def test_bombs_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives in archives in archives, gigabytes out of nothing, lengths that lie."""
    from modelstore.storage import scanning

    monkeypatch.setattr(scanning, "_ALWAYS_ALLOWED", 1 << 20)
    data = pickle.dumps(1)
    for _ in range(8):
        data = zipped(data, "a.zip", zipfile.ZIP_DEFLATED)
    assert verdict_of(tmp_path / "a.zip", data) == "unreadable"
    assert verdict_of(tmp_path / "b.gz", gzip.compress(bytes(20 << 20))) == "unreadable"
    assert verdict_of(tmp_path / "c.pkl", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x") == "unreadable"
    assert verdict_of(tmp_path / "d.pkl", b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b".") == "harmless"


def test_a_long_string_is_not_kept_in_memory(tmp_path: Path) -> None:
    """Weights in a plain pickle are one block of bytes; what comes behind it counts too."""
    import tracemalloc

    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([bytes(64 << 20), Evil()]))
    tracemalloc.start()
    report = scan(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert report.verdict == "dangerous"
    assert peak < 16 << 20


def test_a_folder_is_looked_through(tmp_path: Path) -> None:
    """Each finding says where it is."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.pkl").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "readme.txt").write_text("fine")
    (found,) = scan(tmp_path).imports

    assert (found.where, found.module, found.name, found.harm) == ("sub/x.pkl", "posix", "system", "dangerous")
    with pytest.raises(BlobNotFoundError):
        scan(tmp_path / "missing")


@pytest.mark.parametrize(
    ("module", "name", "harm"),
    [
        ("torch._utils", "_rebuild_tensor_v2", "harmless"),
        ("torch", "FloatStorage", "harmless"),
        ("sklearn.linear_model._base", "LinearRegression", "unknown"),
        ("os.path", "join", "dangerous"),
        ("builtins", "getattr", "dangerous"),
        ("builtins", "unheard_of", "unknown"),
        ("numpy.testing._private.utils", "runstring", "dangerous"),
        ("collections", "abc.sys", "dangerous"),
        ("torch.hub", "load", "dangerous"),
        ("osmium", "x", "unknown"),
    ],
)
def test_harm(module: str, name: str, harm: str) -> None:
    """Names decide, whole components of them."""
    assert harm_of(module, name) == harm
