"""Storages and addresses as identities, old constructors, and classes derived from Tensor: as in torch."""

from __future__ import annotations

import pickle
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.semantics.harness import Watch, assert_same


def addresses(m: Any, t: Watch) -> None:
    x = m.arange(6.0).reshape(2, 3)
    t.show(m.empty(0).data_ptr(), x[2:].data_ptr(), x[1].data_ptr() - x.data_ptr(), x.t().data_ptr() == x.data_ptr())
    t.show(x.data_ptr() == x.view(-1).data_ptr() == x.detach().data_ptr(), x.clone().data_ptr() == x.data_ptr())
    row, whole = x[1].untyped_storage(), x.untyped_storage()
    t.show(
        row.data_ptr() == x.data_ptr(), row == whole, row._cdata == whole._cdata, whole == x.clone().untyped_storage()
    )
    t.show(x.is_set_to(x), x.is_set_to(x.view(-1)), x[1].storage_offset(), x.element_size())
    net = m.nn.Sequential(m.nn.Linear(2, 2), m.nn.Linear(2, 2))
    net[1].weight = net[0].weight
    t.show(len({p.data_ptr() for p in net.state_dict().values()}), net[0].weight.data_ptr() % 4)
    before = x.data_ptr()
    x.mul_(2)
    t.show(x.data_ptr() == before, x.data.data_ptr() == before)


def storages(m: Any, t: Watch) -> None:
    x = m.arange(6.0).reshape(2, 3)
    bytes_of, elements = m.ones(1).untyped_storage(), x.storage()
    t.show(bytes_of.nbytes(), bytes_of.size(), len(bytes_of), bytes_of.tolist(), bytes_of.element_size(), bytes_of[3])
    t.show(elements.size(), len(elements), elements.nbytes(), elements.tolist(), elements[2], elements.element_size())
    t.show(str(elements.dtype), elements.type(), elements.data_ptr() == x.data_ptr(), list(elements)[:2])
    t.show(repr(bytes_of), repr(elements), x[1].storage().size(), str(bytes_of.device), bytes_of.is_cuda)
    t.show(m.is_storage(x), m.is_storage(bytes_of), m.is_storage(elements), type(bytes_of).__name__)
    elements[0] = 7.0
    x.untyped_storage().copy_(x.clone().untyped_storage())
    t.show(x, elements.clone().data_ptr() == elements.data_ptr())
    elements.fill_(2)
    t.show(x)


def constructors(m: Any, t: Watch) -> None:
    x = m.arange(6.0).reshape(2, 3)
    t.show(x.new().shape, x.new(2, 3).shape, x.new([1, 2]), x.long().new([1, 2]), x.new(m.Size([2])).shape)
    t.show(x.new(np.ones(2, np.float32)), x.type(), x.type("torch.LongTensor"), x.type(m.float64).type())
    t.show(x.long().type("torch.FloatTensor"), x.is_shared(), x.clone().share_memory_().is_shared())
    t.show(all(p.is_shared() for p in m.nn.Linear(1, 1).share_memory().parameters()))


def subclasses(m: Any, t: Watch) -> None:
    class Mine(m.Tensor):  # type: ignore[misc]
        note = "class"

        def twice(self) -> Any:
            return self * 2

    x = m.arange(3.0)
    made = Mine([1.0, 2.0])
    t.show(type(made).__name__, isinstance(made, m.Tensor), made.tolist(), made.note, made.twice().tolist())
    t.show(type(x.as_subclass(Mine)).__name__, x.as_subclass(Mine).tolist())
    alike = m.Tensor._make_subclass(Mine, x, True)
    t.show(type(alike).__name__, alike.requires_grad, alike.data_ptr() == x.data_ptr())
    made.title = "object"
    t.show(made.title, m.is_tensor(made), m.stack([made, made]).tolist())


def arrays(m: Any, t: Watch) -> None:
    grad = m.ones(1, requires_grad=True)
    t.tries(
        grad.numpy,
        (grad * 2).numpy,
        m.ones(1, dtype=m.bfloat16).numpy,
        m.ones(1).to(m.float8_e5m2).numpy,
        m.tensor([1j]).conj().numpy,
        m.tensor([1j]).conj().imag.numpy,
        lambda: np.asarray(grad),
        lambda: np.array(m.ones(1, dtype=m.bfloat16)),
        lambda: grad.numpy(force=True).tolist(),
        lambda: float(m.ones(2)),
        lambda: m.ones(2).item(),
    )


@pytest.mark.parametrize("program", [addresses, storages, constructors, subclasses, arrays], ids=lambda p: p.__name__)
def test_memory_is_told_of_as_in_torch(tc: ModuleType, program: Any) -> None:
    assert_same(program, tc, synchronous=False)


def test_a_grown_storage_has_an_address_of_its_own(tc: ModuleType) -> None:
    x, y = tc.ones(2), tc.ones(2)
    first, second = x.data_ptr(), y.data_ptr()
    x.resize_(1000)
    assert x.data_ptr() not in (first, second)
    assert y.data_ptr() == second


def test_memory_that_shall_be_shared_is_not_sent_as_a_copy(tc: ModuleType) -> None:
    net = tc.nn.Linear(2, 1).share_memory()
    with pytest.raises(RuntimeError, match="shall be shared"):
        pickle.dumps(net)
    assert net(tc.ones(1, 2)).shape == (1, 1)
