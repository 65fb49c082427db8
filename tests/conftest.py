"""What every test starts from: an empty registry and cache of its own, and Hypothesis profiles."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from modelstore.index import driver
from modelstore.registry import kinds
from tests.kinds import SHARED

# quick: every run on a developer's machine. few: on the other Pythons of `make test`, for what only they break. ci:
# before a release. night: `make test-long`.
# No deadline: two cores shared by several workers make one example's time meaningless.
settings.register_profile("quick", max_examples=50, deadline=None)
settings.register_profile("few", max_examples=15, stateful_step_count=30, deadline=None)
settings.register_profile("ci", max_examples=300, deadline=None, print_blob=True)
settings.register_profile(
    "night",
    max_examples=5000,
    stateful_step_count=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# A forked child that hangs holds the pipes of the whole run open; the timeout of the test does not reach it.
_CHILD_LIFE_S = 290


def _die_in_time() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_CHILD_LIFE_S)


os.register_at_fork(after_in_child=_die_in_time)


@pytest.fixture(autouse=True, scope="module")
def nothing_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the module that forgets a database, and not whichever test runs when the garbage is collected."""
    before = set(driver.open_connections())
    yield
    left = [connection for connection in driver.open_connections() if connection not in before]
    for connection in left:
        connection.close()
    assert not left, f"{request.node.nodeid} left {len(left)} databases open"


# MODELSTORE_TEST_KIND=shared (`make test-shared`): registries that tests make without saying of which kind are shared
# ones, in a folder. What is about one machine's database says so with `tests.kinds.one_machine`.
@pytest.fixture(autouse=SHARED)
def shared_registries(own_surroundings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make new registries shared, with the indexes of this host beside them."""
    monkeypatch.setenv("MODELSTORE_INDEX", str(tmp_path / "modelstore-indexes"))

    def form(folder: Path, *, create: bool, shared: bool | None = None, anew: bool = False) -> kinds.Form:
        new = create and not (folder / kinds.FORMAT_FILE).exists() and not (folder / "registry.db").exists()
        return kinds.open_form(folder, create=create, shared=True if new and shared is None else shared, anew=anew)

    monkeypatch.setattr("modelstore.registry.opening.open_form", form)


# Settings of whoever runs the tests that would change what the tests see.
_FOREIGN = ("MODELSTORE_", "CLEARML_", "AWS_", "GOOGLE_", "GCLOUD_", "AZURE_", "STORAGE_EMULATOR_", "FSSPEC_")


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test a registry and a cache of its own, so that none sees or harms what the user has.

    HOME stays as it is: what is written there in spite of these variables is a bug to be seen.
    """
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    home = tmp_path / "modelstore-home"
    monkeypatch.setenv("MODELSTORE_HOME", str(home))
    monkeypatch.setenv("MODELSTORE_REGISTRY", str(home / "registry"))
    monkeypatch.setenv("MODELSTORE_CACHE", str(home / "cache"))
    # Without this, looking for credentials asks an address that does not answer outside of a cloud machine.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
