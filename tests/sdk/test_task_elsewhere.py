"""What ClearML's scripts say to agents, queues and its server: it does no harm here, or an error says what to do."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

import modelstore
from modelstore import OutputModel, Task
from modelstore.errors import InvalidRequestError, ModelStoreError, NotOfferedError


def test_a_script_meant_for_agents_runs_here(caplog: pytest.LogCaptureFixture) -> None:
    """And hears that it does."""
    Task.add_requirements("torch", "2.4")
    Task.add_requirements("requirements.txt")
    Task.ignore_requirements("pywin32")
    Task.force_requirements_env_freeze(True, Path("requirements.txt"))
    Task.force_store_standalone_script()
    Task.set_credentials(api_host="https://api.example.com", key="k", secret="s")
    assert Task.set_resource_monitor_iteration_timeout(10)

    task = Task.init("vision", "far away", tags="night long")
    task.set_base_docker("nvidia/cuda:12 --ipc=host")
    task.set_packages(["torch==2.4"])
    task.set_repo("git@example.com:vision.git", branch="main")
    with caplog.at_level(logging.WARNING, logger="modelstore"):
        task.execute_remotely(queue_name="gpu", clone=False, exit_process=True)

    assert "'gpu'" in caplog.text
    assert Task.running_locally()
    assert task.status == "in_progress"
    assert task.get_tags() == ["long", "night"]
    assert task.get_base_docker() == "nvidia/cuda:12 --ipc=host"
    found = Task.get_task(task.id)
    assert found is not None
    described = found.get_script()
    assert (described["repository"], described["branch"], described["packages"]) == (
        "git@example.com:vision.git", "main", ["torch==2.4"],
    )  # fmt: skip
    assert described["entry_point"]


def test_what_a_script_is_can_be_set_bit_by_bit() -> None:
    """What is not named stays."""
    task = Task.create("vision", "described", script="train.py", docker="python:3.12")

    task.set_script(entry_point="fit.py", commit="abc")
    task.set_base_docker(
        docker_image="python:3.13", docker_arguments=["-e", "A=1"], docker_setup_bash_script=["a", "b"]
    )

    assert task.get_script() == {
        "entry_point": "fit.py", "version_num": "abc", "docker": "python:3.13", "docker_args": "-e A=1",
        "docker_setup": "a\nb",
    }  # fmt: skip
    assert Task.create("vision", "bare").get_base_docker() == ""


def test_a_seed_makes_runs_alike() -> None:
    """At once, and when a task begins."""
    state = random.getstate()
    try:
        Task.set_random_seed(7)
        first = random.random()
        task = Task.init("vision", "seeded")

        assert random.random() == first
        assert task.get_random_seed() == 7
    finally:
        Task.set_random_seed(None)
        random.setstate(state)
    assert task.get_random_seed() is None


@pytest.mark.parametrize(
    ("name", "hint"), [("upload_artifact", "report_media"), ("artifacts", "update_weights"), ("enqueue", "no queues")]
)
def test_what_is_not_offered_says_so(name: str, hint: str) -> None:
    """On the class and on a task, with what to do instead; `hasattr` keeps its meaning."""
    for owner in (Task, Task.create("vision", "missing")):
        with pytest.raises(NotOfferedError, match=hint) as caught:
            getattr(owner, name)
        assert isinstance(caught.value, AttributeError)
        assert not hasattr(owner, name)


def test_what_nobody_offers_is_an_ordinary_error() -> None:
    """A slip of the pen is no difference from ClearML."""
    name = "colse"
    for owner in (Task, Task.create("vision", "typo")):
        with pytest.raises(AttributeError, match="no attribute 'colse'") as caught:
            getattr(owner, name)
        assert not isinstance(caught.value, ModelStoreError)


@pytest.mark.parametrize("task", ["vision", 7])
def test_a_model_of_something_else_than_a_task_says_so(task: object) -> None:
    """An id or a name in place of the task is the usual slip."""
    with pytest.raises(InvalidRequestError, match=r"Task\.get_task"):
        OutputModel(task=task)  # type: ignore[arg-type]


def test_the_logger_is_a_property_too() -> None:
    """As scripts write it."""
    task = Task.create("vision", "logged")

    task.logger.report_single_value("n", 1)

    assert isinstance(task.logger, modelstore.Logger)
    assert task.get_reported_single_values() == {"n": 1.0}
