"""Make the registry that a release leaves behind for all later ones to open.

Run once for each new format, just before it is released: python tests/data/make_registry.py tests/data/registry-formatN
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path

from modelstore import InputModel, OutputModel, Task
from modelstore import open as open_registry


def main(target: Path) -> None:
    """Make one of everything that a registry can hold."""
    with tempfile.TemporaryDirectory() as temporary, open_registry(target, cache=temporary, actor="ann@laptop") as registry:
        weights = Path(temporary) / "best.pt"
        weights.write_bytes(b"weights of the first release")
        folder = Path(temporary) / "package"
        folder.mkdir()
        (folder / "a.txt").write_text("a")
        (folder / "b.bin").write_bytes(bytes(range(256)))
        task = Task.create(project_name="vision/ocr", task_name="train")
        task.connect({"lr": 0.1, "layers": [1, 2]})
        model = OutputModel(task, name="reader", tags=["prod", "-odd", "größe"], framework="PyTorch", comment="first")
        model.update_labels({"cat": 1, "dog": 2})
        model.update_design(config_dict={"depth": 3, "shape": (1, 2)})
        model.update_weights(weights, iteration=7)
        for key, value in {"accuracy": 0.93, "nan": float("nan"), "nested": {"a": [1, {"b": None}]}, "text": "x"}.items():
            model.set_metadata(key, value)
        model.delete_metadata("text")
        model.publish()
        draft = OutputModel(task, name="draft", tags=["prod", "gone"])
        draft.update_weights_package(weights_path=folder)
        draft.remove_tags("gone")
        draft.comment = "edited"
        foreign = InputModel.import_model("s3://bucket/teacher.onnx", name="teacher", project="vision")
        Task.create(task_name="use").connect(foreign, name="teacher")
        foreign.archive()
        removed = InputModel.import_model("s3://bucket/removed.onnx", name="removed")
        InputModel.remove(removed)
        with registry.transaction():
            draft.add_tags("together")
            foreign.add_tags("together")
        for iteration, value in enumerate((0.5, float("nan"), float("inf"), 0.25)):
            model.report_scalar("val", "iou", value, iteration)
            task.get_logger().report_scalar("train", "loss", iteration / 2, iteration)
        model.report_single_value("f1", 0.75)
        model.report_confusion_matrix("confusion", "val", [[8, 2], [float("nan"), 9]], 3, xlabels=["cat", "dog"])
        model.report_scatter2d("large", "val", [(i / 7, i) for i in range(4000)], 3)
        model.report_image("image", "val", 3, image=[[0, 128], [255, 64]])
        model.report_media("media", "elsewhere", url="https://example.com/a.wav")
        registry.reports.flush()
        task.mark_completed()
    connection = sqlite3.connect(target / "registry.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for leftover in [*target.glob("registry.db-*"), *target.glob("*.lock")]:
        leftover.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
