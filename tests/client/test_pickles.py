"""Pickles of tensors and of what holds them: values, as torch's are, in the session of who reads them."""

from __future__ import annotations

import copy
import pickle
from types import ModuleType
from typing import Any

import pytest
import torch

import tclient
from tests.semantics.harness import Watch, assert_same
from tests.support.serving import ServerProcess

DTYPES = [
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
    *("float8_e5m2", "float8_e4m3fn"),
]


def again(value: Any) -> Any:
    """What is left of it behind a pickle."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - of this test


def tensors(m: Any, t: Watch) -> None:
    x = m.arange(6.0).reshape(2, 3)
    t.show(again(x), again(m.zeros(0, 3)), again(m.tensor(2.5)), again(x.to(m.int16)), again(x[:, 1].sum()))
    t.show(
        again(m.tensor([1 + 2j]).conj().resolve_conj()),
        again(m.nn.Parameter(x)),
        again(m.nn.Parameter(x, requires_grad=False)),
    )
    leaf = m.ones(2, requires_grad=True)
    (leaf * 2).sum().backward()
    back = again(leaf)
    t.show(back.requires_grad, back.is_leaf, back.grad, again(leaf.detach()).requires_grad)
    leaf.note = {"name": "leaf"}
    t.show(again(leaf).note, again(m.nn.Parameter(x)).requires_grad)
    first, second = again([x, x])
    t.show(first is second, again({"a": (x, 1)}))


def constants(m: Any, t: Watch) -> None:
    for value in (m.float16, m.strided, m.device("cpu"), m.device("cuda", 1), m.Size([1, 2])):
        t.show(again(value) == value, str(again(value)))
    generator = m.Generator()
    generator.manual_seed(3)
    t.show(m.rand(2, generator=again(generator)), m.rand(2, generator=generator), str(again(generator).device))


def networks(m: Any, t: Watch) -> None:
    m.manual_seed(0)
    net = m.nn.Sequential(m.nn.Linear(3, 4), m.nn.BatchNorm1d(4), m.nn.Dropout(0.5), m.nn.LSTM(4, 2)).eval()
    net[0].bias.requires_grad_(False)
    twin = again(net)
    x = m.ones(5, 3)
    t.show(repr(twin), twin.training, net(x)[0].equal(twin(x)[0]), list(twin.state_dict()))
    t.show([p.requires_grad for p in twin.parameters()], [type(p).__name__ for p in twin.parameters()])
    tied = m.nn.Sequential(m.nn.Linear(2, 2), m.nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    for made in (again(tied), copy.deepcopy(tied)):
        t.show(made[0].weight is made[1].weight, len(list(made.parameters())))


def training(m: Any, t: Watch) -> None:
    for kind, options in (
        ("SGD", {"momentum": 0.9}),
        ("Adam", {"amsgrad": True}),
        ("AdamW", {}),
        ("RMSprop", {}),
        ("Adagrad", {}),
    ):
        m.manual_seed(1)
        net = m.nn.Linear(2, 1)
        groups = [{"params": [net.weight], "lr": 0.1}, {"params": [net.bias]}]
        made = getattr(m.optim, kind)(groups, lr=0.01, **options)
        all_of_it = net, made, m.optim.lr_scheduler.StepLR(made, 2)
        steps(m, *all_of_it)
        twins = again(all_of_it)
        t.show(steps(m, *all_of_it) == steps(m, *twins), twins[1].param_groups[0]["params"][0] is twins[0].weight)
        t.show(twins[2].optimizer is twins[1], twins[1].state_dict()["param_groups"], repr(twins[1]))


def steps(m: Any, net: Any, optimizer: Any, schedule: Any) -> Any:
    for _ in range(3):
        optimizer.zero_grad()
        net(m.ones(3, 2)).square().sum().backward()
        optimizer.step()
        schedule.step()
    return net.weight.detach().tolist(), [group["lr"] for group in optimizer.param_groups], schedule.get_last_lr()


@pytest.mark.parametrize("program", [tensors, constants, networks, training], ids=lambda p: p.__name__)
def test_a_pickle_is_read_as_torch_reads_it(tc: ModuleType, program: Any) -> None:
    assert_same(program, tc, synchronous=False)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("name", DTYPES)
def test_elements_of_every_dtype_come_back(tc: ModuleType, name: str) -> None:
    given = torch.tensor([0.0, 1.0, 1.5]).to(getattr(torch, name))
    mine = again(tc.tensor([0.0, 1.0, 1.5]).to(getattr(tc, name)))
    assert str(mine.dtype) == str(given.dtype)
    assert [complex(one) for one in mine.tolist()] == [complex(one) for one in given.tolist()]


def test_a_pickle_is_read_in_the_session_of_who_reads_it(tc: ModuleType, server: ServerProcess) -> None:
    written = pickle.dumps(tc.nn.Linear(2, 1))
    with tclient.connect(server.address) as other:
        read = pickle.loads(written)  # noqa: S301 - of this test
        assert read.weight._ref.session is other
        assert read(tclient.ones(1, 2)).shape == (1, 1)


def test_what_only_the_server_has_is_not_pickled(tc: ModuleType) -> None:
    net = tc.nn.MLP([2, 2, 1])
    net(tc.ones(1, 2))
    assert again(net)(tc.ones(1, 2)).equal(net(tc.ones(1, 2)))
    with pytest.raises(TypeError, match="cannot pickle a RemoteObject of tclient"):
        pickle.dumps(tc.optim.SGD(net.parameters(), lr=0.1)._remote)
