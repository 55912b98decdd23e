"""A linear layer by oneDNN's product: the numbers of torch's own, and torch's own wherever that cannot give them."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tserver.engine import linear
from tserver.engine.linear import Blocks, Linear

ROWS, INPUTS, OUTPUTS = 1024, 257, 65


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What oneDNN's product is asked for, which is the faster one here whatever the processor."""
    product, asked = linear.onednn(), []
    if product is None:
        pytest.skip(
            "this torch has no oneDNN, as on some ARM machines: https://github.com/pytorch/pytorch/issues/60332"
        )

    def noted(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        asked.append(input)
        assert product is not None
        return product(input, weight, bias)

    monkeypatch.setattr(Linear, "blocks", Blocks(noted))
    return asked


def layer() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    made = torch.nn.Linear(INPUTS, OUTPUTS)
    return made.weight.detach(), made.bias.detach()


@pytest.mark.parametrize("shape", [(ROWS,), (4, ROWS // 4), (2, 2, ROWS // 4)], ids=repr)
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
def test_the_numbers_are_those_of_torch(used: list[Tensor], shape: tuple[int, ...], with_bias: bool) -> None:
    weight, bias = layer()
    x = torch.randn(*shape, INPUTS)
    found = Linear(weight, bias if with_bias else None)(x)
    wanted = F.linear(x, weight, bias if with_bias else None)
    assert used
    assert found.layout is torch.strided
    assert found.is_contiguous()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("rows", "blocks"),
    [(1024, [1024]), (2900, [1024, 1024, 512, 256]), (1535, [1024, 256]), (256 * 5 + 3, [1024, 256])],
)
def test_rows_go_in_blocks_of_few_sizes(used: list[Tensor], rows: int, blocks: list[int]) -> None:
    weight, bias = layer()
    x = torch.randn(rows, INPUTS)
    torch.testing.assert_close(Linear(weight, bias)(x), F.linear(x, weight, bias))
    assert [len(block) for block in used] == blocks


def test_there_is_a_bound_on_what_is_kept_for_shapes(used: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = layer()
    monkeypatch.setattr(Linear, "blocks", Blocks(Linear.blocks.product, weight.nbytes))
    x = torch.randn(1024 + 512, INPUTS)
    for _ in range(2):
        torch.testing.assert_close(Linear(weight, bias)(x), F.linear(x, weight, bias))
    assert [len(block) for block in used] == [1024, 1024], "one shape has room, and stays"


def test_what_is_not_finite_stays_where_it_is(used: list[Tensor]) -> None:
    weight, bias = layer()
    x = torch.randn(ROWS, INPUTS)
    x[3, 5], x[7, 0] = torch.nan, torch.inf
    torch.testing.assert_close(Linear(weight, bias)(x), F.linear(x, weight, bias), equal_nan=True)
    assert used


def test_gradients_are_those_of_torch(used: list[Tensor]) -> None:
    weight, bias = layer()
    x = torch.randn(ROWS, INPUTS, requires_grad=True)
    (found,) = torch.autograd.grad(Linear(weight, bias)(x).sum(), x)
    (wanted,) = torch.autograd.grad(F.linear(x, weight, bias).sum(), x)
    assert not used
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    "input",
    [
        pytest.param(torch.randn(16, INPUTS), id="little work"),
        pytest.param(torch.randn(ROWS, INPUTS).to(torch.float64), id="another dtype"),
        pytest.param(torch.randn(ROWS, INPUTS + 1), id="another width"),
        pytest.param(torch.randn(INPUTS * ROWS), id="a vector"),
        pytest.param(torch.randn(INPUTS, ROWS).T, id="not contiguous"),
        pytest.param(torch.empty(0, INPUTS), id="no rows"),
    ],
)
def test_everything_else_is_left_to_torch(used: list[Tensor], input: Tensor) -> None:
    weight, bias = layer()
    try:
        wanted = F.linear(input, weight, bias)
    except RuntimeError as error:
        with pytest.raises(RuntimeError, match=re.escape(str(error))):
            Linear(weight, bias)(input)
    else:
        assert torch.equal(Linear(weight, bias)(input), wanted)
    assert not used


def test_autocast_is_respected(used: list[Tensor]) -> None:
    weight, bias = layer()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert Linear(weight, bias)(torch.randn(ROWS, INPUTS)).dtype is torch.bfloat16
    assert not used
