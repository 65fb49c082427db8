"""`modelstore relocate`."""

from __future__ import annotations

from modelstore.registry import Registry
from tests.cli.conftest import Json, Run


def test_the_command_says_what_it_does(registry: Registry, run: Run, run_json: Json) -> None:
    """In lines for people, and as JSON."""
    model = registry.models.create(name="m", uri="s3://old/x.pt")
    assert "would be rewritten" in run("relocate", "s3://old", "s3://new", "--dry-run").stdout
    answer = run_json("relocate", "s3://old", "s3://new")

    assert answer == {
        "moves": [{"kind": "model", "id": model.id, "name": "m", "old": "s3://old/x.pt", "new": "s3://new/x.pt"}],
        "under_way": [],
        "dry_run": False,
    }
    assert run("relocate", "s3://old", "s3://new").stdout == "0 addresses rewritten\n"
    run("relocate", "s3://old", "s3://old", code=2)
