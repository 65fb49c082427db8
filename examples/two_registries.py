"""Work on two registries in one process: try things in a scratch registry, carry what is good over to another.

Run it with `python examples/two_registries.py [FOLDER]`.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import modelstore
from modelstore import Model, OutputModel, Task


def experiment(scratch: modelstore.Registry, folder: Path) -> Model:
    """Register three attempts in the scratch registry, and return the best."""
    with scratch:  # inside the block, the classes work on this registry
        task = Task.create(project_name="search", task_name="three attempts")
        for attempt, loss in enumerate([0.52, 0.31, 0.44]):
            weights = folder / f"attempt-{attempt}.bin"
            weights.write_text(f"weights of attempt {attempt}")
            model = OutputModel(task=task, name=f"attempt {attempt}")
            model.update_weights(weights)
            model.set_metadata("loss", loss)
        best = Model.query_models(order_by="metadata.loss", max_results=1)[0]
        print(f"scratch: {len(Model.query_models())} models, the best is {best.name}, loss {best.get_metadata('loss')}")
        best.get_local_copy(raise_on_error=True)
        return best


def main(folder: str | None = None) -> None:
    with TemporaryDirectory() as temporary:
        place = Path(folder or temporary)
        scratch, keeper = place / "scratch", place / "keeper"
        best = experiment(modelstore.open(scratch), Path(temporary))

        # The scratch registry is closed now; opened again, it has everything still.
        with modelstore.open(scratch, create=False):
            source = Model(best.id)
            weights, facts = source.get_local_copy(raise_on_error=True), source.get_all_metadata()
            name, digest = source.name, source.digest

        with modelstore.open(keeper, actor="the reviewer"):
            task = Task.create(project_name="kept", task_name="review")
            model = OutputModel(task=task, name=name, tags=["reviewed"], comment=f"from {scratch.name}, {best.id}")
            model.update_weights(weights, update_comment=False)
            model.set_all_metadata(facts)
            model.publish()
            reviewed = [m.name for m in Model.query_models(tags=["reviewed"])]
            print(f"keeper: {', '.join(reviewed)}, same bytes: {model.digest == digest}")
            print(f"keeper: last change by {model.history()[-1].actor}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
