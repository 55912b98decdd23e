"""What the client says of results before they are answered, held against what torch makes of the same arguments."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch

from tclient import _shapes
from tclient._codec.device import device
from tclient._codec.dtypes import DTYPES, LAYOUTS, MEMORY_FORMATS
from tclient._codec.operations import TABLE
from tclient._codec.size import size_of
from tclient._issue import make_tensor
from tclient._native import Drops, QueueFields
from tclient._session.kinds import Kind, Kinds, known
from tclient._session.refs import whole
from tests.operations.calls import Invocation, from_torch, from_us, is_tensor, operators
from tests.operations.samples import SAMPLES

_LAYOUTS = {str(each): each for each in LAYOUTS.values()}
_FORMATS = {str(each): each for each in MEMORY_FORMATS.values()}


class Client:
    """A session that nothing is sent from, and what its calls would be."""

    def __init__(self) -> None:
        self.kinds = Kinds()
        self.default_dtype_known = True
        self.opened = types.SimpleNamespace(default_device="cpu")
        # The compiled core looks into it, so it is of that kind.
        queue_fields: Any = QueueFields
        self.queue = queue_fields(1)
        self.queue.meta_epoch, self.queue.drops, self.queue.dozing = 0, Drops(maxlen=0), False

    def meant(self, value: Any) -> Any:
        """What the client has for an argument."""
        if is_tensor(value):
            session: Any = self
            ref = whole(session, 1 << 14, None)
            ref.meta, ref.epoch = described(value), 0
            return make_tensor(ref)
        if isinstance(value, torch.Size):
            return size_of(value)
        if isinstance(value, (list, tuple)):
            return type(value)([self.meant(item) for item in value])
        if isinstance(value, torch.dtype):
            return DTYPES[str(value).removeprefix("torch.")]
        if isinstance(value, torch.device):
            return device(str(value))
        if isinstance(value, (torch.layout, torch.memory_format)):
            return _LAYOUTS.get(str(value), _FORMATS.get(str(value)))
        return value

    def kind_of(self, call: Invocation) -> Kind | None:
        """The kind of what a call returns."""
        session: Any = self
        kwargs = {name: self.meant(value) for name, value in call.kwargs.items()}
        return _shapes.kind_of(session, TABLE[call.entry["name"]], [self.meant(each) for each in call.args], kwargs)


def described(tensor: torch.Tensor) -> Any:
    """The description of a tensor of torch."""
    element = DTYPES[str(tensor.dtype).removeprefix("torch.")]
    return known(size_of(tuple(tensor.shape)), element, device(str(tensor.device)), _LAYOUTS[str(tensor.layout)])


def _hold(kind: Kind, result: Any, name: str) -> int:
    """Hold what is known of a result against it, and learn from it. Returns how much was known."""
    if isinstance(result, (list, tuple)):
        kind.items = kind.items if kind.items is not None else tuple(is_tensor(each) for each in result)
        assert len(kind.items) == len(result), name
        return sum(_hold(kind.part(position), item, name) for position, item in enumerate(result) if is_tensor(item))
    if not is_tensor(result):
        return 0
    actual = described(result)
    if kind.meta is None:
        kind.learn(actual)
        return 0
    said = kind.meta
    assert (said.shape, said.dtype, said.device, said.layout) == (
        actual.shape,
        actual.dtype,
        actual.device,
        actual.layout,
    ), f"{name}: {said.shape} {said.dtype}, but it is {actual.shape} {actual.dtype}"
    return 1


def _check(calls: Any, client: Client) -> int:
    told = 0
    for call in calls:
        if TABLE[call.entry["name"]].tensors == 0 or call.kwargs.get("out") is not None:
            continue
        kind = client.kind_of(call)
        if kind is None:
            continue
        try:
            result = call.run()
        except Exception:  # what torch refuses has no kind
            continue
        told += _hold(kind, result, call.entry["name"])
    return told


_CONCERNED = [name for name, (_, names) in operators().items() if any(TABLE[each].tensors for each in names)]
_DTYPES = [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
def test_what_is_known_is_true_of_all_samples_of_all_operations(dtype: torch.dtype) -> None:
    client = Client()
    for operator in _CONCERNED:
        # The second time the random elements are others.
        for _ in range(2):
            _check(from_torch(operator, 1000, dtype), client)


def test_what_is_known_of_a_result_before_it_is_answered_is_true_and_is_mostly_known() -> None:
    client = Client()
    knowing = set()
    for _ in range(2):
        for operator in _CONCERNED:
            for call in from_torch(operator, 3):
                if _check([call], client):
                    knowing.add(call.entry["name"])
        for name in SAMPLES:
            for call in from_us(name):
                if _check([call], client):
                    knowing.add(name)
    listed = {name for name, operation in TABLE.items() if operation.tensors}
    assert len(listed - knowing) < len(listed) / 5, sorted(listed - knowing)
