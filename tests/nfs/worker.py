"""What one process on one host of a team does: everything at random, and it writes down what was acknowledged.

    worker.py work REGISTRY ACKS NAME SECONDS    prints what it did
    worker.py check REGISTRY ACKS NAME           prints what this host sees at the end, and what is missing

`ACKS` is a folder that all hosts see at once and that is not the network filesystem under test.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from modelstore.errors import ModelStoreError, StorageError
from modelstore.index.contents import read_index
from modelstore.registry import Registry


class Worker:
    """One process."""

    def __init__(self, registry: Registry, acks: Path, name: str) -> None:
        self.registry, self.name, self.folder = registry, name, acks
        self.random = random.Random(name)
        self.acks = (acks / f"{name}.jsonl").open("a")
        self.done: dict[str, int] = {}
        self.stale = 0
        self.errors: list[str] = []
        self.mine: list[str] = []

    def say(self, **fact: Any) -> None:
        """Write down what was acknowledged, for the others to look for."""
        self.acks.write(json.dumps(fact) + "\n")
        self.acks.flush()

    def run(self, seconds: float) -> None:
        """Act until the time is over."""
        end = time.monotonic() + seconds
        self.create()
        actions = [self.create] * 4 + [self.tag] * 4 + [self.note, self.publish, self.delete, self.fetch, self.look]
        while time.monotonic() < end:
            action = self.random.choice(actions)
            try:
                action()
                self.done[action.__name__] = self.done.get(action.__name__, 0) + 1
            except StorageError as error:
                self.errors.append(f"{action.__name__}: {error}")
            except ModelStoreError:
                pass  # published, deleted or gone meanwhile

    def create(self) -> None:
        """Register a model with a file of its own."""
        content = f"{self.name} {time.time_ns()}".encode() * 20
        file = Path(tempfile.gettempdir(), f"{self.name}.bin")
        file.write_bytes(content)
        objects = self.registry.weights.objects
        uri = objects.put(*objects.snapshot(file), "weights.bin")
        model = self.registry.models.create(name=self.name, uri=uri, tags=["new"]).id
        self.mine.append(model)
        self.say(model=model, digest=hashlib.sha256(content).hexdigest())

    def any(self) -> str:
        """Return a model of anybody."""
        rows = self.registry.database.all("SELECT id FROM models ORDER BY random() LIMIT 1")
        return str(rows[0][0])

    def tag(self) -> None:
        """Add a tag that nobody else adds."""
        model, tag = self.any(), f"{self.name}-{time.time_ns()}"
        self.registry.models.tag(model, add=[tag])
        self.say(model=model, tag=tag)

    def note(self) -> None:
        """Set metadata."""
        self.registry.models.set_metadata(self.any(), {self.name: (None, time.time())})

    def publish(self) -> None:
        """Publish one."""
        model = self.any()
        self.registry.models.publish(model)
        self.say(model=model, published=True)

    def delete(self) -> None:
        """Remove one of its own, now and then."""
        if self.mine and self.random.random() < 0.3:
            self.registry.models.delete(self.mine.pop(), force=True)

    def fetch(self) -> None:
        """Take a local copy of anybody's weights; the registry verifies them."""
        record = self.registry.models.get(self.any())
        if record.uri is not None:
            self.registry.weights.local_copy(record).read_bytes()

    def look(self) -> None:
        """See whether everything that was acknowledged before is seen here now."""
        expected = facts(self.folder)
        self.registry.refresh()
        self.stale += len(missing(self.registry, expected))


def facts(folder: Path) -> list[dict[str, Any]]:
    """Read what everybody has written down."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # being written
    return found


def missing(registry: Registry, expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was acknowledged and is not in the journal here."""
    models: set[str] = set()
    published: set[str] = set()
    tags: set[tuple[str, str]] = set()
    for entity, action, changes in registry.database.all("SELECT entity, action, changes FROM ops"):
        if action == "create":
            models.add(entity)
        if action == "publish":
            published.add(entity)
        tags.update((entity, key[4:]) for key in json.loads(changes) if key.startswith("tag:"))
    return [
        fact
        for fact in expected
        if fact["model"] not in models
        or ("tag" in fact and (fact["model"], fact["tag"]) not in tags)
        or ("published" in fact and fact["model"] not in published)
    ]


def check(registry: Registry, folder: Path) -> dict[str, Any]:
    """Look at everything once more, with the bytes."""
    registry.refresh()
    stamps = [row[0] for row in registry.database.all("SELECT stamp FROM ops")]
    state = json.dumps(read_index(registry.database.connection), sort_keys=True, default=str)
    findings = [f"{f.what}" for f in registry.check(deep=True) if f.severity == "error"]
    return {
        "operations": len(stamps),
        "doubled": len(stamps) - len(set(stamps)),
        "missing": missing(registry, facts(folder)),
        "state": hashlib.sha256(state.encode()).hexdigest(),
        "errors": findings,
        "damaged": sorted(registry.home.damaged) if registry.home is not None else [],  # type: ignore[attr-defined]
    }


def main() -> None:
    """Do what the command line says."""
    what, uri, acks, name, *rest = sys.argv[1:]
    os.environ.setdefault("MODELSTORE_INDEX", os.path.join(tempfile.gettempdir(), "index"))
    os.environ.setdefault("MODELSTORE_CACHE", os.path.join(tempfile.gettempdir(), "cache"))
    with Registry(uri, actor=f"{name}@{os.uname().nodename}") as registry:
        if what == "check":
            print(json.dumps(check(registry, Path(acks))))
            return
        worker = Worker(registry, Path(acks), name)
        worker.run(float(rest[0]))
        print(json.dumps({"name": name, "done": worker.done, "stale": worker.stale, "errors": worker.errors[:5]}))


if __name__ == "__main__":
    main()
