"""A million models as a busy team might have them: the same for every contender, made from nothing but their number.

A few tags are on half of the models, most are on a handful. On the average a model has five. Two tags divide all models
(`gpu` and `cpu` never meet), one is on everything new (`schema-v2`), one on everything old (`legacy`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

__all__ = ["model", "model_id", "models", "uri"]

_TASKS = ("detect", "segment", "classify", "rank", "embed", "translate", "forecast", "caption")
_SIZES = ("nano", "small", "base", "large", "huge")
_FRAMEWORKS = ("PyTorch", "PyTorch", "PyTorch", "ONNX", "TensorFlow", "ScikitLearn", "XGBoost")
_SPREAD = 2654435761  # odd, so that multiplying by it modulo a power of two mixes numbers without loss


def model_id(number: int) -> str:
    """Return the id of a model: spread over all ids, as random ones are."""
    return f"{(number * _SPREAD) % 2**32:08x}{number:024x}"


def uri(number: int) -> str:
    return f"s3://models/{number % 977:03}/{number:08}/weights.pt"


def _skewed(random_number: float, count: int) -> int:
    """Return a number below ``count``, small ones far more often: about as words are in a language."""
    return int(count**random_number) - 1


def model(number: int, total: int) -> dict[str, Any]:
    """Return one model as the arguments of `Models.create`.

    Args:
        number: Which, from 0; the older the smaller.
        total: How many there are.
    """
    dice = random.Random(number)
    draw = dice.random
    tags = {"gpu" if draw() < 0.5 else "cpu", f"team-{_skewed(draw(), 50):02}"}
    for tag, share in (("vision", 0.5), ("nightly", 0.4), ("quantised", 0.25), ("distilled", 0.1), ("demo", 0.05)):
        if draw() < share:
            tags.add(tag)
    if number * 2 >= total:
        tags.add("schema-v2")
    elif draw() < 0.6:
        tags.add("legacy")
    if draw() < 0.002:
        tags.add("prod")
    if draw() < 0.002:
        tags.add("candidate")
    if draw() < 0.4:
        tags.add(f"dataset-{_skewed(draw(), 2000)}")
    if draw() < 0.2:
        tags.add(f"experiment-{number // 50}")
    if draw() < 0.05:
        tags.add(f"ticket-{int(draw() * total / 5)}")
    size, task = dice.choice(_SIZES), dice.choice(_TASKS)
    return {
        "model_id": model_id(number),
        "name": f"{task}-{size}-{number % 5000}",
        "project": f"area-{_skewed(draw(), 20)}/{task}",
        "framework": dice.choice(_FRAMEWORKS),
        "uri": uri(number),
        "comment": f"{size} network for {task}, run {number}",
        "iteration": int(draw() * 100_000),
        "tags": sorted(tags),
        "metadata": {"accuracy": round(1 - draw() * draw(), 6), "dataset": f"set-{_skewed(draw(), 500)}"},
    }


def models(until: int, first: int, total: int) -> Iterator[dict[str, Any]]:
    """Yield the models from number ``first`` to before ``until``, oldest first."""
    for number in range(first, until):
        yield model(number, total)
