"""The examples in the docstrings of tclient.nn and tclient.optim are run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import Any


def test_the_examples_give_what_they_say(tc: Any) -> None:
    attempted = 0
    for package in (tc.nn, tc.optim):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            result = doctest.testmod(module, extraglobs={"tclient": tc, "nn": tc.nn})
            assert result.failed == 0, found.name
            attempted += result.attempted
    assert attempted >= 8
