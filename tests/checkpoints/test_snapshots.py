"""What a session holds, written down and read again: the same tensors, over the same memory, with the same state."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.safetensors import header_of
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.engine.networks import build
from tserver.engine.object_store import Failed, ObjectStore, Parts
from tserver.engine.optimizers import KINDS, make
from tserver.engine.pieces import whole
from tserver.engine.session_queue import SessionQueue
from tserver.engine.snapshots.files import TENSORS, Told, load, save
from tserver.engine.snapshots.graphs import needs_graph
from tserver.engine.snapshots.parts import Damaged
from tserver.engine.snapshots.restoring import restore
from tserver.engine.snapshots.taking import take
from tserver.errors import CallFailed, InvalidArgument

# torch warns of layouts that are young, and of quantized tensors, which are old.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An engine that runs."""
    patch = pytest.MonkeyPatch()
    patch.setattr(Engine, "_prepare", lambda self: None)
    made = Engine(Config(device="cpu"), on_fatal=pytest.fail)
    made.start()
    yield made
    made.stop()
    patch.undo()


class Sides:
    """A session, and what becomes of it in another process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.queue = engine.open_queue("me")
        self.left_out: list[str] = []
        self.text: Any = None
        self.blobs: list[bytes] = []

    def hold(self, make: Callable[[], dict[int, Any]]) -> None:
        """Make things on the engine's thread, and hold them under ids."""

        def run(store: ObjectStore) -> None:
            for call_id, found in make().items():
                store.keep(call_id, found)

        self.queue.run(run).result(20)

    def write(self) -> None:
        """Write the session down, as text and bytes."""

        def run(store: ObjectStore) -> None:
            taken = take(store)
            self.text = json.loads(json.dumps(taken.text))
            self.blobs = [bytes(blob.tolist()) for blob in taken.blobs]
            self.left_out = taken.left_out

        self.queue.run(run).result(20)

    def read(self) -> SessionQueue:
        """A session of what is written. Raises: Damaged."""

        def fill(index: int, blob: Tensor) -> Generator[None, None, None]:
            blob.copy_(torch.tensor(list(self.blobs[index]), dtype=torch.uint8))
            yield

        queue = self.engine.open_queue("me")
        queue.run_in_pieces(lambda store: restore(store, self.text, list(map(len, self.blobs)), fill)).result(20)
        return queue

    def again(self) -> dict[int, Any]:
        """What the other session holds."""
        self.write()
        return dict(self.read().store.objects)


@pytest.fixture
def sides(engine: Engine) -> Iterator[Sides]:
    """Both. What a session has set is in force in this process for as long as it was the last one that ran."""
    yield Sides(engine)
    torch.set_default_dtype(torch.float32)
    torch.set_printoptions(profile="default")


def _coo() -> Tensor:
    indices, values = torch.tensor([[0, 2], [1, 0]]), torch.tensor([1.0, 2.0])
    return torch.sparse_coo_tensor(indices, values, (3, 2), check_invariants=True)


MADE: dict[str, Callable[[], Tensor]] = {
    "float": lambda: torch.randn(3, 4),
    "scalar": lambda: torch.tensor(7),
    "empty": lambda: torch.empty(0, 3),
    "bool": lambda: torch.tensor([True, False]),
    "bfloat16": lambda: torch.randn(5).bfloat16(),
    "float8": lambda: torch.randn(5).to(torch.float8_e4m3fn),
    "complex": lambda: torch.randn(3, dtype=torch.complex128),
    "conj": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "negative": lambda: torch.randn(3, dtype=torch.complex64).conj().imag,
    "transposed": lambda: torch.randn(3, 4).t(),
    "part": lambda: torch.arange(10)[2:8:2],
    "expanded": lambda: torch.randn(3, 1).expand(3, 5),
    "channels last": lambda: torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "leaf": lambda: torch.randn(3, requires_grad=True),
    "view of another dtype": lambda: torch.randn(4).view(torch.int32),
    "meta": lambda: torch.empty(2, 3, device="meta"),
    "coo": _coo,
    "coalesced": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "bsc": lambda: torch.eye(4).to_sparse_bsc((2, 2)),
    "inference": lambda: _in_inference(lambda: torch.ones(3)),
    "computed": lambda: torch.exp(torch.ones(3, requires_grad=True) * 2),
    "off the line": lambda: torch.frombuffer(bytearray(100), dtype=torch.uint8, offset=3),
}


def _in_inference(make: Callable[[], Tensor]) -> Tensor:
    with torch.inference_mode():
        return make()


def _said(tensor: Tensor) -> tuple[Any, ...]:
    strided = tensor.layout is torch.strided
    return (
        str(tensor) if not tensor.is_meta else "",
        tensor.dtype,
        tensor.shape,
        tensor.stride() if strided else tensor.layout,
        tensor.storage_offset() if strided else None,
        tensor.is_leaf,
        tensor.requires_grad,
        tensor.is_inference(),
        tensor.is_conj(),
        tensor.data_ptr() % 64 if strided and not tensor.is_meta else 0,
    )


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_tensor_is_the_same_again(sides: Sides, make: Callable[[], Tensor]) -> None:
    sides.hold(lambda: {1: make()})
    before = sides.queue.store.objects[1]
    assert _said(sides.again()[1]) == _said(before)
    assert sides.left_out == []


def test_what_shared_memory_shares_it_again(sides: Sides) -> None:
    def made() -> dict[int, Any]:
        x = torch.zeros(6)
        return {1: x, 2: x[2:4], 3: x.detach(), 4: x, 5: x.view(torch.int32)}

    sides.hold(made)
    found = sides.again()
    assert found[1] is found[4]
    assert found[2]._base is found[1]
    found[1].fill_(1.0)
    assert found[2].tolist() == [1.0, 1.0]
    assert found[3].sum() == 6.0
    assert found[5][0] == found[1].view(torch.int32)[0]
    weight = torch.ones(2, requires_grad=True)
    found[2].copy_(weight)
    found[1].sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0, 1.0]


def test_a_leaf_has_its_gradient_and_a_result_tells_that_its_graph_is_gone(sides: Sides) -> None:
    def made() -> dict[int, Any]:
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        (w * w).sum().backward()
        return {1: w, 2: (w * w).sum(), 3: w.grad}

    sides.hold(made)
    found = sides.again()
    assert found[1].grad is found[3]
    assert found[3].tolist() == [2.0, 4.0]
    assert str(found[2]) == str(sides.queue.store.objects[2])
    assert found[2].grad_fn is not None
    with pytest.raises(RuntimeError, match="SumBackward0: the graph of this tensor is gone"):
        (found[2] * 2).backward()
    (found[1] * 3).sum().backward()
    assert found[1].grad.tolist() == [5.0, 7.0]


def test_whether_a_graph_is_needed(sides: Sides) -> None:
    store = sides.queue.store

    def needs() -> bool:
        return sides.queue.run(needs_graph).result(20)

    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    assert not needs()
    out = net(torch.randn(5, 3))
    store.keep(1, Parts((out, torch.ones(2))))
    assert needs()
    loss = (out**2).mean()
    store.keep(2, loss)
    assert needs()
    loss.backward()
    # What was gone through is of no more use, though both are still held.
    assert not needs()
    store.keep(3, net(torch.randn(5, 3)))
    assert needs()
    # A step has written to what that has saved.
    optimizer.step()
    assert not needs()


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimiser_goes_on_as_if_nothing_had_been(sides: Sides, kind: str) -> None:
    def made() -> dict[int, Any]:
        torch.manual_seed(0)
        w, b = torch.randn(4, 3, requires_grad=True), torch.randn(2, 2, requires_grad=True)
        groups = [{"params": [w], "lr": 0.01}, {"params": [b]}]
        return {1: w, 2: b, 3: make(kind, groups, {"lr": 0.02})}

    def step(found: dict[int, Any]) -> None:
        w, b, optimizer = found[1], found[2], found[3]
        optimizer.zero_grad()
        loss = ((w**2).sum() + (b**3).sum()) * 0.1
        loss.backward()
        if kind == "SparseAdam":
            for each in (w, b):
                each.grad = each.grad.to_sparse(1)
        optimizer.step([{"lr": 0.015}])

    sides.hold(made)
    before = dict(sides.queue.store.objects)
    step(before)
    step(before)
    found = sides.again()
    for _ in range(3):
        step(before)
        step(found)
    assert torch.equal(before[1], found[1])
    assert torch.equal(before[2], found[2])
    assert before[3].describe() == found[3].describe()
    assert sides.left_out == []


def test_the_random_state_and_the_settings_go_on(sides: Sides) -> None:
    def set_up(_: ObjectStore) -> None:
        torch.manual_seed(5)
        torch.rand(3)
        torch.set_default_dtype(torch.float64)
        torch.set_printoptions(precision=2)

    def draw(_: ObjectStore) -> tuple[Any, ...]:
        return torch.rand(2).tolist(), torch.nn.functional.dropout(torch.ones(9)).tolist(), str(torch.rand(2))

    sides.queue.run(set_up).result(20)
    sides.hold(lambda: {1: torch.Generator().manual_seed(3)})
    sides.write()
    after = sides.read()
    assert after.run(draw).result(20) == sides.queue.run(draw).result(20)
    one, other = sides.queue.store.objects[1], after.store.objects[1]
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))


def test_names_and_what_is_held_twice_are_kept(sides: Sides) -> None:
    def run(store: ObjectStore) -> None:
        store.keep(1, torch.ones(3))
        store.keep(2, torch.Generator())
        store.keep(3, store.operation("tc.same").function(store, store.objects[2]))
        store.operation("tc.name").function(store, store.objects[1], "weights")

    sides.queue.run(run).result(20)
    sides.write()
    store = sides.read().store
    assert store.objects[2] is store.objects[3]
    assert store.operation("tc.named").function(store, "weights") is store.objects[1]
    assert store.operation("tc.name_of").function(store, store.objects[1]) == "weights"
    assert store.new_server_id() > max(store.objects)
    sides.text["names"] *= 2
    with pytest.raises(Damaged, match="a name"):
        sides.read()


def test_networks_programs_parts_and_errors_are_kept(sides: Sides) -> None:
    program = pb.Program(inputs=1, calls=[pb.Call(operation=1, id=2)])
    program.calls[0].args.add(result=1)
    program.result.result = 2
    weight = torch.randn(2, 3)

    def run(store: ObjectStore) -> None:
        store.define(["relu", "exp"], [pb.Context(no_grad=True)])
        store.keep(1, store.operation("tc.program").function(store, program))
        store.keep(2, build([{"kind": "linear", "weight": weight, "bias": None}, {"kind": "leaky_relu"}]))
        store.keep(3, Parts((weight, {"a": weight + 1})))
        store.keep(4, Failed(pb.Error(type="ValueError", message="no")))

    sides.queue.run(run).result(20)
    sides.write()
    after = sides.read()
    found = after.store.objects
    x = torch.randn(4)
    assert torch.equal(after.run(lambda store: whole(found[1].run(store, [x]))).result(20), x.exp())
    y = torch.randn(5, 3)
    assert torch.equal(found[2].forward(y), sides.queue.store.objects[2].forward(y))
    assert found[2].parameters()[0] is found[3].by_path[(0,)]
    assert torch.equal(found[3].by_path[(1, 0)], weight + 1)
    assert [each.name for each in after.store.operations] == ["relu", "exp"]
    assert after.store.mode(1) is not None
    with pytest.raises(CallFailed, match="no"):
        after.store.whole(4)


def test_what_cannot_be_kept_is_named_and_fails_when_it_is_used(sides: Sides) -> None:
    sides.hold(
        lambda: {
            1: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            2: torch.ones(3, requires_grad=True).exp().grad_fn,
        }
    )
    sides.write()
    assert sides.left_out == ["id 1: a quantized tensor", "id 2: a node of a graph (ExpBackward0)"]
    store = sides.read().store
    with pytest.raises(CallFailed, match="could not be kept: a quantized tensor"):
        store.whole(1)


def test_hooks_of_leaves_are_kept_and_others_are_told_gone(sides: Sides) -> None:
    def run(store: ObjectStore) -> None:
        w = torch.ones(2, requires_grad=True)
        y = w * 2
        for key, (target, kind) in enumerate([(w, "gradient"), (w, "accumulated"), (y, "gradient")], 1):
            store.operation("tc.hook").function(store, target, kind, key, f"hook{key}")
        store.keep(1, w)
        store.keep(2, y)

    sides.queue.run(run).result(20)
    sides.write()
    store = sides.read().store
    assert sorted(store.callers_code.hooks) == [1, 2]
    assert list(store.callers_code.gone) == [3]
    with pytest.raises(RuntimeError, match="which only a pass that is waited for can run"):
        store.objects[1].sum().backward()


def _at(said: Any, path: tuple[Any, ...]) -> tuple[Any, Any]:
    for step in path[:-1]:
        said = said[step]
    return said, path[-1]


TAMPERED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "a size beyond the memory": (("tensors", 0, "shape"), [1 << 20, 4]),
    "a stride beyond the memory": (("tensors", 0, "stride"), [1 << 40, 1]),
    "a negative stride": (("tensors", 0, "stride"), [-4, 1]),
    "an offset beyond the memory": (("tensors", 0, "offset"), 1 << 50),
    "sizes whose product overflows": (("tensors", 0, "shape"), [1 << 40, 1 << 40]),
    "a stride too few": (("tensors", 0, "stride"), [4]),
    "another dtype": (("tensors", 0, "dtype"), "complex128"),
    "a dtype that is none": (("tensors", 0, "dtype"), "object"),
    "memory that is not there": (("tensors", 0, "memory"), 7),
    "memory before the first": (("tensors", 0, "memory"), -1),
    "a kind that is none": (("tensors", 0, "kind"), "pickle"),
    "a gradient that is not there": (("tensors", 0, "grad"), 99),
    "an object of a kind that is none": (("objects", 0), [1, ["module", "os"]]),
    "an id twice": (("objects", 0, 0), 2),
    "an optimiser that is none": (("objects", 2, 1, 1, 0), "system"),
    "an option that is none": (
        ("objects", 2, 1, 1, 1),
        ["list", [["dict", [["params", ["list", []]], ["hook", True]]]]],
    ),
    "state of what is no parameter": (("objects", 2, 1, 1, 3), ["list", [["tuple", [["tensor", 1], ["dict", []]]]]]),
    "a blob on a device that is none": (("memory", 0, "device"), "meta"),
    "a blob that is not there": (("memory", 0, "blob"), 99),
    "a random state that is none": (("state", "random"), 0),
    "a default dtype that is none": (("state", "dtype"), "int32"),
    "truths that are none": (("tensors", 1, "dtype"), "bool"),
    "an index beyond a sparse tensor": (("tensors", -1, "shape"), [1, 1]),
    "a version of tomorrow": (("snapshot",), 2),
}


@pytest.mark.parametrize(("path", "value"), TAMPERED.values(), ids=TAMPERED)
def test_what_was_tampered_with_is_refused(sides: Sides, path: tuple[Any, ...], value: Any) -> None:
    def made() -> dict[int, Any]:
        w = torch.randn(3, 4, requires_grad=True)
        sparse = _coo()
        return {
            1: w,
            2: torch.randint(2, 200, (8,), dtype=torch.uint8),
            3: make("SGD", [{"params": [w]}], {"lr": 0.1}),
            4: sparse,
        }

    sides.hold(made)
    sides.write()
    said = copy.deepcopy(sides.text)
    inside, name = _at(sides.text, path)
    inside[name] = value
    with pytest.raises((Damaged, InvalidArgument, RuntimeError, ValueError, TypeError, KeyError)):
        sides.read()
    sides.text = said
    sides.read()


def test_files_that_were_tampered_with_are_refused(sides: Sides, tmp_path: Path) -> None:
    sides.hold(lambda: {1: torch.randn(3, 4)})
    saved = sides.queue.run_in_pieces(lambda store: save(store, tmp_path)).result(20)
    assert (tmp_path / TENSORS).stat().st_mode & 0o777 == 0o600

    def read(told: Told) -> SessionQueue:
        queue = sides.engine.open_queue("me")
        queue.run_in_pieces(lambda store: load(store, tmp_path, told)).result(20)
        return queue

    assert torch.equal(read(saved.files).store.objects[1], sides.queue.store.objects[1])
    for name in saved.files:
        path = tmp_path / name
        whole = path.read_bytes()
        for data in (whole[:-9], whole[:-9] + b"?" + whole[-8:], b""):
            path.write_bytes(data)
            with pytest.raises(Damaged, match=name):
                read(saved.files)
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(OSError, match="symbolic links"):
            read(saved.files)
        path.unlink()
        path.write_bytes(whole)
    # Who has written both anew may have written anything.
    header, _ = header_of([("0", "float32", (2,))], {})
    (tmp_path / TENSORS).write_bytes(header + bytes(8))
    digest = hashlib.sha256(header + bytes(8)).hexdigest()
    with pytest.raises(Damaged, match="other blobs"):
        read(saved.files | {TENSORS: (len(header) + 8, digest)})
