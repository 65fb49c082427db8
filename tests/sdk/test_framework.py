"""Frameworks: their names, and what a file's name says."""

from __future__ import annotations

import pytest

from modelstore import Framework
from modelstore.sdk.framework import guess_framework


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        ("model.pt", "PyTorch"),
        ("MODEL.PTH", "PyTorch"),
        ("saved_model.pb", "TensorFlow"),
        ("predict_net.pb", "Caffe2"),
        ("graph.pbtxt", "TensorFlow"),
        ("tfjs/model.json", "TensorFlow_js"),
        ("net-symbol.json", "MXNet"),
        ("a.tflite", "TensorFlow_Lite"),
        ("a.caffemodel", "Caffe"),
        ("a.prototxt", "Caffe"),
        ("a.onnx", "ONNX"),
        ("a.h5", "Keras"),
        ("a.hdf5", "Keras"),
        ("a.keras", "Keras"),
        ("a.cntk", "CNTK"),
        ("a.t7", "Torch"),
        ("yolo.cfg", "Darknet"),
        ("__model__", "PaddlePaddle"),
        ("a.pkl", "ScikitLearn"),
        ("a.joblib", "ScikitLearn"),
        ("a.parquet", "Parquet"),
        ("a.cbm", "CatBoost"),
        ("a.plan", "TensorRT"),
        ("a.engine", "TensorRT"),
        ("a.safetensors", "Safetensors"),
        ("a.gguf", "GGUF"),
        ("a.npz", "NumPy"),
        ("a.bst", "XGBoost"),
        ("https://x/a.onnx?signature=b.pt", "ONNX"),
        ("a.zip", None),
        ("a.tgz", None),
        ("a.tar.gz", None),
        ("a.model", None),
        ("a.json", None),
        ("a.bin", None),
        ("pt", None),
        ("", None),
        (None, None),
    ],
)
def test_a_name_suggests_its_framework(name: str | None, framework: str | None) -> None:
    """Archives say nothing: ClearML takes every .zip for TensorFlow."""
    assert guess_framework(name) == framework


def test_constants_are_clearmls_values() -> None:
    """They are what queries and other programs compare."""
    values = {name: value for name, value in vars(Framework).items() if isinstance(value, str) and name[0] != "_"}

    assert values.items() >= {
        "tensorflow": "TensorFlow", "tensorflowjs": "TensorFlow_js", "tensorflowlite": "TensorFlow_Lite",
        "pytorch": "PyTorch", "torchscript": "TorchScript", "caffe": "Caffe", "caffe2": "Caffe2", "onnx": "ONNX",
        "keras": "Keras", "mknet": "MXNet", "cntk": "CNTK", "torch": "Torch", "darknet": "Darknet",
        "paddlepaddle": "PaddlePaddle", "scikitlearn": "ScikitLearn", "xgboost": "XGBoost", "lightgbm": "LightGBM",
        "parquet": "Parquet", "megengine": "MegEngine", "catboost": "CatBoost", "tensorrt": "TensorRT",
        "openvino": "OpenVINO",
    }.items()  # fmt: skip


def test_parents_of_frameworks() -> None:
    """What a framework builds on."""
    assert Framework.get_framework_parents("Keras") == ["tensorflow"]
    assert Framework.get_framework_parents("nosuch") == []
    assert Framework.get_framework_parents("") == []
    assert Framework.get_framework_parents(None) == []
