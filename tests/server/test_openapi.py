"""The description of the interface: complete, valid, and true of the server."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from modelstore.registry import Registry
from modelstore.server import Tokens
from modelstore.server.answers import STATUSES
from modelstore.server.endpoints import ENDPOINTS
from modelstore.server.openapi import description
from tests.server.conftest import Client

# Of these the first two are tested here otherwise; a question may be understood and find nothing; HEAD is served.
_UNSUITED = ("ignored_auth", "not_a_server_error", "positive_data_acceptance", "unsupported_method")


def test_the_description_has_every_endpoint_and_nothing_else(client: Client) -> None:
    """With what goes in and out, who may, and what can go wrong."""
    found = client("GET", "/v1/openapi.json").json

    assert {(m.upper(), path) for path, methods in found["paths"].items() for m in methods} == {
        (one.method, one.path) for one in ENDPOINTS
    }
    for endpoint in ENDPOINTS:
        operation = found["paths"][endpoint.path][endpoint.method.lower()]
        assert bool(operation["security"]) == (endpoint.role is not None)
        assert {int(status) for status in operation["responses"]} >= {*endpoint.answers, *endpoint.errors, 500}
        assert ("requestBody" in operation) == (endpoint.body is not None)
        assert set(re.findall(r"{(\w+)}", endpoint.path)) <= {one["name"] for one in operation.get("parameters", ())}


def test_every_reference_in_the_description_leads_somewhere() -> None:
    """Programs are generated from it."""
    text = str(description())
    schemas = description()["components"]["schemas"]

    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= schemas.keys()
    assert {"ErrorBody", "ErrorDetails", "Model", "UploadState"} <= schemas.keys()


def test_every_error_has_a_status() -> None:
    """Of its own, or of its nearest ancestor."""
    from modelstore import errors

    for name in errors.__all__:
        assert any(kind in STATUSES for kind in getattr(errors, name).__mro__)


@pytest.mark.long
def test_no_request_that_the_description_allows_breaks_the_server(team: Registry, url: str) -> None:
    """Nor one that it forbids: generated ones, against the real server."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, Phase, given, settings

    schemathesis.serializer("application/x-ndjson")(lambda _, value: str(value).encode("utf-8", "surrogatepass"))
    for number in range(3):
        team.models.create(name=f"m{number}", tags=["a"])
    headers = {"Authorization": f"Bearer {Tokens(team).create('a', 'admin')}"}
    schemathesis.checks.load_all_checks()
    unsuited = [schemathesis.checks.CHECKS.get_one(name) for name in _UNSUITED]
    schema = schemathesis.openapi.from_url(f"{url}/v1/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=60, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        def ask(case: object) -> None:
            response = case.call(headers=headers)  # type: ignore[attr-defined]
            assert response.status_code < 500 or response.status_code in (503, 507), response.text
            case.validate_response(response, excluded_checks=unsuited)  # type: ignore[attr-defined]

        ask()
