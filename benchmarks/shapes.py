"""The questions of the query suite: each asks for the newest 100 models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["COUNTS", "LIMIT", "SHAPES", "Shape"]

LIMIT = 100


@dataclass(frozen=True)
class Shape:
    """One question.

    Attributes:
        name: What it is, in words.
        tags: As ClearML writes it.
        options: Further arguments of `Model.query_models`.
        worst: Whether it is meant to be hard: two tags on half of the models each that never meet.
        mlflow: What MLflow can say that comes nearest; empty where it cannot say it at all (OR, NOT).
    """

    name: str
    tags: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    worst: bool = False
    mlflow: str = ""


def _all(*tags: str) -> str:
    return " AND ".join(f"tags.`{tag}` = '1'" for tag in tags)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("everything"),
        Shape("broad", ["vision"], mlflow=_all("vision")),
        Shape("rare", ["prod"], mlflow=_all("prod")),
        Shape("OR of three", ["prod", "distilled", "team-05"]),
        Shape("OR of three broad", ["vision", "nightly", "quantised"]),
        Shape("AND of two rare", ["__$and", "prod", "candidate"], mlflow=_all("prod", "candidate")),
        Shape("AND of broad and rare", ["__$and", "vision", "prod"], mlflow=_all("vision", "prod")),
        Shape("AND of two broad", ["__$and", "vision", "nightly"], mlflow=_all("vision", "nightly")),
        Shape("rare and not broad", ["__$and", "prod", "__$not", "vision"]),
        Shape("not broad", ["-vision"]),
        Shape("not one of three", ["-vision", "-nightly", "-demo"]),
        Shape("not one of three, old ones left", ["-schema-v2", "-vision", "-nightly"]),
        Shape("a or b or (c and d)", ["prod", "demo", "__$and", "vision", "nightly"]),
        Shape("(a or b) and c and d", ["__$and", "__$or", "demo", "distilled", "__$and", "vision", "nightly"]),
        Shape("a or not b", ["demo", "-vision"]),
        Shape(
            "a and b and c and (d or not e) and (f or g)",
            [
                "__$all",
                "vision",
                "nightly",
                "gpu",
                "__$or",
                "demo",
                "__$not",
                "distilled",
                "__$and",
                "__$or",
                "prod",
                "quantised",
            ],
        ),
        Shape("AND of four and not a fifth", ["__$and", "vision", "nightly", "gpu", "prod", "__$not", "demo"]),
        Shape("broad in one project", ["vision"], {"project_name": "area-1/detect"}),
        Shape("not what the newest half has", ["-schema-v2"]),
        Shape("common and old", ["__$and", "legacy", "vision", "gpu"], mlflow=_all("legacy", "vision", "gpu")),
        Shape("two halves that never meet", ["__$and", "gpu", "cpu"], worst=True, mlflow=_all("gpu", "cpu")),
        Shape("two halves that never meet, and a NOT", ["__$and", "gpu", "cpu", "__$not", "demo"], worst=True),
        Shape("the new half and the old, which never meet", ["__$and", "schema-v2", "legacy"], worst=True),
    )
}

COUNTS = ("broad", "OR of three broad", "not broad", "AND of two broad", "two halves that never meet")
"""Questions whose answers are counted as well."""
