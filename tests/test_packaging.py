"""The package's description of itself agrees with the package."""

from __future__ import annotations

import builtins
import tomllib
from pathlib import Path
from typing import Any

import pytest

import modelstore

_ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (_ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def test_the_version_of_the_package_is_the_version_of_the_distribution(project: dict[str, Any]) -> None:
    """Two places to write it are one too many to remember."""
    assert modelstore.__version__ == project["version"]


def test_the_changelog_speaks_of_this_version_or_of_what_is_not_released_yet(project: dict[str, Any]) -> None:
    """A release without its entry leaves users to guess what changed."""
    text = (_ROOT / "CHANGELOG.md").read_text()

    assert "## [Unreleased]" in text or f"## [{project['version']}]" in text


def test_all_brings_every_kind_of_storage(project: dict[str, Any]) -> None:
    """The README promises that after its one command every storage URI works."""
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(everything.partition("[")[2].rstrip("]").split(","))

    assert {"s3", "gs", "azure", "ssh", "webdav", "http"} <= named <= set(extras)


@pytest.mark.parametrize("extra", ["s3", "gs", "azure", "ssh", "webdav", "http"])
def test_every_storage_backend_has_a_lower_bound(project: dict[str, Any], extra: str) -> None:
    """Without one a resolver silently takes a release that is years old rather than report a conflict."""
    for requirement in project["optional-dependencies"][extra]:
        assert ">=" in requirement


def test_importing_everything_leaves_pythons_own_names_alone() -> None:
    """`open(path, "w")` in a notebook that began with a star must not make a registry."""
    names: dict[str, object] = {}
    exec("from modelstore import *", names)  # noqa: S102 - running it is the test

    assert not names.keys() & set(dir(builtins)) - {"__doc__", "__builtins__"}
    assert {"Task", "Model", "InputModel", "OutputModel"} <= names.keys()
    assert callable(modelstore.open)
