"""Requests made up from the server's own description: whatever comes, it is no fault of the server."""

import hypothesis
import hypothesis.strategies as st
import requests
import schemathesis

SETTINGS = hypothesis.settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


KNOWN = {"name": "unet_1d", "version": "1", "label": "stable"}
# The demo song would be synthesised, which other tests have enough of.
LEFT_OUT = ("/demo-song",)


def test_no_request_makes_the_server_fail(server):
    description = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in description.get_all_operations()]
    asked = [operation for operation in operations if operation.path not in LEFT_OUT]
    assert len(asked) >= 15
    for operation in asked:
        statuses = _ask(operation)
        assert 400 not in statuses or operation.path.startswith(("/v1", "/separate"))


def _ask(operation):
    """Asks made-up requests, and returns the statuses of what was answered."""
    statuses = set()

    @SETTINGS
    @hypothesis.given(case=operation.as_strategy(), is_known=st.booleans())
    def ask(case, is_known):
        if is_known:
            # Few made-up names are those of a model.
            case.path_parameters.update({key: KNOWN[key] for key in case.path_parameters if key in KNOWN})
        answer = case.call(timeout=600)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert list(answer.json()) == ["error"] and isinstance(answer.json()["error"], str)
        statuses.add(answer.status_code)

    ask()
    return statuses


def test_the_description_has_every_route_and_its_pages_ask_no_other_host(server):
    paths = set(server.get("/openapi.json").json()["paths"])
    assert {
        "/v1/models/{name}:predict",
        "/v1/models/{name}/versions/{version}:predict",
        "/separate",
        "/metrics",
    } <= paths
    for path in ("/docs", "/redoc"):
        assert requests.get(server.url + path, timeout=600).status_code == 404
