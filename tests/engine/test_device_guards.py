"""What a CUDA kernel only asserts is refused before it, in the words in which torch refuses it on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from importlib import resources
from typing import Any

import pytest
import torch
from torch import Tensor

from tserver.engine.device_guards import GUARDS, guarded_on_device

from .apart import Device

pytestmark = pytest.mark.usefixtures("device")

X = torch.arange(12.0).reshape(3, 4)
LINE = torch.arange(4.0)
ROWS = torch.tensor([0, 3])
FAR = torch.tensor([[0, 9], [1, 2]])
POOLED = torch.arange(4.0).reshape(1, 1, 2, 2)
SPOTS = torch.tensor([[[[0, 3], [8, 99]]]])
LOG = torch.zeros(2, 3)
NAN = float("nan")


def resolved(name: str) -> Callable[..., Any]:
    """torch's function of that name."""
    found: Any = reduce(getattr, name.split("."), torch)
    function: Callable[..., Any] = found
    return function


class Spy:
    """A function that notes which tensors it is called on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[int] = []
        self.__name__ = name
        self.__doc__ = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(pointer(args, kwargs))
        return resolved(self.name)(*args, **kwargs)


def pointer(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Where the first tensor is."""
    return next(value.data_ptr() for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def case(name: str, *args: Any, id: str = "", **kwargs: Any) -> Any:
    """A call, named after its operation."""
    return pytest.param(name, args, kwargs, id=f"{name} {id}".strip())


REFUSED = [
    case("Tensor.__getitem__", X, torch.tensor([0, 3])),
    case("Tensor.__getitem__", X, torch.tensor([-4]), id="negative"),
    case("Tensor.__getitem__", X, [0, 7], id="a list"),
    case("Tensor.__getitem__", X, (slice(None), torch.tensor([[4]])), id="in the second place"),
    case("Tensor.__getitem__", X, (..., torch.tensor([4])), id="behind an ellipsis"),
    case("Tensor.__getitem__", X, (None, torch.tensor([0]), torch.tensor([9])), id="behind a new one"),
    case("Tensor.__getitem__", X, (torch.tensor([True, False, True]), torch.tensor([9, 0])), id="behind a mask"),
    case("Tensor.__setitem__", X, (torch.tensor([0]), torch.tensor([5])), 1.0),
    case("Tensor.index_put_", X, (torch.tensor([3]),), torch.tensor(1.0)),
    case("index_put", X, (None, torch.tensor([4])), torch.tensor(1.0)),
    case("index_select", X, 0, ROWS),
    case("index_select", LINE, 0, torch.tensor([-1]), id="negative"),
    case("Tensor.index_select", X, dim=1, index=torch.tensor([4])),
    case("gather", X, 1, FAR),
    case("Tensor.gather", X, -1, FAR, id="from the end"),
    case("scatter", X, 1, FAR, torch.ones(2, 2)),
    case("Tensor.scatter_", X, 0, torch.tensor([[3]]), 1.0),
    case("Tensor.scatter_add_", X, 1, FAR, torch.ones(2, 2)),
    case("scatter_reduce", X, 1, FAR, torch.ones(2, 2), "sum"),
    case("index_add", X, 0, ROWS, torch.ones(2, 4)),
    case("Tensor.index_copy_", X, 0, ROWS, torch.ones(2, 4)),
    case("Tensor.index_fill_", X, 0, torch.tensor([-4]), 1.0),
    case("index_reduce", X, 0, ROWS, torch.ones(2, 4), "prod"),
    case("take", X, torch.tensor([12])),
    case("Tensor.take", X, torch.tensor([-13]), id="negative"),
    case("Tensor.put_", X, torch.tensor([12]), torch.tensor([1.0])),
    case("take_along_dim", X, FAR, 1),
    case("embedding", X, torch.tensor([3])),
    case("nn.functional.embedding", torch.tensor([[0, -1]]), X),
    case("nn.functional.embedding", weight=X, input=torch.tensor([3]), id="by name"),
    case("nn.functional.embedding_bag", torch.tensor([[0, 3]]), X),
    case("nn.functional.embedding_bag", torch.tensor([0, 1]), X, torch.tensor([1]), id="offsets that begin late"),
    case("nn.functional.nll_loss", LOG, torch.tensor([0, 3])),
    case("nn.functional.nll_loss", LOG[0], torch.tensor(-1), id="of one"),
    case("nn.functional.cross_entropy", LOG, torch.tensor([0, -1])),
    case("nn.functional.cross_entropy", LOG, torch.tensor([0, 7]), ignore_index=8),
    case("nn.functional.multi_margin_loss", LOG, torch.tensor([0, 3])),
    case("nn.functional.multilabel_margin_loss", LOG, torch.tensor([[0, 3, -1], [0, 1, 2]])),
    case("nn.functional.one_hot", torch.tensor([0, 3]), 3),
    case("nn.functional.one_hot", torch.tensor([0, -1]), id="negative"),
    case("nn.functional.max_unpool2d", POOLED, SPOTS, 2),
    case("nn.functional.max_unpool1d", POOLED[0], SPOTS[0], (2,)),
    case("repeat_interleave", LINE, torch.tensor([1, 1, 1, -1])),
    case("repeat_interleave", torch.tensor([2, -1]), id="of repeats alone"),
    case("repeat_interleave", LINE, torch.tensor([1, 1, 1, 1]), output_size=9, id="of another size"),
    case("multinomial", torch.tensor([0.5, -0.5]), 3, True),
    case("multinomial", torch.tensor([0.5, NAN]), 3, True, id="no number"),
    case("multinomial", torch.zeros(2), 3, True, id="of nothing"),
    case("bernoulli", torch.tensor([0.5, 1.5])),
    case("Tensor.bernoulli", torch.tensor([NAN]), id="no number"),
    case("Tensor.bernoulli_", X, torch.tensor(2.0)),
    case("nn.functional.binary_cross_entropy", torch.tensor([1.5]), torch.tensor([1.0])),
    case("nn.functional.binary_cross_entropy", torch.tensor([NAN]), torch.tensor([1.0]), id="no number"),
    case("poisson", torch.tensor([-1.0])),
    case("Tensor.masked_scatter_", X, X > 3, torch.ones(2)),
    case("masked_scatter", X, torch.tensor([True, False, True, True]), torch.ones(2)),
    case("quantile", LINE, torch.tensor([0.5, 1.5])),
    case("Tensor.nanquantile", LINE, torch.tensor(-0.5)),
    case("lu_unpack", torch.eye(2), torch.tensor([1, 3], dtype=torch.int32)),
]


def copied(value: Any) -> Any:
    """Tensors of its own."""
    return value.clone() if isinstance(value, Tensor) else value


@pytest.mark.parametrize(("name", "args", "kwargs"), REFUSED)
def test_it_is_refused_before_the_kernel_as_on_the_cpu(name: str, args: Any, kwargs: Any) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever torch raises
        resolved(name)(*map(copied, args), **kwargs)
    spy = Spy(name)
    with pytest.raises(type(expected.value)) as refused:
        guarded_on_device(name, spy)(*args, **kwargs)
    assert str(refused.value) == str(expected.value)
    # What it was called on was a copy on the host.
    assert len(spy.seen) == 1
    assert spy.seen[0] != pointer(args, kwargs)


TAKEN = [
    case("Tensor.__getitem__", X, torch.tensor([0, -3])),
    case("Tensor.__getitem__", X, (slice(1, 2), None, [0, 3])),
    case("Tensor.__getitem__", X, X > 3, id="a mask"),
    case("Tensor.__getitem__", X, 2, id="a number"),
    case("Tensor.__getitem__", X, (torch.tensor([2]), ..., torch.tensor([-4])), id="around an ellipsis"),
    case("Tensor.__getitem__", X, (True, torch.tensor([2])), id="behind a truth"),
    case("Tensor.__setitem__", X, (torch.tensor([0]), torch.tensor([3])), 1.0),
    case("Tensor.index_put_", X, (torch.tensor([-3]),), torch.tensor(1.0)),
    case("gather", X, 1, FAR.clamp(max=3)),
    case("Tensor.index_fill_", X, 0, torch.tensor([-3]), 1.0),
    case("take", X, torch.tensor([-12, 11])),
    case("nn.functional.embedding", torch.tensor([0, 2]), X, padding_idx=-1),
    case("nn.functional.embedding_bag", torch.tensor([0, 1]), X, torch.tensor([0, 2])),
    case("nn.functional.cross_entropy", LOG, torch.tensor([-100, 2])),
    case("nn.functional.cross_entropy", LOG, LOG.softmax(1), id="of probabilities"),
    case("nn.functional.multilabel_margin_loss", LOG, torch.tensor([[0, -1, 0], [0, 1, 2]])),
    case("nn.functional.one_hot", torch.tensor([0, 3])),
    case("nn.functional.max_unpool2d", POOLED, SPOTS.clamp(max=15), 2),
    case("repeat_interleave", LINE, 2),
    case("repeat_interleave", LINE, torch.tensor([2]), output_size=8),
    case("multinomial", torch.tensor([0.5, 0.5]), 3, True),
    case("bernoulli", torch.tensor([0.0, 1.0])),
    case("bernoulli", X, 0.5, id="of one probability"),
    case("nn.functional.binary_cross_entropy", torch.tensor([1.0]), torch.tensor([0.0])),
    case("Tensor.masked_scatter_", X, X > 9, torch.ones(2)),
    case("quantile", LINE, 0.5),
    case("lu_unpack", torch.eye(2), torch.tensor([1, 2], dtype=torch.int32)),
    case("index_select", X, 0, torch.tensor([], dtype=torch.long), id="nothing"),
    case("take", torch.zeros(()), torch.tensor([0]), id="a lone number"),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), TAKEN)
def test_what_fits_is_run_as_it_is(name: str, args: Any, kwargs: Any) -> None:
    spy = Spy(name)
    guarded_on_device(name, spy)(*args, **kwargs)
    assert spy.seen == [pointer(args, kwargs)]


def test_what_is_refused_is_not_written() -> None:
    tensor = X.clone()
    with pytest.raises(IndexError):
        guarded_on_device("Tensor.__setitem__", Tensor.__setitem__)(tensor, torch.tensor([0, 3]), 9.0)
    assert torch.equal(tensor, X)


def test_arguments_too_large_to_repeat_are_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tserver.engine.device_guards._MOST_REPEATED_BYTES", 8)
    with pytest.raises(IndexError, match="gather: an index is out of range"):
        guarded_on_device("gather", torch.gather)(X, 1, FAR)


def test_a_call_makes_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    tolist = Tensor.tolist

    def noted(tensor: Tensor) -> Any:
        moved.append(tensor.numel())
        return tolist(tensor)

    monkeypatch.setattr(Tensor, "tolist", noted)
    index = (torch.tensor([0]), torch.tensor([1]))
    guarded_on_device("Tensor.__getitem__", Tensor.__getitem__)(X, index)
    assert moved == [4]


def test_the_host_is_not_looked_at(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tserver.engine.streams.runs_apart", lambda tensor: False)
    spy = Spy("gather")
    with pytest.raises(RuntimeError):
        guarded_on_device("gather", spy)(X, 1, FAR)
    assert spy.seen == [X.data_ptr()]


def test_every_guard_is_of_an_operation_of_the_table() -> None:
    table = json.loads(resources.files("tensorcompute.v1").joinpath("operations.json").read_text())
    names = {entry["name"] for entry in table["operations"]}
    # The forms of a name that torch does not have are harmless; a name of which it has none is a mistake.
    for name in GUARDS:
        bare = name.removeprefix("Tensor.").removesuffix("_")
        assert names & {name, bare, f"{bare}_", f"Tensor.{bare}", f"Tensor.{bare}_"}, name
