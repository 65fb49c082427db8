"""How the main task of a process begins: taken up again, continued, or new."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from modelstore.errors import TaskClosedError
from modelstore.ids import now_ms
from modelstore.records.entities import TaskRecord
from modelstore.registry.mounts import process_is_alive
from modelstore.sdk._context import Registry

__all__ = ["begin", "script_name"]

_REUSE_WINDOW_MS: Final = 72 * 3600 * 1000


def begin(
    registry: Registry,
    project: str | None,
    name: str,
    task_type: str,
    *,
    reuse: bool | str,
    continue_last: bool | str | int,
) -> TaskRecord:
    """Return the task of this run; finding it and starting it are one transaction. See `Task.init`.

    Raises:
        TaskNotFoundError: A task was named by its id, and there is none.
        TaskClosedError: It is published.
    """
    fields: dict[str, Any] = {
        "status": "in_progress",
        "status_reason": None,
        "status_message": None,
        "type": task_type,
        "script": _script(),
        "runtime": _runtime(),
        "started": now_ms(),
        "completed": None,
    }
    with registry.transaction():
        last = _last_task(registry, project, name)
        if continue_last is not False:
            record = _named(registry, continue_last) if isinstance(continue_last, str) else last
            if record is not None and not record.published:
                return registry.tasks.edit(record.id, **fields)
        elif isinstance(reuse, str):
            _reset(registry, record := _named(registry, reuse))
            return registry.tasks.edit(record.id, **fields)
        elif reuse and last is not None and _reusable(registry, last):
            _reset(registry, last)
            return registry.tasks.edit(last.id, **fields)
        return registry.tasks.create(name=name, project=project, **fields)


def _named(registry: Registry, task_id: str) -> TaskRecord:
    record = registry.tasks.get(task_id)
    if record.published:
        raise TaskClosedError(f"The task {record.name!r} ({record.id}) is published", "Begin a new one.")
    return record


def _last_task(registry: Registry, project: str | None, name: str) -> TaskRecord | None:
    found = registry.tasks.find(projects=None if project is None else [project], name=name, archived=False)
    # Those of `Task.create` and `clone` have not run here: whoever made them may have plans for them.
    return next((r for r in found if r.project == project and r.runtime.get("pid")), None)


def _reusable(registry: Registry, record: TaskRecord) -> bool:
    if record.published or record.archived or now_ms() - (record.updated >> 16) > _REUSE_WINDOW_MS:
        return False
    if record.status == "in_progress" and _is_running(record):
        return False
    return not registry.tasks.made(record.id) and not registry.tasks.links(record.id, "output")


def _is_running(record: TaskRecord) -> bool:
    """Tell whether the process of a task may still be alive; one on another host may."""
    if record.runtime.get("host") != os.uname().nodename:
        return True
    pid = record.runtime.get("pid")
    return isinstance(pid, int) and pid != os.getpid() and process_is_alive(pid)


def _reset(registry: Registry, record: TaskRecord) -> None:
    """Forget what a task was given in its former life."""
    for prefix in ("param:", "config:"):
        registry.tasks.edit(record.id, replace_items=prefix)
    links = registry.tasks.links(record.id, "input")
    registry.tasks.edit(
        record.id,
        items={f"link:input:{link.name}": None for link in links},
        labels=None,
        comment=None,
        last_iteration=None,
        output_uri=None,
    )
    registry.tasks.tag(record.id, replace=[])


def script_name() -> str:
    """Return the name of a task that nobody named: that of the running script."""
    path = sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ""
    return _text(os.path.basename(path).rsplit(".", 1)[0]).strip()[:200] or "Untitled task"


def _script() -> dict[str, Any]:
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        folder = ""
    return {"entry_point": _text(sys.argv[0] if sys.argv else ""), "args": [_text(one) for one in sys.argv[1:]],
            "working_dir": _text(folder)}  # fmt: skip


def _text(value: str) -> str:
    return value.encode(errors="replace").decode()  # arguments may hold bytes that are no Unicode


def _runtime() -> dict[str, Any]:
    from modelstore import __version__

    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "modelstore": __version__,
    }
