"""Looking into models of the registry, near and far, and comparing two of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelstore import InputModel, Model, OutputModel, Task
from modelstore.errors import MissingWeightsError, StorageError, UnreadableWeightsError
from modelstore.inspection import compare_tensors, inspect_path, inspect_uri
from modelstore.sdk._context import forget_default
from modelstore.testing.httpserver import HttpServer, http_server
from tests.cli.conftest import Json, Run, run, run_json  # noqa: F401 - fixtures
from tests.inspection.samples import SAMPLES, safetensors


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what the classes opened."""
    yield
    forget_default()


@pytest.fixture
def web() -> Iterator[HttpServer]:
    """A real web server."""
    with http_server() as server:
        yield server


def _large(folder: Path, size: int = 1 << 30) -> tuple[Path, int]:
    """Make a sparse safetensors file of a gigabyte with 200 tensors."""
    each = (size - (1 << 20)) // 200 // 8192 * 8192
    header = {
        f"block.{i // 10}.{'qkvohudgnm'[i % 10]}.weight": {
            "dtype": "BF16", "shape": [each // 8192, 4096], "data_offsets": [i * each, (i + 1) * each],
        }
        for i in range(200)
    }  # fmt: skip
    path = folder / "large.safetensors"
    start = safetensors(header, b"")
    path.write_bytes(start)
    os.truncate(path, len(start) + 200 * each)
    return path, len(start)


def test_a_remote_gigabyte_costs_kilobytes(tmp_path: Path, web: HttpServer) -> None:
    """The headers are all that is wanted; counted at the server, which serves the file out of a memory map."""
    import mmap

    path, header = _large(tmp_path)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # the server's threads may hold it for longer
    url = web.serve("/large.safetensors", mapped, etag='"large"')  # type: ignore[arg-type]
    found = inspect_uri(url)

    assert len(found.tensors) == 200
    assert found.parameters == 200 * 4096 * found.tensors[0].shape[0]
    assert found.size > 1_000_000_000
    assert web.sent_bytes <= header + (1 << 17)
    assert web.sent_bytes < 200_000
    assert sum(web.requests.values()) <= 3


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_is_read_from_afar(name: str, web: HttpServer) -> None:
    """Padded to what would be noticed if it were all sent; formats with a directory at their end included."""
    found = inspect_uri(web.serve(f"/{name}", SAMPLES[name]))

    assert found.parameters >= 6
    assert found.name == name


def test_a_remote_model_is_looked_into_without_fetching_it(web: HttpServer) -> None:
    """The cache stays empty; once a copy is there, the network is not asked any more."""
    model = InputModel.import_model(web.serve("/a.safetensors", SAMPLES["a.safetensors"]), name="far")
    registry = model._registry

    assert model.inspect().parameters == 8
    assert registry.weights.cache.ls() == []
    model.get_local_copy()
    before = sum(web.requests.values())
    assert model.inspect().parameters == 8
    assert sum(web.requests.values()) == before


def test_a_server_without_ranges_is_an_error_that_says_what_to_do(web: HttpServer) -> None:
    """Fetching a gigabyte for its header would be the caller's decision."""
    url = web.serve("/a.safetensors", SAMPLES["a.safetensors"], ranges=False)

    with pytest.raises(UnreadableWeightsError, match="get_local_copy"):
        inspect_uri(url)
    with pytest.raises(StorageError):
        inspect_uri(f"{web.url}/missing.safetensors")


def test_weights_in_memory_storage(tmp_path: Path) -> None:
    """Through fsspec, as every other storage."""
    import fsspec

    fsspec.filesystem("memory").pipe_file("/bucket/a.gguf", SAMPLES["a.gguf"])

    assert inspect_uri("memory://bucket/a.gguf").format == "GGUF"


def test_models_of_the_registry(tmp_path: Path) -> None:
    """A file, a package, one without weights."""
    task = Task.init(project_name="p", task_name="t")
    (tmp_path / "a.safetensors").write_bytes(SAMPLES["a.safetensors"])
    (tmp_path / "b.npz").write_bytes(SAMPLES["a.npz"])
    single, package = OutputModel(task=task, name="single"), OutputModel(task=task, name="package")
    single.update_weights(str(tmp_path / "a.safetensors"))
    package.update_weights_package(weights_filenames=[str(tmp_path / "a.safetensors"), str(tmp_path / "b.npz")])
    empty = OutputModel(task=task, name="empty")
    empty.set_metadata("k", 1)

    assert single.inspect()["a.w"].shape == (2, 2)
    assert {one.file for one in Model(str(package.id)).inspect().tensors} == {"a.safetensors", "b.npz"}
    with pytest.raises(MissingWeightsError):
        empty.inspect()
    task.close()


def _saved(path: Path, **arrays: np.ndarray) -> Path:
    with path.open("wb") as file:
        (np.savez_compressed if "packed" in path.name else np.savez)(file, **arrays)  # type: ignore[arg-type]
    return path


def test_tensors_are_compared_by_value(tmp_path: Path) -> None:
    """Between packed and unpacked files too; by type and shape alone where the bytes are far away."""
    base = {"same": np.arange(6.0), "value": np.zeros(3), "shape": np.zeros(4), "type": np.zeros(4), "gone": np.ones(1)}
    other = base | {"value": np.ones(3), "shape": np.zeros((2, 2)), "type": np.zeros(4, np.float32), "new": np.ones(2)}
    del other["gone"]
    one, two = _saved(tmp_path / "a.npz", **base), _saved(tmp_path / "packed.npz", **other)
    found = compare_tensors(inspect_path(one), inspect_path(two), one, two)
    remote = compare_tensors(inspect_path(one), inspect_path(two))

    assert {change.name: change.what for change in found.changed} == {
        "value": ("values",),
        "shape": ("shape",),
        "type": ("dtype",),
    }
    assert ([t.name for t in found.added], [t.name for t in found.removed], found.same) == (["new"], ["gone"], 1)
    assert {change.name for change in remote.changed} == {"shape", "type"}
    assert (found.by_values, remote.by_values) == (True, False)
    assert not compare_tensors(inspect_path(one), inspect_path(one), one, one)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_changed_byte_changes_one_tensor(name: str, tmp_path: Path) -> None:
    """The last byte of the first tensor, in every format that keeps bytes as they are."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = tmp_path / "one" / name, tmp_path / "two" / name
    one.write_bytes(SAMPLES[name])
    found = inspect_path(one)
    span = found.tensors[0].span
    assert span is not None
    if span.packed is not None:
        pytest.skip("compressed")
    from modelstore.inspection.bytesource import open_local
    from modelstore.inspection.zips import data_at

    with open_local(one) as source:
        start = 0 if span.member is None else data_at(source, span.member)
    data = bytearray(SAMPLES[name])
    data[start + span.offset + span.length - 1] ^= 1
    two.write_bytes(data)
    differences = compare_tensors(found, inspect_path(two), one, two)

    assert [change.name for change in differences.changed] == [found.tensors[0].name]
    assert not differences.added
    assert not differences.removed


def test_the_command_looks_into_files_and_models(run: Run, run_json: Json, tmp_path: Path) -> None:  # noqa: F811
    """By path without a registry, by name with one; in `show` as well."""
    file = tmp_path / "a.safetensors"
    file.write_bytes(SAMPLES["a.safetensors"])
    text = run("inspect", file).stdout

    assert "a.safetensors  safetensors" in text
    assert "float32 4, float16 4" in text
    assert "float32 2×2" in text
    assert "F16" not in text
    run("register", file, "--name", "net")
    assert run_json("inspect", "net")["tensors"][0]["shape"] == [2, 2]
    assert "a.w" in run("inspect", "net", "--tensors").stdout
    shown = run_json("show", "net")["weights"]
    assert shown == {"format": "safetensors", "tensors": 2, "parameters": 8, "dtypes": {"float32": 4, "float16": 4}}
    assert "inside the weights  (safetensors)" in run("show", "net").stdout


def test_the_command_says_what_is_wrong(run: Run, tmp_path: Path) -> None:  # noqa: F811
    """One line, and the right exit code."""
    (tmp_path / "a.safetensors").write_bytes(SAMPLES["a.safetensors"][:50])
    (tmp_path / "a.txt").write_text("hello")

    assert "cannot be looked into" in run("inspect", tmp_path / "a.safetensors", code=1).stderr
    assert "no format" in run("inspect", tmp_path / "a.txt", code=1).stderr
    run("inspect", tmp_path / "missing.pt", code=3)
    run("inspect", "no such model", code=3)


def test_names_of_tensors_cannot_command_the_terminal(run: Run, tmp_path: Path) -> None:  # noqa: F811
    """They come from strangers' files."""
    header = {"\x1b[31mred\n": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}
    (tmp_path / "a.safetensors").write_bytes(safetensors(header, bytes(4)))
    for words in (["--tensors"], []):
        text = run("inspect", tmp_path / "a.safetensors", *words).stdout
        assert "\x1b" not in text
        assert "\\x1b[31mred\\n" in text
    found = json.loads(run("inspect", tmp_path / "a.safetensors", "--json").stdout)
    assert found["tensors"][0]["name"] == "\x1b[31mred\n"
    assert "<script" not in inspect_path(tmp_path / "a.safetensors")._repr_html_()
