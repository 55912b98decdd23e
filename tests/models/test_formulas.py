"""Formulas of sizes: what was seen at a few sizes is foretold at all others."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tclient.models._formulas import fit

Numbers = dict[str, int]

FORMULAS: dict[str, tuple[Callable[[Numbers], int], list[str]]] = {
    "a size": (lambda at: at["n"], ["n"]),
    "one more": (lambda at: at["n"] + 1, ["n"]),
    "what is left of 512": (lambda at: 512 - at["n"], ["n"]),
    "three times": (lambda at: 3 * at["n"] - 2, ["n"]),
    "a product": (lambda at: 4 * at["n"] * at["m"], ["n", "m"]),
    "a product of three": (lambda at: at["n"] * at["m"] * at["k"], ["n", "m", "k"]),
    "a square": (lambda at: at["n"] ** 2 - 1, ["n"]),
    "a triangle": (lambda at: at["n"] * at["n"] // 2, ["n"]),
    "half": (lambda at: at["n"] // 2, ["n"]),
    "half, rounded up": (lambda at: -(-at["n"] // 2), ["n"]),
    "a convolution": (lambda at: (at["n"] + 2 * 3 - 7) // 2 + 1, ["n"]),
    "a stride of eight": (lambda at: (at["n"] - 3) // 8 + 1, ["n"]),
    "two thirds": (lambda at: 2 * at["m"] // 3, ["m"]),
}


def around(base: Numbers, more: Numbers) -> list[Numbers]:
    """Sizes as they are recorded: a base, each changed alone, and in a row."""
    alone = [{**base, name: base[name] + step} for name, step in itertools.product(base, range(1, 20))]
    return [base, *alone, more]


@pytest.mark.parametrize("case", FORMULAS)
def test_a_formula_holds_at_sizes_that_were_not_seen(case: str) -> None:
    number, involved = FORMULAS[case]
    seen = around({"n": 5, "m": 7, "k": 11}, {"n": 37, "m": 43, "k": 47})
    found = fit([(at, number(at)) for at in seen])
    assert found is not None
    assert set(found.dimensions) == set(involved)
    for sizes in itertools.product(range(3, 90, 4), repeat=3):
        at = dict(zip(("n", "m", "k"), sizes, strict=True))
        assert found.at(at) == number(at), at


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(lambda at: 7 * (at["n"] % 3), id="a rest"),
        pytest.param(lambda at: at["n"] ** 3 + at["m"] ** 2, id="a sum of powers"),
        pytest.param(lambda at: [5, 1000, 3, 80, 2, 9, 4, 77, 1][at["n"] % 9], id="a table"),
    ],
)
def test_what_is_no_such_formula_has_none(number: Callable[[Numbers], int]) -> None:
    seen = around({"n": 5, "m": 7}, {"n": 17, "m": 23})
    assert fit([(at, number(at)) for at in seen]) is None


def test_the_simplest_of_several_formulas_is_taken() -> None:
    assert fit([({"n": 8}, 1), ({"n": 16}, 2), ({"n": 32}, 4)]) == (("n",), 1, 0, 8)
    assert fit([({"n": size}, (size + 3) // 8) for size in range(8, 40)]) == (("n",), 1, 3, 8)
    assert fit([({"n": size}, -(-size // 3)) for size in range(8, 14)]) == (("n",), 1, 2, 3)
    # The dimension that changed, though another one is as large.
    assert fit([({"n": 4, "m": 4}, 8), ({"n": 5, "m": 4}, 10), ({"n": 4, "m": 5}, 8)]) == (("n",), 2, 0, 1)
