"""The namespace of the array API standard gives what a strict one gives: values, dtypes, shapes, errors, signatures."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from math import inf, nan, pi
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

import tclient
from tclient import array_api
from tests.array_api.cases import CASES, generated
from tests.support.serving import ServerProcess

# Where the standard leaves the class of an error open.
REFUSALS = (ValueError, IndexError, TypeError)
ALL = {**dict(generated()), **CASES}


def _plain(value: Any) -> Any:
    """What a program gave, without the classes of its namespace."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "__array_namespace__"):
        return np.asarray(value)
    return value


def _assert_same(ours: Any, theirs: Any, *, signs: bool) -> None:
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            _assert_same(one, other, signs=signs)
    elif isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        loose = 2e-5 if theirs.dtype in (np.float32, np.complex64) else 1e-10
        np.testing.assert_allclose(ours, theirs, rtol=loose, atol=loose, equal_nan=True)
        if theirs.dtype.kind == "f" and signs:
            both = (ours == 0) & (theirs == 0)
            np.testing.assert_array_equal(np.signbit(ours[both]), np.signbit(theirs[both]))
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, nan_ok=True)
    else:
        assert ours == theirs


def _run(namespace: Any, name: str) -> Any:
    try:
        with np.errstate(all="ignore"):
            return _plain(ALL[name](namespace, lambda array: namespace.asarray(np.asarray(array))))
    except Exception as error:
        return error


@pytest.fixture(scope="module", autouse=True)
def session(server: ServerProcess) -> Iterator[None]:
    """One session for all: programs leave nothing behind."""
    with tclient.connect(server.address):
        yield


@pytest.mark.parametrize("name", ALL)
def test_a_program_gives_the_same(name: str) -> None:
    ours, theirs = _run(array_api, name), _run(strict, name)
    if isinstance(theirs, Exception):
        assert isinstance(ours, (type(theirs), *REFUSALS)), ours
    else:
        assert not isinstance(ours, Exception), ours
        _assert_same(ours, theirs, signs=not name.startswith(("maximum", "minimum")))


def _arguments(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


# A strict namespace has some defaults of its own, which stand for none, and takes several axes later.
OTHERWISE = {"astype", "from_dlpack", "expand_dims"}
MODULES = [(array_api, strict), (array_api.linalg, strict.linalg), (array_api.fft, strict.fft)]
NAMES = [
    pytest.param(ours, theirs, name, id=f"{ours.__name__.removeprefix('tclient.')}.{name}")
    for ours, theirs in MODULES
    for name in (getattr(theirs, "__all__", None) or dir(theirs))
    if inspect.isfunction(getattr(theirs, name)) and "array_api_strict_flags" not in name
]


@pytest.mark.parametrize(("ours", "theirs", "name"), NAMES)
def test_every_function_takes_what_the_standard_says(ours: Any, theirs: Any, name: str) -> None:
    mine, its = _arguments(getattr(ours, name)), _arguments(getattr(theirs, name))
    if name in OTHERWISE:
        mine, its = ([each[:2] for each in both] for both in (mine, its))  # type: ignore[assignment]
    assert mine == its
    assert getattr(ours, name).__name__ == name


SPECIAL = {
    # What the standard says and numpy has not: https://data-apis.org/array-api/latest/API_specification/generated/array_api.floor_divide.html
    "floor_divide finite by infinite": (
        lambda xp: xp.floor_divide(xp.asarray([-1.0, 1.0, 1.0]), xp.asarray([inf, -inf, inf])),
        [-0.0, -0.0, 0.0],
    ),
    "floor_divide infinite": (
        lambda xp: xp.floor_divide(xp.asarray([inf, -inf, inf, inf]), xp.asarray([2.0, 2.0, -2.0, inf])),
        [inf, -inf, -inf, nan],
    ),
    "floor_divide": (
        lambda xp: xp.floor_divide(xp.asarray([7.0, -7.0, 0.0, 1.0]), xp.asarray([2.0, 2.0, -3.0, 0.0])),
        [3.0, -4.0, -0.0, inf],
    ),
    "floor_divide integers": (lambda xp: xp.floor_divide(xp.asarray([7, -7]), 2), [3, -4]),
    "remainder of zero": (
        lambda xp: xp.remainder(xp.asarray([0.0, -0.0, -4.0]), xp.asarray([-2.0, 3.0, 2.0])),
        [-0.0, 0.0, 0.0],
    ),
    "sign of NaN": (lambda xp: xp.sign(xp.asarray([nan, -0.0, -3.0])), [nan, 0.0, -1.0]),
    "sign of complex": (lambda xp: xp.sign(xp.asarray([0j, 3 + 4j])), [0j, 0.6 + 0.8j]),
    "expm1 of complex": (
        lambda xp: xp.expm1(xp.asarray([0j, complex(inf, 0), complex(-inf, nan), 1e-9 + 0j], dtype=xp.complex128)),
        [0j, complex(inf, 0), complex(-1, 0), 1e-9 + 0j],
    ),
    "log1p of complex": (lambda xp: xp.log1p(xp.asarray([complex(2, inf)])), [complex(inf, pi / 2)]),
    "clip by NaN": (lambda xp: xp.clip(xp.asarray([1.0, 2.0]), nan), [nan, nan]),
    "clip beyond the dtype": (lambda xp: xp.clip(xp.asarray([1, 2], dtype=xp.int8), -1000, 1000), [1, 2]),
    "a number out of range": (lambda xp: xp.maximum(xp.asarray([1], dtype=xp.int8), 1000), OverflowError),
    "isin, inverted": (lambda xp: xp.isin(xp.asarray([1, 2, 3]), 2, invert=True), [True, False, True]),
    "no array at all": (lambda xp: xp.maximum(1, 2), TypeError),
    "shapes that do not go together": (lambda xp: xp.broadcast_shapes((2, 3), (2,)), ValueError),
    "shapes together": (lambda xp: xp.broadcast_shapes((2, 1), (), (3,)), (2, 3)),
    "several new axes": (lambda xp: xp.expand_dims(xp.ones(2), (0, -1)).shape, (1, 2, 1)),
    "sequence of arrays": (lambda xp: xp.asarray([xp.asarray(1, dtype=xp.int8), 2]).dtype, array_api.int8),
    "eigenvalues": (lambda xp: xp.linalg.eig(xp.asarray([[0.0, 1.0], [-1.0, 0.0]])).eigenvalues, [1j, -1j]),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values_are_the_standard_s(name: str) -> None:
    program, expected = SPECIAL[name]
    if isinstance(expected, type):
        with pytest.raises(expected):
            program(array_api)
        return
    found = program(array_api)
    if not isinstance(expected, list):
        assert found == expected
        return
    ours = np.asarray(found)
    np.testing.assert_allclose(ours, np.array(expected, ours.dtype), rtol=1e-6)
    if ours.dtype.kind == "f":
        zeros = ours == 0
        np.testing.assert_array_equal(np.signbit(ours[zeros]), np.signbit(np.array(expected))[zeros])


def test_a_tensor_names_its_namespace() -> None:
    x = tclient.ones(2)
    assert x.__array_namespace__() is array_api
    assert x.__array_namespace__(api_version="2024.12") is array_api
    with pytest.raises(ValueError, match=r"the array API 1\.0 is not here"):
        x.__array_namespace__(api_version="1.0")
    assert x.to_device(x.device).device == x.device
    with pytest.raises(ValueError, match="stream"):
        x.to_device("cpu", stream=1)


def test_the_namespace_says_what_it_can_do() -> None:
    info, theirs = array_api.__array_namespace_info__(), strict.__array_namespace_info__()
    assert info.capabilities().keys() == theirs.capabilities().keys()
    assert info.default_dtypes().keys() == theirs.default_dtypes().keys()
    assert info.dtypes(kind="real floating") == {"float32": tclient.float32, "float64": tclient.float64}
    assert info.dtypes(kind=("bool", "unsigned integer")) == {"bool": tclient.bool, "uint8": tclient.uint8}
    assert info.default_device() in info.devices()
    with pytest.raises(ValueError, match="no kind"):
        info.dtypes(kind="number")
