"""Files that the real libraries wrote, looked into without them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from modelstore.errors import UnreadableWeightsError
from modelstore.inspection import Inspection, inspect_path

_TORCH = Path(__file__).parent.parent / "data" / "weights"


def _shapes(inspection: Inspection) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {one.name: (one.dtype, one.shape) for one in inspection.tensors}


def test_safetensors_of_the_real_library(tmp_path: Path) -> None:
    """Types, shapes, and metadata with everything in it that JSON makes difficult."""
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    arrays: dict[str, np.ndarray] = {
        "layer.0.weight": np.ones((3, 4), np.float32),
        "layer.0.bias": np.zeros(3, np.float16),
        "ids": np.arange(5),
        "flag": np.array([True]),
        "scalar": np.array(1.5),
        "empty": np.zeros((0, 3), np.uint8),
        'na"me\\ {ü🙂': np.zeros(2, np.int8),
    }
    library.save_file(arrays, tmp_path / "a.safetensors", metadata={"config": '{"a": ["}", "\\""]}', "ü": "🙂"})
    found = inspect_path(tmp_path / "a.safetensors")

    assert found.format == "safetensors"
    assert _shapes(found) == {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    assert found.metadata == {"config": '{"a": ["}", "\\""]}', "ü": "🙂"}
    assert found.parameters == 12 + 3 + 5 + 1 + 1 + 2
    assert found["layer.0.weight"].size == 48


def test_gguf_of_the_real_library(tmp_path: Path) -> None:
    """Quantised types count their blocks; shapes have the slowest dimension first; long lists are only counted."""
    library = pytest.importorskip("gguf", reason="gguf is not installed")
    writer = library.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_block_count(2)
    writer.add_array("tokens", [f"token {i}" for i in range(5000)])
    writer.add_array("few", [1, 2, 3])
    writer.add_float32("scale", float("nan"))
    writer.add_tensor("blk.0.w", np.ones((4, 64), np.float32))
    quantised = np.zeros((4, 2 * 34), np.uint8)
    writer.add_tensor("blk.0.q", quantised, raw_dtype=library.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = inspect_path(tmp_path / "a.gguf")

    assert _shapes(found) == {"blk.0.w": ("float32", (4, 64)), "blk.0.q": ("Q8_0", (4, 64))}
    assert found["blk.0.q"].size == quantised.nbytes
    assert found.metadata["llama.block_count"] == 2
    assert found.metadata["tokens"] == "5000 × string"
    assert found.metadata["few"] == [1, 2, 3]
    assert found.to_dict()["metadata"]["scale"] == {"$float": "nan"}


def test_gguf_types_are_those_of_the_real_library() -> None:
    """A wrong block size would misjudge every file with that type."""
    library = pytest.importorskip("gguf", reason="gguf is not installed")
    from modelstore.inspection.gguf import TYPES

    theirs = {kind.value: tuple(sizes) for kind, sizes in library.GGML_QUANT_SIZES.items()}
    assert {number: TYPES[number][1:] for number in theirs if number in TYPES} == {
        number: sizes for number, sizes in theirs.items() if number in TYPES
    }
    assert len(TYPES) >= 30


def test_onnx_of_the_real_library(tmp_path: Path) -> None:
    """Initializers in every encoding, constants inside nodes and subgraphs, inputs with named dimensions."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, kinds = onnx.helper, onnx.TensorProto
    array = onnx.numpy_helper.from_array
    inner = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["o"])], "then",
        [], [helper.make_tensor_value_info("o", kinds.FLOAT, [2])],
        [array(np.ones(2, np.float32), "k")],
    )  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "W", "B"], ["y"]),
            helper.make_node("Constant", [], ["c"], value=array(np.ones((3, 1), np.float64))),
            helper.make_node("If", ["q"], ["z"], then_branch=inner, else_branch=inner),
        ],
        "net",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, [1, 3])],
        [
            array(np.ones((4, 3), np.float32), "W"),
            helper.make_tensor("B", kinds.FLOAT, [3], [1.0, 2.0, 3.0]),
            helper.make_tensor("half", kinds.BFLOAT16, [2], [1.0, 2.0]),
            helper.make_tensor("four", kinds.INT4, [3], [1, 2, 3]),
        ],
    )
    model = helper.make_model(graph, producer_name="tests")
    onnx.helper.set_model_props(model, {"author": "ada"})
    onnx.save(model, tmp_path / "a.onnx")
    found = inspect_path(tmp_path / "a.onnx")

    assert found.format == "ONNX"
    assert _shapes(found) == {
        "W": ("float32", (4, 3)),
        "B": ("float32", (3,)),
        "half": ("bfloat16", (2,)),
        "four": ("int4", (3,)),
        "c": ("float64", (3, 1)),
        "z.k": ("float32", (2,)),
    }
    assert found.metadata["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]
    assert found.metadata["producer"] == "tests"
    assert found.metadata["metadata.author"] == "ada"
    assert found.metadata["nodes"]["Gemm"] == 1
    assert found["four"].size == 2


def test_onnx_with_external_data_says_so(tmp_path: Path) -> None:
    """The bytes are in another file; type and shape are known all the same."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    tensor = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "W")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    onnx.save(
        onnx.helper.make_model(graph),
        tmp_path / "a.onnx",
        save_as_external_data=True,
        location="a.bin",
        size_threshold=0,
    )
    found = inspect_path(tmp_path / "a.onnx")

    assert found["W"].file == "external data"
    assert found["W"].size == 64 * 64 * 4


def test_npy_and_npz(tmp_path: Path) -> None:
    """Compressed or not, records, texts and objects included; a pickle inside is not looked at."""
    arrays = {
        "w": np.ones((2, 3)),
        "turned": np.asfortranarray(np.ones((5, 6), np.float32)),
        "names": np.array(["ab", "c"]),
        "records": np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
        "objects": np.array([{}, None], dtype=object),
        "when": np.array(["2026-01-01"], dtype="datetime64[D]"),
    }
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    np.savez_compressed(tmp_path / "b.npz", **arrays)  # type: ignore[arg-type]
    np.save(tmp_path / "c.npy", arrays["w"])
    plain, packed, single = (inspect_path(tmp_path / name) for name in ("a.npz", "b.npz", "c.npy"))

    assert _shapes(plain) == _shapes(packed)
    assert _shapes(plain)["turned"] == ("float32", (5, 6))
    assert _shapes(plain)["names"] == ("str2", (2,))
    assert plain["objects"].dtype == "object"
    assert plain.metadata == {"turned order": "Fortran"}
    assert _shapes(single) == {"c": ("float64", (2, 3))}


def test_a_state_dictionary_of_pytorch() -> None:
    """Tied weights count once, views have their own shape, every type has its name."""
    found = inspect_path(_TORCH / "state.pt")

    assert found.format == "PyTorch"
    assert found["body.0.weight"].shape == (3, 4)
    assert found["body.2.weight"].dtype == "bfloat16"
    assert found["tied.weight"].shared_with == "body.0.weight"
    assert (found["turned"].shape, found["turned"].strides) == ((3, 2), (1, 3))
    assert (found["part"].shape, found["part"].size) == ((3,), 24)
    assert found["wide"].dtype == "uint16"
    assert found["body.1.num_batches_tracked"].shape == ()
    assert found.parameters == sum(one.parameters for one in found.tensors) - 12
    assert found.metadata["archive byteorder"] == "little"


def test_a_checkpoint_a_module_and_torchscript() -> None:
    """What people save beside plain dictionaries; classes in it stay names."""
    checkpoint, module, scripted = (
        inspect_path(_TORCH / name) for name in ("checkpoint.pt", "module.pt", "scripted.pt")
    )

    assert checkpoint.metadata["epoch"] == 7
    assert checkpoint.metadata["note"] == "half way"
    assert checkpoint["model.weight"].shape == (3, 4)
    assert checkpoint["optimizer.state.0.exp_avg"].shape == (3, 4)
    assert [one.name for one in module.tensors] == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert scripted.format == "TorchScript"
    assert [one.name for one in scripted.tensors] == ["0.weight", "0.bias"]


def test_pytorch_itself_agrees(tmp_path: Path) -> None:
    """With PyTorch here, its present version's files too."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = {"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.float16)}
    torch.save(state, tmp_path / "a.pt")

    assert _shapes(inspect_path(tmp_path / "a.pt")) == {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in state.items()
    }


def test_the_parts_of_sparse_tensors_are_shown() -> None:
    """They are what the file holds."""
    found = inspect_path(_TORCH / "sparse.pt")

    assert [(one.name, one.shape) for one in found.tensors] == [
        ("coo.indices", (2, 3)),
        ("coo.values", (3,)),
        ("csr.compressed_indices", (4,)),
        ("csr.plain_indices", (3,)),
        ("csr.values", (3,)),
    ]


def test_an_exported_program_is_not_taken_for_a_package(tmp_path: Path) -> None:
    """Its example inputs are a file of PyTorch's, and no weights."""
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("a/archive_format", "pt2")
        archive.writestr("a/data/weights/weight_0", bytes(48))
        archive.write(_TORCH / "state.pt", "a/data/sample_inputs/model.pt")

    with pytest.raises(UnreadableWeightsError, match=r"torch\.export"):
        inspect_path(tmp_path / "a.pt2")


def test_a_package_and_a_folder_show_the_files_in_them(tmp_path: Path) -> None:
    """Sharded models are one model; what is no weights is named."""
    folder = tmp_path / "parts"
    (folder / "sub").mkdir(parents=True)
    np.save(folder / "a.npy", np.ones(3))
    np.savez(folder / "sub" / "b.npz", w=np.ones((2, 2), np.float32))
    (folder / "config.json").write_text("{}")
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder).as_posix())
    for found in (inspect_path(folder), inspect_path(tmp_path / "parts.zip")):
        assert {(one.file, one.name, one.shape) for one in found.tensors} == {
            ("a.npy", "a", (3,)),
            ("sub/b.npz", "w", (2, 2)),
        }
        assert list(found.others) == ["config.json"]


def test_layers_add_up(tmp_path: Path) -> None:
    """Each level has the sums of what is below; chains of single layers are one line."""
    np.savez(
        tmp_path / "a.npz",
        **{"net.enc.0.w": np.ones((4, 4)), "net.enc.0.b": np.ones(4), "net.enc.1.w": np.ones(2), "head": np.ones(3)},  # type: ignore[arg-type]
    )
    root = inspect_path(tmp_path / "a.npz").layers()

    assert (root.tensors, root.parameters, root.size) == (4, 25, 200)
    assert [(level, layer.name, layer.parameters) for level, layer in root.walk()] == [
        (0, "net.enc", 22),
        (1, "net.enc.0", 20),
        (2, "net.enc.0.w", 16),
        (2, "net.enc.0.b", 4),
        (1, "net.enc.1.w", 2),
        (0, "head", 3),
    ]
    assert [layer.name for _, layer in root.walk(1)] == ["net.enc", "head"]


@pytest.mark.parametrize(("name", "content"), [("a.txt", b"hello world, this is no model"), ("a.pkl", b"\x80\x04N.")])
def test_what_cannot_be_looked_into_is_told_in_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    """With the list of what can."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UnreadableWeightsError, match="safetensors, GGUF, ONNX, NumPy"):
        inspect_path(tmp_path / name)


def test_nothing_heavy_is_imported_for_a_look() -> None:
    """Neither a framework nor NumPy: a look costs milliseconds."""
    code = (
        "import sys; from modelstore.inspection import inspect_path; "
        f"inspect_path({str(_TORCH / 'module.pt')!r}); "
        "print([m for m in ('numpy', 'torch', 'fsspec', 'pickle', 'sqlite3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() in ("[]", "['pickle']"), done.stdout  # pickletools itself imports pickle
