"""Register a handful of models in a registry of their own, and find them by tags, metadata, name and time.

Run it with `python examples/querying.py`.
"""

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import modelstore
from modelstore import Field, Meta, Model, OutputModel, Tag, Task
from modelstore.query import explain, parse_tags

RUNS = [  # name, tags, accuracy
    ("lion-small", ["cat", "draft"], 0.81),
    ("lion-large", ["cat", "prod"], 0.93),
    ("wolf-small", ["dog"], 0.88),
    ("wolf-large", ["dog", "prod", "broken"], 0.95),
]


def register(folder: Path) -> None:
    task = Task.init(project_name="zoo", task_name="four models")
    for name, tags, accuracy in RUNS:
        weights = folder / f"{name}.bin"
        weights.write_bytes(name.encode() * 100)
        model = OutputModel(task=task, name=name, tags=tags, framework="numbers")
        model.update_weights(weights, iteration=10)
        model.set_all_metadata({"accuracy": accuracy, "classes": ["adult", "cub"]})
    task.close()


def show(what: str, models: list[Model]) -> None:
    print(f"{what}: {', '.join(str(model.name) for model in models) or 'none'}")


def ask() -> None:
    # As in ClearML: lists of tags with operators.
    for tags in (["cat", "prod"], ["__$and", "prod", "-broken"], ["__$not", "draft", "__$or", "cat", "dog"]):
        show(explain(parse_tags(tags)), Model.query_models(tags=tags))

    # As expressions, or as text that a person typed.
    good = (Meta("accuracy") > 0.9) & ~Tag("broken")
    show(explain(good), Model.query_models(where=good))
    typed = "accuracy >= 0.88 and name matches '^wolf' and not tag('broken')"
    show(typed, Model.query_models(where=typed))

    # Fields, and an order of one's own.
    today = Field("created") >= date.today()  # noqa: DTZ011 - the day of whoever runs this
    show("today's, best first", Model.query_models(where=today, order_by=["-metadata.accuracy", "name"]))

    # What is wrong with a question is said, and where.
    for wrong in (["cat", "__$not"], ["__$nor", "cat"]):
        try:
            Model.query_models(tags=wrong)
        except ValueError as error:
            print(f"refused: {error}")


def main() -> None:
    with TemporaryDirectory() as folder, modelstore.open(Path(folder) / "registry"):
        register(Path(folder))
        ask()


if __name__ == "__main__":
    main()
