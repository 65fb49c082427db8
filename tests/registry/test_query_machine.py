"""Random edits, random questions: the registry answers as a list of plain dictionaries would."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelstore.errors import ProjectNotFoundError
from modelstore.index import texts
from modelstore.index.contents import check_copies
from modelstore.query import (
    AllOf,
    Compare,
    FieldTarget,
    HasTag,
    Node,
    Subject,
    TextTarget,
    Untagged,
    accepts,
    number_of,
    parse_tags,
)
from modelstore.query.tree import MetaTarget
from modelstore.records.values import metadata_text
from modelstore.registry import Registry, open_registry
from modelstore.registry.search import ModelSearch
from modelstore.testing.strategies import ODD_TAGS, page_tag_lists, searches, trees

TAGS = st.sampled_from([tag for tag in ODD_TAGS if tag.strip() and "\0" not in tag])  # the others are refused
NAMES = st.sampled_from(["yolo small", "yolo-large", "Ab", "a", "%", "\N{ROBOT FACE} 1"])
PROJECTS = st.sampled_from(["vision", "vision/ocr", "100%"])
KEYS = st.sampled_from(["accuracy", "note", "%"])
VALUES = st.sampled_from([0.5, 1, 2**70, True, float("nan"), "a", "yolo small", "1", "", [1, "a"], None])
COMMENTS = st.sampled_from([None, "a small note", "café", "ab\x1fc", "line\nbreak"])
LEAVES = st.one_of(
    TAGS.map(HasTag),
    TAGS.map(HasTag),
    searches(),
    st.just(Untagged()),
    st.builds(Compare, st.just(FieldTarget("name")), st.sampled_from(["==", "<", "contains"]), NAMES),
    st.builds(
        Compare, st.sampled_from([FieldTarget(n) for n in ("published", "archived")]), st.just("=="), st.booleans()
    ),
    st.builds(Compare, KEYS.map(MetaTarget), st.sampled_from(["==", "<", ">="]), st.sampled_from([0.5, 1, "a", "1"])),
    st.builds(Compare, KEYS.map(TextTarget), st.just("=="), st.sampled_from(["1", "True", "a", "[1, 'a']"])),
)


@dataclass
class Plain:
    """A model as anyone would write it down."""

    id: str
    name: str
    changed: int
    project: str | None = None
    comment: str | None = None
    tags: set[str] = field(default_factory=set)
    metadata: dict[str, Any] = field(default_factory=dict)
    published: bool = False
    archived: bool = False
    deleted: bool = False

    def subject(self) -> Subject:
        names = ("id", "name", "project", "comment", "published", "archived")
        return Subject(
            tags=self.tags,
            fields={name: getattr(self, name) for name in names},
            metadata=self.metadata,
            texts={key: metadata_text(value) for key, value in self.metadata.items()},
        )


class QueryMachine(RuleBasedStateMachine):
    """Every way of changing models, and every part of a question."""

    @initialize(lag=st.sampled_from([0, 3, 200]), batch=st.sampled_from([2, 20_000]))
    def begin(self, lag: int, batch: int) -> None:
        self.folder = tempfile.mkdtemp()
        self.registry: Registry = open_registry(self.folder)
        self.kept = texts.LAG, texts.BATCH
        texts.LAG, texts.BATCH = lag, batch  # type: ignore[misc]
        self.models: list[Plain] = []
        self.projects: set[str] = set()
        self.changes = 0

    def teardown(self) -> None:
        if hasattr(self, "registry"):
            texts.LAG, texts.BATCH = self.kept  # type: ignore[misc]
            check_copies(self.registry.database.connection)
            self.registry.close()
            shutil.rmtree(self.folder)

    def alive(self) -> list[Plain]:
        return [model for model in self.models if not model.deleted]

    def any_of(self, data: st.DataObject, models: list[Plain]) -> Plain:
        return data.draw(st.sampled_from(models), label="model")

    def touch(self, model: Plain) -> None:
        self.changes += 1
        model.changed = self.changes

    @rule(name=NAMES, project=st.none() | PROJECTS, tags=st.sets(TAGS, max_size=4), key=KEYS, value=VALUES)
    def create(self, name: str, project: str | None, tags: set[str], key: str, value: Any) -> None:
        made = self.registry.models.create(name=name, project=project, tags=tags, metadata={key: value})
        self.models.append(Plain(made.id, name, 0, project, None, set(tags), {key: value}))
        self.touch(self.models[-1])
        self.projects |= {project} if project else set()

    @rule(count=st.integers(1, 70), tag=TAGS, name=NAMES)
    def create_many(self, count: int, tag: str, name: str) -> None:
        ids = [f"{len(self.models) + number:032x}" for number in range(count)]
        self.registry.models.create_many(({"model_id": one, "name": name, "tags": [tag]} for one in ids), batch_size=30)
        for one in ids:
            self.models.append(Plain(one, name, 0, tags={tag}))
            self.touch(self.models[-1])

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), name=NAMES, comment=COMMENTS, project=PROJECTS)
    def edit(self, data: st.DataObject, name: str, comment: str | None, project: str) -> None:
        model = self.any_of(data, self.alive())
        wanted = {"name": name, "comment": comment, "project": project}
        self.registry.models.edit(model.id, **wanted)
        if any(getattr(model, key) != value for key, value in wanted.items()):
            model.name, model.comment, model.project = name, comment, project
            self.touch(model)
        self.projects.add(project)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), add=st.sets(TAGS, max_size=3), remove=st.sets(TAGS, max_size=3))
    def tag(self, data: st.DataObject, add: set[str], remove: set[str]) -> None:
        model = self.any_of(data, self.alive())
        self.registry.models.tag(model.id, add=add, remove=remove)
        after = (model.tags - remove) | add
        if after != model.tags:
            model.tags = after
            self.touch(model)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), key=KEYS, value=VALUES, erase=st.booleans())
    def describe(self, data: st.DataObject, key: str, value: Any, erase: bool) -> None:
        model = self.any_of(data, self.alive())
        before = self.registry.models.get(model.id).updated
        if erase:
            self.registry.models.delete_metadata(model.id, [key])
            model.metadata.pop(key, None)
        else:
            self.registry.models.set_metadata(model.id, {key: (None, value)})
            model.metadata[key] = value
        if self.registry.models.get(model.id).updated != before:
            self.touch(model)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), how=st.sampled_from(["publish", "archive", "unarchive", "delete"]))
    def live(self, data: st.DataObject, how: str) -> None:
        model = self.any_of(data, self.alive())
        models = self.registry.models
        act: dict[str, Callable[[], object]] = {
            "publish": lambda: models.publish(model.id, require_weights=False),
            "archive": lambda: models.tag(model.id, add=["archived"], system=True),
            "unarchive": lambda: models.tag(model.id, remove=["archived"], system=True),
            "delete": lambda: models.delete(model.id, force=True),
        }
        act[how]()
        before = (model.published, model.archived, model.deleted)
        model.published |= how == "publish"
        model.archived = how == "archive" or (model.archived and how != "unarchive")
        model.deleted |= how == "delete"
        if (model.published, model.archived, model.deleted) != before:
            self.touch(model)

    @precondition(lambda self: any(model.deleted for model in self.models))
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        model = self.any_of(data, [model for model in self.models if model.deleted])
        self.registry.models.restore(model.id)
        model.deleted = False
        self.touch(model)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), name=NAMES, tag=TAGS)
    def change_their_mind(self, data: st.DataObject, name: str, tag: str) -> None:
        """What a transaction that failed did is not there, for search neither, which it had taken in."""
        model = self.any_of(data, self.alive())
        try:
            with self.registry.transaction():
                self.registry.models.edit(model.id, name=f"{name} thing")
                self.registry.models.tag(model.id, add=[tag])
                ModelSearch(search="thing").run(self.registry)
                raise KeyError
        except KeyError:
            pass

    @rule()
    def rebuild(self) -> None:
        self.registry.rebuild()

    @precondition(lambda self: self.models)
    @rule(
        where=st.none() | trees(LEAVES, max_leaves=5),
        tags=st.none() | page_tag_lists(st.sampled_from(ODD_TAGS[:6])),
        project=st.none() | st.none() | PROJECTS,
        search=st.none() | st.none() | searches().map(lambda node: node.text),  # type: ignore[attr-defined]
        metadata=st.none() | st.none() | st.dictionaries(KEYS, st.sampled_from(["1", "a", "True"]), max_size=1),
        published=st.booleans(),
        archived=st.booleans(),
        limit=st.none() | st.integers(1, 40),
        order=st.sampled_from([None, None, "name", "-metadata.accuracy"]),
    )
    def ask(self, limit: int | None, order: str | None, **asked: Any) -> None:
        question = ModelSearch(
            where=asked["where"],
            tags=asked["tags"],
            project=asked["project"],
            search=asked["search"],
            metadata=asked["metadata"],
            only_published=asked["published"],
            include_archived=asked["archived"],
            limit=limit,
            order_by=order,
        )
        if asked["project"] is not None and asked["project"] not in self.projects:
            try:
                question.run(self.registry)
            except ProjectNotFoundError:
                return
            raise AssertionError(asked["project"])
        expected = [model.id for model in sorted(filter(self.wanted(asked), self.models), key=self.place(order))]

        assert [record.id for record in question.run(self.registry)] == expected[:limit], question
        assert question.count(self.registry) == len(expected), question
        paged = [record.id for page in question.pages(self.registry, 7) for record in page]
        assert paged == expected[:limit], question

    @staticmethod
    def wanted(asked: dict[str, Any]) -> Callable[[Plain], bool]:
        parts: list[Node] = [node for node in (asked["where"], parse_tags(asked["tags"])) if node is not None]
        if asked["project"] is not None:
            parts.append(Compare(FieldTarget("project"), "==", asked["project"]))
        if asked["search"] is not None:
            parts.append(parse_search(asked["search"]))
        parts += [Compare(TextTarget(key), "==", value) for key, value in (asked["metadata"] or {}).items()]
        node = AllOf(tuple(parts))

        def decide(model: Plain) -> bool:
            shown = not model.deleted and (asked["archived"] or not model.archived)
            return shown and (model.published or not asked["published"]) and accepts(node, model.subject())

        return decide

    @staticmethod
    def place(order: str | None) -> Callable[[Plain], Any]:
        def accuracy(model: Plain) -> Any:
            value = model.metadata.get("accuracy")
            number = number_of(value)
            if number is not None:
                return (0, -number, [], model.id)
            text = [-ord(letter) for letter in value] + [1] if isinstance(value, str) else []
            return (1 if isinstance(value, str) else 2, 0, text, model.id)

        if order is None:
            return lambda model: -model.changed
        return accuracy if order.startswith("-") else lambda model: (model.name, model.id)

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "registry"):
            found = self.registry.database.one("SELECT count(*) FROM models WHERE state < 2")
            assert found is not None
            assert found[0] == len(self.alive())


def parse_search(text: str) -> Node:
    from modelstore.query import Search

    return Search(text)


TestQueries = QueryMachine.TestCase
TestQueries.settings = settings(
    max_examples=max(12, settings().max_examples // 4),
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
