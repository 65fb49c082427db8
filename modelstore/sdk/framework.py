"""Names of machine-learning frameworks, and what a file's name says about its framework."""

from __future__ import annotations

from typing import Final

__all__ = ["Framework", "guess_framework"]


class Framework:
    """Constants for the `framework` of a model. Any other string is accepted there too."""

    tensorflow = "TensorFlow"
    tensorflowjs = "TensorFlow_js"
    tensorflowlite = "TensorFlow_Lite"
    pytorch = "PyTorch"
    torchscript = "TorchScript"
    caffe = "Caffe"
    caffe2 = "Caffe2"
    onnx = "ONNX"
    keras = "Keras"
    mknet = "MXNet"
    cntk = "CNTK"
    torch = "Torch"
    darknet = "Darknet"
    paddlepaddle = "PaddlePaddle"
    scikitlearn = "ScikitLearn"
    xgboost = "XGBoost"
    lightgbm = "LightGBM"
    parquet = "Parquet"
    megengine = "MegEngine"
    catboost = "CatBoost"
    tensorrt = "TensorRT"
    openvino = "OpenVINO"
    safetensors = "Safetensors"
    gguf = "GGUF"
    coreml = "CoreML"
    numpy = "NumPy"

    @staticmethod
    def get_framework_parents(framework: str | None) -> list[str]:
        """Return the constants' names of the frameworks that one builds on.

        Args:
            framework: A framework's value ("Keras"), any case; None or "" for none.

        Returns:
            Attribute names of `Framework`, [] when it builds on none.
        """
        return list(_PARENTS.get((framework or "").lower(), ()))


_PARENTS: Final[dict[str, tuple[str, ...]]] = {
    "keras": ("tensorflow",),
    "tensorflow_js": ("tensorflow",),
    "tensorflow_lite": ("tensorflow",),
    "torchscript": ("pytorch",),
    "caffe2": ("pytorch",),
}

# Longest first where one ending contains another. Archives say nothing: a .zip may hold anything.
_ENDINGS: Final = (
    ("saved_model.pbtxt", Framework.tensorflow),
    ("predict_net.pbtxt", Framework.caffe2),
    ("predict_net.pb", Framework.caffe2),
    ("-symbol.json", Framework.mknet),
    ("model.json", Framework.tensorflowjs),
    ("__model__", Framework.paddlepaddle),
    (".safetensors", Framework.safetensors),
    (".caffemodel", Framework.caffe),
    (".pdiparams", Framework.paddlepaddle),
    (".pdmodel", Framework.paddlepaddle),
    (".prototxt", Framework.caffe),
    (".mlpackage", Framework.coreml),
    (".torchscript", Framework.torchscript),
    (".parquet", Framework.parquet),
    (".mlmodel", Framework.coreml),
    (".weights", Framework.darknet),
    (".tflite", Framework.tensorflowlite),
    (".joblib", Framework.scikitlearn),
    (".engine", Framework.tensorrt),
    (".params", Framework.mknet),
    (".keras", Framework.keras),
    (".pbtxt", Framework.tensorflow),
    (".hdf5", Framework.keras),
    (".gguf", Framework.gguf),
    (".onnx", Framework.onnx),
    (".plan", Framework.tensorrt),
    (".meta", Framework.tensorflow),
    (".cntk", Framework.cntk),
    (".npz", Framework.numpy),
    (".npy", Framework.numpy),
    (".pth", Framework.pytorch),
    (".ckpt", Framework.pytorch),
    (".cbm", Framework.catboost),
    (".bst", Framework.xgboost),
    (".ubj", Framework.xgboost),
    (".cfg", Framework.darknet),
    (".pkl", Framework.scikitlearn),
    (".mge", Framework.megengine),
    (".pt", Framework.pytorch),
    (".pb", Framework.tensorflow),
    (".h5", Framework.keras),
    (".t7", Framework.torch),
)


def guess_framework(filename: str | None) -> str | None:
    """Return the framework that a file's name suggests; None when it says nothing, as archives do."""
    name = (filename or "").lower().split("?", 1)[0]
    return next((framework for ending, framework in _ENDINGS if name.endswith(ending)), None)
