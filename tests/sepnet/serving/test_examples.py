"""The examples in docstrings run, and give what stands there."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "sepnet.models.unet_1d",
        "sepnet.models.unet_2d",
        "sepnet.models.layers.resampling",
        "sepnet.separation.separator",
        "sepnet.separation.remote_model",
    ],
)
def test_examples_run(name, gain_model, server):
    # What the examples call as if it were the reader's.
    given = {"folder": gain_model({"vocals": 0.5, "other": 0.5}, sample_rate=8000), "url": server.url}
    results = doctest.testmod(importlib.import_module(name), extraglobs=given)
    assert results.attempted and not results.failed
