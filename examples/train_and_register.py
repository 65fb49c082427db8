"""Train a classifier, keep its best weights, publish them.

A ClearML script with another import line: `from clearml import OutputModel, Task` would be the only difference.

Needs scikit-learn. Run it with `python examples/train_and_register.py`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from modelstore import OutputModel, Task


def main() -> None:
    task = Task.init(project_name="examples/digits", task_name="linear classifier")
    settings = task.connect({"epochs": 30, "alpha": 0.001, "seed": 3})

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.data, digits.target, test_size=0.3, stratify=digits.target, random_state=settings["seed"]
    )
    scaler = StandardScaler().fit(x_train)
    classifier = SGDClassifier(loss="log_loss", alpha=settings["alpha"], random_state=settings["seed"])

    output_model = OutputModel(task=task, name="digits", framework="ScikitLearn", tags=["linear"])
    output_model.update_labels({str(digit): int(digit) for digit in digits.target_names})
    output_model.update_design(config_dict={"pixels": [8, 8], "loss": "log_loss"})

    best = 0.0
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "digits.joblib"
        for epoch in range(settings["epochs"]):
            classifier.partial_fit(scaler.transform(x_train), y_train, classes=digits.target_names)
            accuracy = float(classifier.score(scaler.transform(x_test), y_test))
            if accuracy > best:
                best = accuracy
                joblib.dump({"scaler": scaler, "classifier": classifier}, weights)
                output_model.update_weights(weights_filename=str(weights), iteration=epoch)
                print(f"epoch {epoch}: accuracy {accuracy:.3f}, stored")

    output_model.set_metadata("accuracy", best, v_type="float")
    output_model.publish()
    print(f"published {output_model.id}, accuracy {best:.3f}")
    task.close()


if __name__ == "__main__":
    main()
