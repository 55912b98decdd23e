"""Data sets and loaders give what torch's give, in torch's order, and do not wait for a batch."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data

Point = namedtuple("Point", ["x", "y"])


def seen(value: Any) -> Any:
    """A batch as plain values: dtype, shape and elements of every tensor in it, and the containers around."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return str(value.dtype), tuple(value.shape), value.tolist()
    if isinstance(value, dict):
        return {key: seen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [seen(item) for item in value]
    return type(value).__name__, value


def rows(m: Any) -> Any:
    """A TensorDataset of ten rows."""
    return m.utils.data.TensorDataset(m.arange(20.0).reshape(10, 2), m.arange(10))


def squares(m: Any) -> Any:
    """A data set written by hand, with a tensor, an array, numbers and a text in each item."""

    class Squares(m.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> Any:
            if index >= 10:
                raise IndexError(index)
            array = np.array([index, 1], dtype=np.int16)
            return {"x": m.tensor([index, index**2]), "a": array, "n": (index, index / 2), "t": str(index)}

    return Squares()


def stream(m: Any) -> Any:
    """A stream of seven items."""

    class Stream(m.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Any:
            return iter([(float(n), n) for n in range(7)])

        def __len__(self) -> int:
            return 7

    return Stream()


def split(m: Any, *lengths: Any) -> Any:
    """Subsets of the ten rows."""
    return m.utils.data.random_split(rows(m), lengths)


Make = Callable[[Any], Any]
SETS: dict[str, Make] = {
    "rows": rows,
    "squares": squares,
    "list": lambda m: [(m.tensor([float(n)]), n) for n in range(10)],
    "subset": lambda m: m.utils.data.Subset(rows(m), [7, 1, 4, 4]),
    "subset-of-squares": lambda m: m.utils.data.Subset(squares(m), [7, 1, 4]),
    "concatenated": lambda m: m.utils.data.ConcatDataset([rows(m), rows(m)]),
    "added": lambda m: rows(m) + m.utils.data.Subset(rows(m), [3]),
    "stacked": lambda m: m.utils.data.StackDataset(first=rows(m), second=squares(m)),
    "stacked-as-tuple": lambda m: m.utils.data.StackDataset(rows(m), squares(m)),
    "split": lambda m: split(m, 6, 4)[0],
    "split-by-fractions": lambda m: split(m, 0.55, 0.45)[1],
    "stream": stream,
    "chained": lambda m: stream(m) + stream(m),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "batches": {"batch_size": 3},
    "drop-last": {"batch_size": 3, "drop_last": True},
    "no-batches": {"batch_size": None},
    "shuffled": {"batch_size": 4, "shuffle": True},
    "shuffled-by-a-generator": {"batch_size": 4, "shuffle": True, "generator": 11},
    "collate": {"batch_size": 4, "collate_fn": lambda items: ("made", len(items))},
}


def passes(m: Any, make: Make, options: dict[str, Any]) -> Any:
    """Two passes of a loader, and a number drawn after them: the random state must be the same, too."""
    m.manual_seed(3)
    if "generator" in options:
        options = {**options, "generator": m.Generator().manual_seed(options["generator"])}
    loader = m.utils.data.DataLoader(make(m), **options)
    return len(loader), [seen(list(loader)) for _ in range(2)], m.rand(2).tolist()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        pytest.param(make, options, id=f"{name}-{how}")
        for name, make in SETS.items()
        for how, options in OPTIONS.items()
        if not (options.get("shuffle") and name in ("stream", "chained"))  # a stream has no order to shuffle
    ],
)
def test_a_loader_gives_the_batches_of_torch(tc: Any, make: Make, options: dict[str, Any]) -> None:
    assert passes(tc, make, options) == passes(torch, make, options)


SAMPLERS: dict[str, Make] = {
    "random": lambda m: m.utils.data.RandomSampler(range(7)),
    "random-of-the-session": lambda m: m.utils.data.RandomSampler(range(7), generator=m.default_generator),
    "replacement": lambda m: m.utils.data.RandomSampler(range(7), replacement=True, num_samples=70),
    "more-than-there-are": lambda m: m.utils.data.RandomSampler(range(7), num_samples=17),
    "subset": lambda m: m.utils.data.SubsetRandomSampler([5, 2, 9]),
    "weighted": lambda m: m.utils.data.WeightedRandomSampler([0.1, 0.7, 0.2], 20),
    "batches": lambda m: m.utils.data.BatchSampler(m.utils.data.SequentialSampler(range(7)), 3, drop_last=False),
}


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS.keys())
def test_a_sampler_gives_the_order_of_torch(tc: Any, make: Make) -> None:
    orders = []
    for module in (tc, torch):
        module.manual_seed(5)
        sampler = make(module)
        orders.append((len(sampler), list(sampler), list(sampler), module.rand(1).item()))
    assert orders[0] == orders[1]


ITEMS: dict[str, Make] = {
    "tensors": lambda m: [m.ones(2), m.zeros(2)],
    "arrays": lambda m: [np.ones((2, 3)), np.zeros((2, 3))],
    "arrays-of-two-dtypes": lambda m: [np.ones(2, np.float32), np.zeros(2, np.float64)],
    "arrays-of-two-shapes": lambda m: [np.ones(2), np.ones(3)],
    "arrays-of-texts": lambda m: [np.array(["a"]), np.array(["b"])],
    "numpy-numbers": lambda m: [np.float32(1.5), np.float32(2)],
    "floats": lambda m: [1.0, 2.0],
    "integers": lambda m: [1, 2],
    "bools": lambda m: [True, False],
    "texts": lambda m: ["a", "b"],
    "tuples": lambda m: [(1, 2.0), (3, 4.0)],
    "lists": lambda m: [[1, 2.0], [3, 4.0]],
    "named": lambda m: [Point(1, 2), Point(3, 4)],
    "dicts": lambda m: [{"a": 1, "b": [m.ones(1)]}, {"a": 2, "b": [m.zeros(1)]}],
    "two-lengths": lambda m: [[1], [2, 3]],
    "objects": lambda m: [object(), object()],
}


@pytest.mark.parametrize("function", ["default_collate", "default_convert"])
@pytest.mark.parametrize("make", ITEMS.values(), ids=ITEMS.keys())
def test_items_become_a_batch_as_in_torch(tc: Any, make: Make, function: str) -> None:
    outcomes = []
    items = make(torch)
    for module in (tc, torch):
        items = make(module) if not any(type(item) is object for item in items) else items
        try:
            outcomes.append(seen(getattr(module.utils.data, function)(items)))
        except (TypeError, RuntimeError) as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


MISUSE: dict[str, Make] = {
    "no-batch": lambda m: m.utils.data.DataLoader(rows(m), batch_size=0),
    "no-items": lambda m: m.utils.data.DataLoader([], shuffle=True),
    "two-orders": lambda m: m.utils.data.DataLoader(rows(m), shuffle=True, sampler=[1]),
    "two-batchings": lambda m: m.utils.data.DataLoader(rows(m), batch_size=2, batch_sampler=[[1]]),
    "nothing-to-drop": lambda m: m.utils.data.DataLoader(rows(m), batch_size=None, drop_last=True),
    "shuffled-stream": lambda m: m.utils.data.DataLoader(stream(m), shuffle=True),
    "sampled-stream": lambda m: m.utils.data.DataLoader(stream(m), sampler=[1]),
    "negative-workers": lambda m: m.utils.data.DataLoader(rows(m), num_workers=-1),
    "prefetch": lambda m: m.utils.data.DataLoader(rows(m), prefetch_factor=2),
    "persistent": lambda m: m.utils.data.DataLoader(rows(m), persistent_workers=True),
    "rows-of-two-lengths": lambda m: m.utils.data.TensorDataset(m.ones(2), m.ones(3)),
    "split-too-long": lambda m: split(m, 6, 5),
    "split-negative": lambda m: split(m, 1.5, -0.5),
    "nothing-concatenated": lambda m: m.utils.data.ConcatDataset([]),
    "no-item": lambda m: m.utils.data.Dataset()[0],
    "replacement": lambda m: m.utils.data.RandomSampler([1], replacement=1),
    "weights": lambda m: m.utils.data.WeightedRandomSampler([[0.1]], 2),
    "beyond-the-end": lambda m: m.utils.data.ConcatDataset([rows(m)])[-11],
}


@pytest.mark.parametrize("misuse", MISUSE.values(), ids=MISUSE.keys())
def test_misuse_is_refused_in_the_words_of_torch(tc: Any, misuse: Make) -> None:
    errors = []
    for module in (tc, torch):
        with pytest.raises((AssertionError, NotImplementedError, TypeError, ValueError)) as caught:
            misuse(module)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("make", [rows, lambda m: split(m, 6, 4)[0]], ids=["rows", "split"])
def test_a_shuffled_pass_waits_for_its_order_only(tc: Any, make: Make) -> None:
    loader = tc.utils.data.DataLoader(make(tc), batch_size=2, shuffle=True)
    session = tc.ones(1)._ref.session
    before = session.stats.waits
    total = sum((x.sum() + y.sum() for x, y in loader), start=tc.zeros(()))
    assert session.stats.waits - before == 2  # the seed, and the order
    assert total.item() > 0


def test_a_batch_of_rows_is_one_call_for_each_tensor(tc: Any) -> None:
    loader = tc.utils.data.DataLoader(rows(tc), batch_size=5)
    batches = iter(loader)
    next(batches)
    tc.synchronize()
    session = tc.ones(1)._ref.session
    before = session.stats.calls
    next(batches)
    tc.synchronize()
    assert session.stats.calls - before <= 4


def test_a_batch_is_where_the_rows_are(tc: Any) -> None:
    for x, y in tc.utils.data.DataLoader(rows(tc), batch_size=4):
        assert x.device == y.device == tc.ones(1).device
