"""The examples in docstrings run and show what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "communicators.host",
    "functions.cross_batch_normalization",
    "links.conversion",
    "links.convolution_2d",
    "links.cross_batch_normalization",
    "links.linear",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(f"chainer_crossbn.{name}"))
    assert results.attempted > 0
    assert results.failed == 0
