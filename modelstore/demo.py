"""The demonstration: train on real images, register what is best, and find it again from a second process.

`modelstore demo` and `make demo` run it. It works in a registry of its own, so that it never touches the user's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from modelstore.errors import InvalidUriError, ModelStoreError

if TYPE_CHECKING:
    from modelstore.sdk.output_model import OutputModel
    from modelstore.sdk.task import Task

__all__ = ["main"]

_FOLDER: Final = "modelstore-demo"
_PROJECT: Final = "demo/digits"
_EPOCHS: Final = 40
_SEED: Final = 7
_HIDDEN: Final = 64
_GOOD_ENOUGH: Final = 0.9
_SHADES: Final = " .:-=+*#%@"
# Settings that would send the demonstration's weights to the user's own storage.
_FOREIGN: Final = ("MODELSTORE_DEFAULT_OUTPUT_URI", "CLEARML_DEFAULT_OUTPUT_URI")
_MISSING: Final = """\
The demo trains with scikit-learn, which is not installed here. Install it with
    {python} -m pip install "scikit-learn>=1.5" "joblib>=1.4"
or, from a checkout of modelstore, with
    {python} -m pip install -e ".[demo]"
"""


@dataclass(frozen=True, slots=True)
class _Digits:
    """Images of shape (n, 64), grey 0 to 16, and what they show, shape (n,); in three parts that share nothing."""

    train: tuple[Any, Any]
    validation: tuple[Any, Any]
    test: tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class _Trained:
    """What the first process made and measured."""

    model_id: str
    accuracy: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        0 when the second process found the model and measured what the first had; 1 when something is missing or
        went wrong, after a line about it on standard error.
    """
    arguments = _arguments(argv)
    if not _installed():
        sys.stderr.write(_MISSING.format(python=sys.executable))
        return 1
    try:
        with _surroundings(arguments.registry):
            return _find(arguments.measured) if arguments.measured is not None else _demonstrate(arguments.registry)
    except (ModelStoreError, OSError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="modelstore demo",
        description="Train on scikit-learn's handwritten digits, register the best model, and find it again from a "
        "second process.",
    )
    parser.add_argument(
        "--registry",
        type=_folder,
        default=Path(_FOLDER).absolute(),
        metavar="FOLDER",
        help=f"where the demonstration keeps its models (default: ./{_FOLDER})",
    )
    parser.add_argument("--measured", type=float, help=argparse.SUPPRESS)  # makes this the second process
    return parser.parse_args(argv)


def _folder(text: str) -> Path:
    from modelstore.storage.uris import local_path

    try:
        path = local_path(text)
    except InvalidUriError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if path is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no folder of this machine")
    return path


def _installed() -> bool:
    try:
        import joblib
        import sklearn
    except ImportError:
        return False
    return bool(joblib and sklearn)


@contextmanager
def _surroundings(registry: Path) -> Iterator[None]:
    """Have this process and its children use the demonstration's registry and nothing of the user's."""
    wanted = {"MODELSTORE_REGISTRY": str(registry), "MODELSTORE_CACHE": str(registry / "cache")}
    former = {name: os.environ.get(name) for name in (*wanted, *_FOREIGN)}
    for name in _FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in former.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _demonstrate(registry: Path) -> int:
    import modelstore

    _say(f"The registry of this demonstration is {registry}")
    _say("", f"1. Train, in process {os.getpid()}")
    with modelstore.open(registry), tempfile.TemporaryDirectory(prefix="modelstore-demo-") as scratch:
        trained = _train(Path(scratch) / "digits.joblib")
    # An interpreter of its own, which knows nothing but the registry and what to look for.
    command = [sys.executable, "-m", "modelstore.demo", "--registry", str(registry)]
    found = subprocess.run([*command, "--measured", repr(trained.accuracy)], check=False)  # noqa: S603 - ourselves
    if found.returncode != 0:
        sys.stderr.write("demo: the second process did not get back what the first had registered\n")
        return 1
    _advise(registry, trained.model_id)
    return 0


# -- the first process -------------------------------------------------------------------------------------------------


def _train(weights: Path) -> _Trained:
    """Train, store the weights whenever validation improves, and publish what is best.

    Args:
        weights: File to which the training saves, again and again.
    """
    from modelstore import Framework, OutputModel, Task

    task = Task.init(project_name=_PROJECT, task_name="multilayer perceptron")
    try:
        digits = _digits()
        train, validation, test = (len(part[1]) for part in (digits.train, digits.validation, digits.test))
        _say(
            f"   {train + validation + test:,} digits of 8 by 8 pixels: {train:,} to train, {validation} to validate, "
            f"{test} to test"
        )
        model = OutputModel(task=task, name="digits", framework=Framework.scikitlearn, tags=["digits", "demo"])
        model.config_dict = {"layers": [64, _HIDDEN, 10], "activation": "relu", "solver": "adam"}
        model.update_labels({str(digit): digit for digit in range(10)})
        _fit(model, task, digits, weights)
        return _publish(model, digits)
    finally:
        task.close()


def _fit(model: OutputModel, task: Task, digits: _Digits, weights: Path) -> None:
    import joblib
    from sklearn.neural_network import MLPClassifier

    settings = task.connect({"epochs": _EPOCHS, "batch_size": 32, "random_state": _SEED})
    network = MLPClassifier((_HIDDEN,), batch_size=settings["batch_size"], random_state=settings["random_state"])
    best, stored = 0.0, 0
    progress = _Progress(sys.stdout, settings["epochs"])
    for epoch in range(1, settings["epochs"] + 1):
        network.partial_fit(*digits.train, classes=range(10))
        accuracy = _accuracy(network, digits.validation)
        if accuracy <= best:
            progress.show(epoch, f"{accuracy:.4f}")
            continue
        best, stored = accuracy, stored + 1
        joblib.dump(network, weights)  # over the last one: the registry took a copy of that
        model.update_weights(weights, iteration=epoch)
        model.set_metadata("validation accuracy", accuracy)
        progress.keep(epoch, f"{accuracy:.4f}  better: stored {model.size:,} bytes as {(model.digest or '')[:19]}...")
    progress.end()
    _say(f"   {stored} of {settings['epochs']} epochs were better than all before; the model has the last of them")


def _publish(model: OutputModel, digits: _Digits) -> _Trained:
    import joblib

    path = model.get_local_copy(raise_on_error=True)
    accuracy = _accuracy(joblib.load(path), digits.test)
    model.set_all_metadata(
        {"accuracy": accuracy, "test images": len(digits.test[1]), "dataset": "scikit-learn digits"}, replace=False
    )
    model.add_tags("best")
    model.publish()
    _say("", "2. Register")
    _say(f"   model      {model.id}", f"   tags       {', '.join(model.tags)}", f"   accuracy   {accuracy:.4f} (test)")
    _say("   published  its weights, labels and configuration can no longer change")
    return _Trained(str(model.id), accuracy)


# -- the second process ------------------------------------------------------------------------------------------------


def _find(measured: float) -> int:
    """Find the model by what is known about it, load it, and measure it again.

    Args:
        measured: Accuracy that the first process measured, 0 to 1.

    Returns:
        0 when the accuracy is exactly that, else 1.
    """
    import joblib

    from modelstore import Meta, Model

    _say("", f"3. Find it again, in process {os.getpid()}")
    found = Model.query_models(
        project_name=_PROJECT,
        tags=["__$and", "best", "demo", "-broken"],
        where=Meta("accuracy") >= _GOOD_ENOUGH,
        only_published=True,
    )
    _say(
        f"   published models tagged best and demo, accuracy at least {_GOOD_ENOUGH}: {len(found)}, the newest is taken"
    )
    if not found:
        sys.stderr.write("demo: no model matches\n")
        return 1
    path = found[0].get_local_copy(raise_on_error=True)
    _say(f"   model      {found[0].id}", f"   local copy {path}")
    network = joblib.load(path)
    images, truth = _digits().test
    predicted = network.predict(images)
    _say("", *_gallery(images, truth, predicted), "")
    accuracy = _accuracy(network, (images, truth))
    if accuracy != measured:
        sys.stderr.write(f"demo: it predicts {accuracy!r} right here, and the first process measured {measured!r}\n")
        return 1
    right = int((predicted == truth).sum())
    _say(f"   {right} of {len(truth)} test images right: accuracy {accuracy:.4f}, exactly what process 1 measured")
    return 0


def _gallery(images: Any, truth: Any, predicted: Any) -> list[str]:
    """Return lines that show four images side by side: different digits and, where there is one, a wrong answer."""
    wrong = [i for i in range(len(truth)) if predicted[i] != truth[i]][:1]
    right = {truth[i]: i for i in range(len(truth)) if predicted[i] == truth[i]}
    chosen = sorted(right.values())[: 4 - len(wrong)] + wrong
    pictures = [_picture(images[i]) for i in chosen]
    captions = [f"predicted {predicted[i]}" + ("" if predicted[i] == truth[i] else f", is {truth[i]}") for i in chosen]
    lines = ["   " + "  ".join(row).rstrip() for row in zip(*pictures, strict=True)]
    return [*lines, "   " + "  ".join(f"{caption:^16}" for caption in captions).rstrip()]


def _picture(image: Any) -> list[str]:
    """Return 8 lines of 16 characters, two for each pixel."""
    shades = [_SHADES[min(int(grey) * len(_SHADES) // 17, len(_SHADES) - 1)] * 2 for grey in image]
    return ["".join(shades[row : row + 8]) for row in range(0, 64, 8)]


# -- both --------------------------------------------------------------------------------------------------------------


def _digits() -> _Digits:
    """Return the images, split the same way in every process."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, truth = load_digits(return_X_y=True)
    rest, test, rest_truth, test_truth = train_test_split(
        images, truth, test_size=0.2, stratify=truth, random_state=_SEED
    )
    train, validation, train_truth, validation_truth = train_test_split(
        rest, rest_truth, test_size=0.25, stratify=rest_truth, random_state=_SEED
    )
    return _Digits((train, train_truth), (validation, validation_truth), (test, test_truth))


def _accuracy(network: Any, part: tuple[Any, Any]) -> float:
    images, truth = part
    return int((network.predict(images) == truth).sum()) / len(truth)


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()  # the second process writes to the same place


class _Progress:
    """Epochs as lines; on a terminal, those that bring nothing show for a moment, with how far it is.

    Args:
        stream: Where to.
        total: Number of epochs.
    """

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self._live = stream.isatty()

    def show(self, epoch: int, text: str) -> None:
        """Show a line that the next one may replace; nothing where the output is no terminal."""
        if self._live:
            done = 20 * epoch // self._total
            self._stream.write(f"\r\033[K   epoch {epoch:2}  {text}  [{'#' * done}{'.' * (20 - done)}]")
            self._stream.flush()

    def keep(self, epoch: int, text: str) -> None:
        """Write a line that stays."""
        self._stream.write(f"{self._clear}   epoch {epoch:2}  {text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Remove what `show` left."""
        self._stream.write(self._clear)

    @property
    def _clear(self) -> str:
        return "\r\033[K" if self._live else ""


def _advise(registry: Path, model_id: str) -> None:
    import shlex

    program = Path(sys.executable).with_name("modelstore")
    command = shlex.quote(str(program)) if program.exists() else f"{shlex.quote(sys.executable)} -m modelstore"
    folder = shlex.quote(str(registry))
    _say("", "4. Try next", "   Tell your shell which registry is meant, then look around in it:", "")
    _say(f"     export MODELSTORE_REGISTRY={folder}")
    _say(f"     {command} ls", f"     {command} show {model_id[:8]}", f"     {command} history {model_id[:8]}")
    _say(f'     {command} explain \'["best", "-broken"]\'')
    _say("", "   Or from Python, with that variable set:", "")
    _say(
        "     from modelstore import Meta, Model",
        '     Model.query_models(tags=["best"], where=Meta("accuracy") > 0.95)[0].get_local_copy()',
    )
    _say("", "   The README goes on with your own model. This registry is one folder; to be rid of it:", "")
    _say(f"     rm -r {folder}")


if __name__ == "__main__":
    sys.exit(main())
