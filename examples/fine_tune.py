"""Start from weights that exist already, go on training, and see where the result came from.

Another ClearML script with another import line. Nothing but modelstore is needed: the model is a line, fitted by
gradient descent, and its weights are a JSON file.

Run it with `python examples/fine_tune.py`.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from modelstore import InputModel, Model, OutputModel, Task

# Stopping distances in m at speeds in km/h: one second to react, then braking at 8 m/s^2 on a dry road and at
# 4.5 m/s^2 on a wet one; rounded.
SPEEDS = [30, 50, 70, 100, 130]
DRY = [13, 26, 43, 76, 118]
WET = [16, 35, 61, 113, 181]


def fit(weights: dict[str, float], distances: list[int], steps: int = 20_000) -> tuple[dict[str, float], float]:
    """Fit distance = a * v + b * v^2, v in 100 km/h, from the given weights on; return them and the mean error in m."""
    a, b = weights["a"], weights["b"]
    points = [(speed / 100, distance) for speed, distance in zip(SPEEDS, distances, strict=True)]
    for _ in range(steps):
        errors = [a * v + b * v * v - distance for v, distance in points]
        a -= 0.05 * sum(error * v for error, (v, _) in zip(errors, points, strict=True))
        b -= 0.05 * sum(error * v * v for error, (v, _) in zip(errors, points, strict=True))
    mean = sum(abs(a * v + b * v * v - distance) for v, distance in points) / len(points)
    return {"a": a, "b": b}, mean


def pretrain(path: Path) -> None:
    """Make the weights that somebody published somewhere."""
    weights, _ = fit({"a": 0.0, "b": 0.0}, DRY)
    path.write_text(json.dumps(weights))


def main() -> None:
    with TemporaryDirectory() as folder:
        published = Path(folder) / "dry-road.json"
        pretrain(published)

        task = Task.init(project_name="examples/stopping", task_name="wet road")
        input_model = InputModel.import_model(
            weights_url=published.as_uri(),  # https:// or s3:// in real life
            name="dry road",
            config_dict={"formula": "a * v + b * v^2", "unit of v": "100 km/h"},
            framework="polynomial",
        )
        task.connect(input_model, name="road")

        weights = json.loads(Path(input_model.get_local_copy(raise_on_error=True)).read_text())
        weights, error = fit(weights, WET, steps=5_000)

        tuned = Path(folder) / "wet-road.json"
        tuned.write_text(json.dumps(weights))
        output_model = OutputModel(task=task, name="wet road", framework="polynomial", tags=["wet"])
        output_model.connect(task, name="road")  # the same name as the input's: this one was made from that one
        output_model.update_weights(weights_filename=tuned)
        output_model.set_metadata("mean error", round(error, 2))
        task.close()

    print(f"{output_model.name}: mean error {error:.1f} m, configuration {output_model.config_dict}")
    print(f"made from: {Model(output_model.parent).name}")
    print(f"the dry road's model is used by: {[Task.get_task(task_id).name for task_id in input_model.consumers()]}")


if __name__ == "__main__":
    main()
