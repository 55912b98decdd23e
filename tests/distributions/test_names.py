"""What torch.distributions has by name, tclient has; what it has not is named here with the reason."""

from __future__ import annotations

import importlib
import inspect
import types
from typing import Any

import pytest
import torch
import torch.distributions

import tclient
import tclient.distributions
from tests.distributions.cases import CASES, Make
from tests.distributions.test_distributions import made

SHARED_MODULES = ["constraint_registry", "constraints", "distribution", "kl", "relaxed_bernoulli"]
SHARED_MODULES += ["relaxed_categorical", "transformed_distribution", "transforms", "utils"]


def public(owner: Any) -> set[str]:
    """The names of an object that do not begin with an underscore."""
    return {name for name in dir(owner) if not name.startswith("_")}


def classes() -> list[Any]:
    """The classes of torch.distributions, each with its module."""
    return [
        pytest.param(f"distributions{name}", each, id=f"{name}.{each}".strip("."))
        for name in ["", *(f".{each}" for each in SHARED_MODULES)]
        for each in importlib.import_module(f"torch.distributions{name}").__all__
        if isinstance(getattr(importlib.import_module(f"torch.distributions{name}"), each), type)
    ]


def test_the_names_are_torchs() -> None:
    assert sorted(tclient.distributions.__all__) == sorted(torch.distributions.__all__)
    # torch has a module for each distribution. A program's `import torch` finds the classes by these paths, too, among
    # the names of tclient.distributions; tclient itself has one path for each class.
    for name in public(torch.distributions) - public(tclient.distributions):
        own = importlib.import_module(f"torch.distributions.{name}")
        assert set(own.__all__) <= {*tclient.distributions.__all__}, name


@pytest.mark.parametrize("name", SHARED_MODULES)
def test_a_module_has_torchs_names(name: str) -> None:
    mine = importlib.import_module(f"tclient.distributions.{name}")
    theirs = importlib.import_module(f"torch.distributions.{name}")
    assert set(theirs.__all__) <= public(mine)


@pytest.mark.parametrize(("module", "name"), classes())
def test_a_class_has_torchs_attributes(module: str, name: str) -> None:
    mine = getattr(importlib.import_module(f"tclient.{module}"), name)
    theirs = getattr(importlib.import_module(f"torch.{module}"), name)
    assert public(theirs) - public(mine) == set()
    for attribute in public(theirs):
        one, other = getattr(mine, attribute), getattr(theirs, attribute)
        if isinstance(other, types.FunctionType):
            assert list(inspect.signature(one).parameters) == list(inspect.signature(other).parameters), attribute


def test_constraints_are_torchs() -> None:
    for name in torch.distributions.constraints.__all__:
        mine = getattr(tclient.distributions.constraints, name)
        theirs = getattr(torch.distributions.constraints, name)
        if isinstance(theirs, torch.distributions.constraints.Constraint):
            assert repr(mine) == repr(theirs)
            assert public(theirs) - public(mine) == set(), name


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_a_distribution_has_torchs_attributes(tc: Any, make: Make) -> None:
    mine, theirs = made(tc, make, "float32"), made(torch, make, "float32")
    assert public(theirs) - public(mine) == set()
