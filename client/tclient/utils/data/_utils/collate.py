"""How items become a batch: tensors and arrays are stacked, numbers become tensors, containers are gone into.

In a worker process, which has no session, what would become a tensor becomes one when it arrives in the parent. Knows
tensors and arrays; does not know where the items come from.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

import tclient
from tclient._codec.dtypes import DTYPES
from tclient._tensor import Tensor

_REFUSAL = "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"
_TEXTS_AND_OBJECTS = re.compile(r"[SaUO]")


def default_collate(batch: Any) -> Any:
    """A batch of items as DataLoader gives it: each tensor has a new first dimension, as long as the batch.

    Numbers become int64 or float64, texts a list; of tuples comes a list, of dicts and named tuples their like.

    Raises: TypeError for other items; RuntimeError for sequences of different lengths; what torch raises where shapes
    differ (when it is waited for).
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return tclient.stack(list(batch), 0)
    if isinstance(first, np.ndarray):
        return _arrays(batch)
    if isinstance(first, np.bool_ | np.number):
        return _tensor(batch)
    if isinstance(first, float):
        return _tensor(batch, "float64")
    if isinstance(first, int):
        return _tensor(batch)
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, Mapping):
        return _like_mapping(first, {key: default_collate([item[key] for item in batch]) for key in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*[default_collate(column) for column in zip(*batch, strict=False)])
    if isinstance(first, Sequence):
        if any(len(item) != len(first) for item in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return columns if isinstance(first, tuple) else _like_sequence(first, columns)
    raise TypeError(_REFUSAL.format(type(first)))


def default_convert(data: Any) -> Any:
    """One item as DataLoader gives it when it makes no batches: arrays become tensors, all else stays as it is."""
    if isinstance(data, np.ndarray) and _TEXTS_AND_OBJECTS.search(data.dtype.str):
        return data
    if isinstance(data, np.ndarray | np.bool_ | np.number):
        return _tensor(data)
    if isinstance(data, Tensor | str | bytes):
        return data
    if isinstance(data, Mapping):
        return _like_mapping(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*[default_convert(value) for value in data])
    if isinstance(data, Sequence):
        converted = [default_convert(value) for value in data]
        return converted if isinstance(data, tuple) else _like_sequence(data, converted)
    return data


def _arrays(batch: Sequence[np.ndarray[Any, Any]]) -> Any:
    first = batch[0]
    if _TEXTS_AND_OBJECTS.search(first.dtype.str):
        raise TypeError(_REFUSAL.format(first.dtype))
    stacked: Any
    if all(array.shape == first.shape and array.dtype == first.dtype for array in batch):
        # One array travels instead of many.
        stacked = _tensor(np.stack(batch))
    elif _postpones:
        stacked = Postponed(_stacked, list(batch))
    else:
        stacked = _stacked(list(batch))
    return stacked


def _stacked(arrays: list[Any]) -> Tensor:
    together: Tensor = tclient.stack([tclient.as_tensor(array) for array in arrays], 0)
    return together


# ---- in worker processes ---------------------------------------------------------------------------------------------

_postpones = False


def postpone_tensors() -> None:
    """From now on this process has others make its tensors: it is a worker."""
    global _postpones
    _postpones = True


class Postponed:
    """A tensor to be, where it arrives: pickled, it is what this function makes of these arguments."""

    def __init__(self, function: Callable[..., Tensor], *args: Any) -> None:
        self._made_by = function, args

    def __reduce__(self) -> Any:
        return self._made_by

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"a batch of default_collate has no {name!r} in a worker process, where there are no tensors yet: "
            "use it where the loader is iterated"
        )


def arrive(data: Any, element: str | None = None) -> Tensor:
    """A tensor of what a worker sent."""
    made: Tensor
    if isinstance(data, np.ndarray):
        made = tclient.as_tensor(data)
        return made if element is None else made.to(DTYPES[element])
    made = tclient.as_tensor(data) if element is None else tclient.tensor(data, dtype=DTYPES[element])
    return made


def _tensor(data: Any, element: str | None = None) -> Any:
    return Postponed(arrive, data, element) if _postpones else arrive(data, element)


def _like_mapping(model: Mapping[Any, Any], content: dict[Any, Any]) -> Any:
    """A mapping of the model's class, if that can be made."""
    make: Callable[[Any], Any] = type(model)
    try:
        if isinstance(model, MutableMapping):
            clone = copy.copy(model)
            clone.update(content)
            return clone
        return make(content)
    except TypeError:
        return content


def _like_sequence(model: Sequence[Any], content: list[Any]) -> Any:
    """A sequence of the model's class, if that can be made."""
    make: Callable[[Any], Any] = type(model)
    try:
        if isinstance(model, MutableSequence):
            clone = copy.copy(model)
            for index, value in enumerate(content):
                clone[index] = value
            return clone
        return make(content)
    except TypeError:
        return content
