"""Looking into files of weights: which tensors they hold, without executing anything and without any framework.

Only headers are read, by ranged requests where the file is far away. A file is never trusted: lengths are checked
against what is there before anything is allocated, and no amount of nesting or repetition costs more than a bound.
"""

from __future__ import annotations

from modelstore.inspection.contents import Inspection, Layer, TensorInfo
from modelstore.inspection.differences import TensorChange, TensorDifferences, compare_tensors
from modelstore.inspection.reading import inspect_bytes, inspect_path, inspect_uri

__all__ = [
    "Inspection",
    "Layer",
    "TensorChange",
    "TensorDifferences",
    "TensorInfo",
    "compare_tensors",
    "inspect_bytes",
    "inspect_path",
    "inspect_uri",
]
