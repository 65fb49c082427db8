"""Keep several files as one model, and get them back as a folder.

Run it with `python examples/packages.py`.
"""

import json
import sqlite3
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from modelstore import Model, OutputModel, Task

TEXT = """
How much wood would a woodchuck chuck if a woodchuck could chuck wood?
A woodchuck would chuck as much wood as a woodchuck could chuck if a woodchuck could chuck wood.
"""


def train(folder: Path) -> None:
    """Count which word follows which, and write the model as three files."""
    words = TEXT.lower().replace("?", " .").replace(".", " .").split()
    vocabulary = sorted(set(words))
    pairs = Counter(pairwise(words))
    (folder / "vocabulary.txt").write_text("\n".join(vocabulary))
    (folder / "settings.json").write_text(json.dumps({"order": 2, "words": len(words)}))
    (folder / "tables").mkdir()
    with sqlite3.connect(folder / "tables" / "pairs.db") as database:
        database.execute("CREATE TABLE pairs (first TEXT, second TEXT, count INTEGER)")
        database.executemany("INSERT INTO pairs VALUES (?,?,?)", [(*pair, count) for pair, count in pairs.items()])
    database.close()


def main() -> None:
    task = Task.init(project_name="examples/text", task_name="word pairs")
    model = OutputModel(task=task, name="word pairs")
    with TemporaryDirectory() as scratch:
        train(Path(scratch))
        model.update_weights_package(weights_path=scratch)
        print(f"stored {model.size:,} bytes as {model.digest}")

        # The same files again are the same bytes: nothing is stored twice.
        before = model.digest
        model.update_weights_package(weights_path=scratch)
        print(f"stored again, the same bytes: {model.digest == before}")
    task.close()

    found = Model.query_models(project_name="examples/text", model_name="word pairs", max_results=1)[0]
    folder = Path(found.get_weights_package(return_path=True, raise_on_error=True))
    print("files:", ", ".join(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())))
    # The copy is shared and read-only; SQLite must be told so.
    database = sqlite3.connect(f"{(folder / 'tables' / 'pairs.db').as_uri()}?mode=ro&immutable=1", uri=True)
    for second, count in database.execute(
        "SELECT second, count FROM pairs WHERE first = 'woodchuck' ORDER BY count DESC, second"
    ):
        print(f"after 'woodchuck': {second} ({count})")
    database.close()


if __name__ == "__main__":
    main()
