"""Files that are damaged or malicious: a clear error, in bounded memory and time, and nothing ever executed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstore.errors import ModelStoreError, UnreadableWeightsError
from modelstore.inspection import Inspection, inspect_bytes, inspect_path
from modelstore.inspection.bytesource import ByteSource
from tests.inspection import samples
from tests.inspection.samples import SAMPLES, field, gguf, onnx, safetensors, torch_zip

_ROOT: Final = Path(__file__).parent.parent.parent


def _look(name: str, data: bytes) -> Inspection:
    return inspect_bytes(ByteSource(name, len(data), lambda at, count: data[at : at + count]))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_valid(name: str) -> None:
    """Otherwise what follows would prove nothing."""
    assert _look(name, SAMPLES[name]).parameters >= 6


@pytest.mark.parametrize("name", SAMPLES)
def test_every_truncation_is_an_error_or_still_a_whole_file(name: str) -> None:
    """A download that ended early must not look like a smaller model."""
    whole = _look(name, SAMPLES[name])
    for end in range(len(SAMPLES[name])):
        try:
            found = _look(name, SAMPLES[name][:end])
        except ModelStoreError:
            continue
        # The last fields of a protocol buffer may be missing: nothing says that there were more.
        assert name.endswith(".onnx"), end
        assert found.parameters <= whole.parameters


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_no_damage_makes_anything_but_our_errors(name: str, data: st.DataObject) -> None:
    """Bytes changed, cut out, doubled and put in, one or many."""
    content = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 12))
        content[at : at + length] = data.draw(st.binary(max_size=12))
    try:
        found = _look(name, bytes(content))
    except ModelStoreError:
        return
    assert found.to_dict()["parameters"] >= 0
    assert found.layers().tensors == len(found.tensors)


@given(st.sampled_from(["a.bin", "a.onnx", "a.safetensors", "a.npz", "a.pt", "a.gguf"]), st.binary(max_size=400))
def test_no_garbage_makes_anything_but_our_errors(name: str, content: bytes) -> None:
    """Whatever somebody registers as a model."""
    with pytest.raises(ModelStoreError):
        _look(name, content)


_HEADER: Final = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (safetensors(length=2**63), "its header would take 9223372036854775808 bytes"),
        (safetensors(length=99_999_999), "says that there are more"),
        (safetensors(b"[1, 2]"), "no JSON object"),
        (safetensors(b'{"a": {"dtype": "F32", "shape": [2'), "no list of tensors"),
        (safetensors({"a": _HEADER, "b": _HEADER}, bytes(8)), "overlap"),
        (safetensors({"a": _HEADER}, bytes(4)), "not all there"),
        (safetensors({"a": _HEADER}, bytes(12)), "belong to none"),
        (safetensors({"a": _HEADER | {"data_offsets": [4, 12]}}, bytes(12)), "belong to none"),
        (safetensors({"a": _HEADER | {"shape": [3]}}, bytes(8)), "another size than its shape"),
        (safetensors({"a": _HEADER | {"shape": [-2]}}, bytes(8)), "impossible shape"),
        (safetensors({"a": _HEADER | {"shape": [2**40, 2**40]}}, bytes(8)), "impossible shape"),
        (safetensors({"a": _HEADER | {"shape": [True]}}, bytes(8)), "impossible shape"),
        (safetensors({"a": _HEADER | {"data_offsets": [8, 0]}}, bytes(8)), "impossible"),
        (safetensors({"a": {"dtype": "F32"}}, bytes(8)), "lacks its type, shape or place"),
        (
            safetensors(b'{"a": %s, "a": %s}' % ((b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}',) * 2), b""),
            "two tensors",
        ),
        (safetensors(b'{"a": ' + b"[" * 100_000), "no list of tensors"),
    ],
)
def test_safetensors_headers_that_lie(content: bytes, reason: str) -> None:
    """Each check of the format's own rules, and of what a header may cost."""
    with pytest.raises(UnreadableWeightsError, match=reason):
        _look("a.safetensors", content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gguf(tensors=2**60), "says that it has"),
        (gguf(keys=2**40), "says that it has"),
        (gguf(tensors=2), "length that is wrong|larger than what is left|not all there|dimensions|text in it"),
        (gguf(shape=(2**31, 2**31)), "impossible shape"),
        (gguf(shape=(1 << 20, 2)), "not all there"),
        (gguf(shape=(3,), kind=12), "shape that its type cannot have"),
        (gguf(keys=3, extra=samples._gguf_text("k") + struct.pack("<IIQ", 9, 8, 2**60)), "more parts than any model"),
        (gguf(keys=3, extra=samples._gguf_text("k") + struct.pack("<IIQ", 9, 4, 2**60)), "larger than what is left"),
        (gguf(keys=3, extra=samples._gguf_text("k") + struct.pack("<I", 99)), "unknown type 99"),
        (gguf(keys=3, extra=samples._gguf_text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50), "type 9"),
        (gguf(keys=3, extra=struct.pack("<Q", 2**62)), "would have"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
    ],
)  # fmt: skip
def test_gguf_headers_that_lie(content: bytes, reason: str) -> None:
    """Counts and lengths are 64 bits wide; none is believed."""
    with pytest.raises(UnreadableWeightsError, match=reason):
        _look("a.gguf", content)


def _nested_graphs(depth: int) -> bytes:
    graph = field(2, b"g")
    for _ in range(depth):
        graph = field(1, field(2, b"n") + field(4, b"If") + field(5, field(6, graph)))
    return graph


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (onnx(_nested_graphs(200)), "nested deeper"),
        (onnx(field(5, field(1, 2**62) + field(1, 2**62))), "impossible shape"),
        (onnx(field(5, field(1, bytes([1]) * 5000))), "impossible shape"),
        (b"\x08\x08" + b"\xff" * 20, "no protocol buffer"),
        (b"\x08\x08\x3a\xff\xff\xff\xff\x0f" + bytes(8), "larger than what is left"),
        (b"\x08\x08\x0b" + bytes(8), "no protocol buffer"),
        (b"\x08\x08" + field(2, bytes(2 << 20)) + field(7, b""), "far too long"),
        (b"\x08\x08" + field(2, b"only a producer"), "no graph"),
    ],
)
def test_onnx_messages_that_lie(content: bytes, reason: str) -> None:
    """Lengths, depths and counts."""
    with pytest.raises(UnreadableWeightsError, match=reason):
        _look("a.onnx", content)


def _npy(header: bytes, version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + bytes(16)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-2,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': [2], }",
        b"{'descr': '<f8', 'shape': (2,), }",
        b"__import__('os').system('touch pwned')",
        b"(" * 5000,
        b"-" * 30000 + b"1",
        b"{" + b"'a':{" * 2000,
        b"9" * 20000,
        b"",
    ],
)
def test_npy_headers_that_lie(header: bytes) -> None:
    """They are in Python's notation, and still only data."""
    with pytest.raises(UnreadableWeightsError):
        _look("a.npy", _npy(header))
    with pytest.raises(UnreadableWeightsError):
        _look("a.npy", _npy(header, 2))


class _Bomb:
    """Unpickling one would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._trace}",)


def test_a_pickle_that_would_run_a_command_is_only_read(tmp_path: Path) -> None:
    """The reason why this is not done with `pickle`: looking at a stranger's model must be safe."""
    trace = tmp_path / "trace"
    data = torch_zip(data=pickle.dumps({"w": _Bomb(trace), "epoch": 3}))
    found = _look("a.pt", data)

    assert found.tensors == ()
    assert found.metadata["epoch"] == 3
    assert not trace.exists()
    pickle.loads(pickle.dumps(_Bomb(trace)))
    assert trace.exists(), "the bomb is a dud, and the test worthless"


def _tensor_call(arguments: bytes) -> bytes:
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
    return b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(" + storage + arguments + b"tRs."


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_tensor_call(b"K\x00K\x07\x85K\x01\x85"), "reaches beyond its storage"),
        (_tensor_call(b"K\x05K\x02\x85K\x01\x85"), "reaches beyond its storage"),
        (_tensor_call(b"J\xff\xff\xff\xffK\x02\x85K\x01\x85"), "impossible place"),
        (_tensor_call(b"K\x00K\x02\x85]"), "has no shape"),
        (_tensor_call(b"K\x00\x8a\x09" + b"\xff" * 8 + b"\x00\x85K\x01\x85"), "impossible shape"),
        (
            b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(NK\x00K\x02\x85K\x01\x85tRs.",
            "has no storage",
        ),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x02K\x01", "damaged"),
        (b"", "damaged"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.", "damaged"),
        (b"I" + b"9" * 100_000 + b"\n.", "damaged"),
    ],
)
def test_pickles_that_lie(data: bytes, reason: str) -> None:
    """Impossible tensors, missing storages, references to nothing."""
    with pytest.raises(UnreadableWeightsError, match=reason):
        _look("a.pt", torch_zip({}, {"0": bytes(24)}, data=data))


def test_a_storage_that_is_not_there_is_an_error() -> None:
    """Half of a checkpoint is no checkpoint."""
    with pytest.raises(UnreadableWeightsError, match="is missing"):
        _look("a.pt", torch_zip({}, {}, data=_tensor_call(b"K\x00K\x02\x85K\x01\x85")))


def test_a_type_that_is_an_enormous_number_is_shown_as_unknown() -> None:
    """Python refuses to write such a number in decimals."""
    header = b"{'descr': 0x" + b"f" * 20_000 + b", 'fortran_order': False, 'shape': (1,)}"
    array = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + bytes(8)

    assert _look("a.npy", array)["a"].dtype == "?"


def _zip(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _overlapping() -> bytes:
    data = bytearray(_zip({"a.npy": SAMPLES["a.npy"], "b.npy": SAMPLES["a.npy"]}))
    first = data.find(b"PK\x01\x02")
    second = data.find(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return bytes(data)


def test_members_that_overlap_are_refused() -> None:
    """A zip bomb without nesting is made of these."""
    with pytest.raises(UnreadableWeightsError, match="overlaps"):
        _look("a.npz", _overlapping())


def _long_names() -> bytes:
    names = struct.pack("<Q", 1 << 24) + bytes(1 << 24) + struct.pack("<IIQ", 0, 0, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 80, 0) + names * 80 + bytes(64)


def _long_prefixes(tensors: int = 200_000) -> bytes:
    """Return a small file in which each tensor is named after all the graphs around it."""
    graph = field(5, b"") * tensors
    for _ in range(10):
        graph = field(1, field(3, b"n") + field(2, b"x" * 16_000) + field(5, field(6, graph)))
    return onnx(graph)


def _long_paths(tensors: int = 200_000) -> bytes:
    """Return a small file in which each tensor is named after all the dictionaries around it."""
    key = b"X" + struct.pack("<I", 1000) + b"k" * 1000
    call = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(N)tR"
    data = b"\x80\x02" + b"}" + (key + b"}") * 60 + key + b"](" + call + b"q\x00" + b"h\x00" * (tensors - 1) + b"e"
    return torch_zip({}, {}, data=data + b"s" * 61 + b".")


@pytest.mark.parametrize(
    ("name", "make"), [("a.onnx", _long_prefixes), ("a.pt", _long_paths)], ids=["long prefixes", "long paths"]
)
def test_names_made_of_long_names_are_bounded(name: str, make: Callable[[], bytes]) -> None:
    """Fifty gigabytes of names would come of three megabytes."""
    with pytest.raises(UnreadableWeightsError, match="more parts than any model"):
        _look(name, make())


def test_long_texts_use_up_what_a_gguf_file_may_have(tmp_path: Path) -> None:
    """Four gigabytes of names in a file that takes next to nothing on the disk."""
    path = tmp_path / "a.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 256, 0))
        for _ in range(256):
            file.write(struct.pack("<Q", 1 << 24))
            file.seek(1 << 24, os.SEEK_CUR)
            file.write(struct.pack("<IIQ", 0, 0, 0))
        file.write(bytes(64))

    with pytest.raises(UnreadableWeightsError, match="more parts than any model"):
        inspect_path(path)


def _hostile() -> Iterator[tuple[str, Callable[[], bytes]]]:
    deep = b"\x80\x02" + b"]" * 1_500_000 + b"a" * 1_499_999 + b"."
    yield "lists in lists.pt", lambda: torch_zip(data=deep)
    yield "tuples in tuples.pt", lambda: torch_zip(data=b"\x80\x02)" + b"\x85" * 1_900_000 + b".")
    yield "calls of calls.pt", lambda: torch_zip(data=b"\x80\x02ca\nb\n" + b")R" * 900_000 + b".")
    laughs = b"\x80\x02]q\x00" + b"".join(b"](" + b"h%c" % i * 50 + b"eq%c" % (i + 1) for i in range(100)) + b"."
    yield "a billion laughs.pt", lambda: torch_zip(data=laughs)
    yield "itself in itself.pt", lambda: torch_zip(data=b"\x80\x02]q\x00h\x00a.")
    yield "empty lists.pt", lambda: torch_zip(data=b"\x80\x02" + b"]" * 30_000_000 + b".")
    yield "many marks.pt", lambda: torch_zip(data=b"\x80\x02" + b"(" * 1_000_000 + b"l" * 900_000 + b".")
    yield (
        "long number.pt",
        lambda: torch_zip(
            data=b"\x80\x02}X\x01\x00\x00\x00n\x8b" + struct.pack("<I", 9_000_000) + b"\x7f" * 9_000_000 + b"s."
        ),
    )
    yield "inflating pickle.pt", lambda: _zip({"a/data.pkl": bytes(900_000_000)})
    yield "inflating array.npz", lambda: _zip({"a.npy": bytes(900_000_000)})
    yield "nested lists.safetensors", lambda: safetensors(b'{"a":' + b"[]," * 30_000_000)
    yield "nested metadata.safetensors", lambda: safetensors(b'{"__metadata__":{"a":' + b'{"a":' * 10_000_000)
    yield "long text.safetensors", lambda: safetensors(b'{"' + b"\\u0041" * 16_000_000)
    yield (
        "many tensors.safetensors",
        lambda: safetensors(
            b"{"
            + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(600_000))
            + b"}",
            b"",
        ),
    )
    strings = samples._gguf_text("k") + struct.pack("<IIQ", 9, 8, 20_000_000) + bytes(160_000_000)
    yield "many texts.gguf", lambda: gguf(keys=3, extra=strings)
    yield "many fields.onnx", lambda: b"\x08\x08" + b"\x08\x01" * 20_000_000
    yield "many nodes.onnx", lambda: onnx(b"\x0a\x00" * 20_000_000)
    yield "long names.gguf", _long_names
    yield "long prefixes.onnx", _long_prefixes
    yield "long paths.pt", _long_paths
    yield "many dimensions.onnx", lambda: onnx(field(5, field(1, b"\x01" * 50_000_000)))


def _child() -> None:
    """Look into each hostile file with little memory and time to do it in."""
    import resource

    for name, make in _hostile():
        content = make()
        Path(name).write_bytes(content)
        del content
    resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))
    for name, _ in _hostile():
        resource.setrlimit(resource.RLIMIT_CPU, (int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + 60, 10_000))
        try:
            found: object = inspect_path(name)
        except UnreadableWeightsError as error:
            found = error
        print(f"{name}: {str(found)[:100]}", flush=True)
        os.unlink(name)


@pytest.mark.long
def test_the_worst_files_cost_a_bounded_amount_of_memory_and_time(tmp_path: Path) -> None:
    """Each was made to take gigabytes, or for ever, of a reader that believes what it is told."""
    done = subprocess.run(
        [sys.executable, "-c", "from tests.inspection.test_hostile import _child; _child()"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(_ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
    assert done.stdout.count("\n") == sum(1 for _ in _hostile())


def test_inflating_stops_at_the_bound() -> None:
    """A member that says it is small and is not."""
    bomb = bytearray(_zip({"a.npy": SAMPLES["a.npy"] + bytes(50_000_000)}))
    at = bomb.find(b"PK\x01\x02")
    struct.pack_into("<I", bomb, at + 24, len(SAMPLES["a.npy"]))

    assert _look("a.npz", bytes(bomb))["a"].shape == np.ones((3, 4)).shape
    assert len(zlib.compress(bytes(50_000_000))) < 60_000
