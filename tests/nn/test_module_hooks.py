"""Modules that say how they are saved, loaded, called and moved, against torch: hooks, overriding, extra state."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch

from .side_by_side import Program, module, plain, seen


def net(namespace: Any) -> Any:
    """A small network with a buffer."""
    nn = namespace.nn
    return nn.Sequential(OrderedDict(first=nn.Linear(2, 3), norm=nn.BatchNorm1d(3), last=nn.Linear(3, 1)))


def x(namespace: Any) -> Any:
    """Some rows."""
    return namespace.arange(8.0).reshape(4, 2)


def _state_hooks(n: Any) -> Any:
    notes: list[Any] = []
    m = net(n)
    m.register_state_dict_pre_hook(lambda mod, prefix, keep: notes.append(("pre", prefix, keep)))
    m.first.register_state_dict_post_hook(lambda mod, state, prefix, meta: state.update({prefix + "more": 1}))
    handle = m._register_state_dict_hook(lambda mod, state, prefix, meta: {"all": sorted(state), "meta": dict(meta)})
    states = [m.state_dict(prefix="p.", keep_vars=True)]
    handle.remove()
    return [*states, m.state_dict(), notes]


def _bad_state_hook(n: Any) -> Any:
    m = net(n)
    m.register_state_dict_post_hook(lambda *args: 3)
    return m.state_dict()


def _load_hooks(n: Any) -> Any:
    notes: list[Any] = []
    m = net(n)
    state = m.state_dict()
    state["old.weight"] = state.pop("last.weight") * 2

    def rename(mod: Any, state: Any, prefix: str, *rest: Any) -> None:
        notes.append((type(mod).__name__, prefix, sorted(rest[0]), rest[1:]))
        state["last.weight"] = state.pop("old.weight")

    m.register_load_state_dict_pre_hook(rename)
    m.first._register_load_state_dict_pre_hook(lambda state, prefix, *rest: notes.append((prefix, sorted(state))))
    m.register_load_state_dict_post_hook(lambda mod, keys: keys.missing_keys.append("mine"))
    m.norm.register_load_state_dict_post_hook(lambda mod, keys: notes.append(list(keys.missing_keys)))
    result = m.load_state_dict(state, strict=False)
    return result, notes, m.last.weight


def _post_hook_empties(n: Any) -> Any:
    m = net(n)
    state = m.state_dict()
    del state["last.bias"]
    m.register_load_state_dict_post_hook(lambda mod, keys: keys.missing_keys.clear())
    return m.load_state_dict(state)


def _bad_load_hook(n: Any) -> Any:
    m = net(n)
    m.register_load_state_dict_post_hook(lambda mod, keys: 3)
    return m.load_state_dict(m.state_dict())


def _own_loading(n: Any) -> Any:
    class Old(n.nn.Linear):  # type: ignore[misc]
        _version = 3

        def _load_from_state_dict(
            self, state_dict: Any, prefix: str, local_metadata: Any, strict: Any, *rest: Any
        ) -> None:
            seen_versions.append((prefix, local_metadata.get("version")))
            if prefix + "w" in state_dict:
                state_dict[prefix + "weight"] = state_dict.pop(prefix + "w").t()
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *rest)

        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "w"] = destination.pop(prefix + "weight").t()

    seen_versions: list[Any] = []
    m = n.nn.ModuleDict({"a": Old(2, 3), "b": n.nn.Linear(1, 1)})
    state = m.state_dict()
    twin = n.nn.ModuleDict({"a": Old(2, 3), "b": n.nn.Linear(1, 1)})
    result = twin.load_state_dict(state)
    plain_result = twin.load_state_dict(dict(state))
    return result, plain_result, list(state), state._metadata, seen_versions, twin.a.weight - m.a.weight


def _extra(n: Any, getter: bool = True, setter: bool = True) -> Any:
    class Extra(n.nn.Linear):  # type: ignore[misc]
        count = 1

    if getter:
        Extra.get_extra_state = lambda self: {"count": self.count}
    if setter:
        Extra.set_extra_state = lambda self, state: setattr(self, "count", state["count"] + 1)
    m = n.nn.Sequential(Extra(1, 1))
    state = m.state_dict()
    result = m.load_state_dict(state)
    return list(state), result, m[0].count


def _old_batch_norm(n: Any) -> Any:
    m = net(n)
    state = {name: value for name, value in m.state_dict().items() if "num" not in name}
    return m.load_state_dict(state), m.norm.num_batches_tracked


def _assigned(n: Any) -> Any:
    m = net(n)
    state = {name: value.double() for name, value in m.state_dict().items()}
    weight = m.first.weight
    return m.load_state_dict(state, assign=True), m.first.weight is weight, m.first.weight, m.norm.running_mean


def _row_of_one(n: Any) -> Any:
    m = n.nn.Module()
    m.a = n.nn.Parameter(n.tensor(1.0))
    return m.load_state_dict({"a": n.tensor([3.0])}), m.a


def _overridden_modes(n: Any) -> Any:
    class Frozen(n.nn.BatchNorm1d):  # type: ignore[misc]
        def train(self, mode: bool = True) -> Any:
            return super().train(False)

    class Moved(n.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table = n.ones(2)

        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            super()._apply(fn, recurse)
            self.table = fn(self.table)
            return self

    m = n.nn.Sequential(Frozen(2), Moved(), n.nn.Dropout())
    m.train()
    m.double()
    return [child.training for child in m], m[1].table


def _all_modules(n: Any) -> Any:
    notes: list[Any] = []
    parts, m = module(n, "nn.modules.module"), net(n)
    handles = [
        parts.register_module_forward_pre_hook(lambda mod, args: notes.append((type(mod).__name__, len(args)))),
        parts.register_module_forward_hook(lambda mod, args, out: notes.append(tuple(out.shape))),
        parts.register_module_forward_hook(
            lambda mod, args, kwargs, out: out + 1 if isinstance(mod, n.nn.BatchNorm1d) else None, with_kwargs=True
        ),
    ]
    m.first.register_forward_hook(lambda mod, args, out: notes.append("own"))
    first = m(x(n))
    for handle in handles:
        handle.remove()
    return first, m(x(n)), notes


def _registration(n: Any) -> Any:
    notes: list[Any] = []
    parts = module(n, "nn.modules.module")
    handles = [
        parts.register_module_parameter_registration_hook(lambda m, name, p: notes.append((name, tuple(p.shape)))),
        parts.register_module_buffer_registration_hook(lambda m, name, b: notes.append((name, b is None))),
        parts.register_module_module_registration_hook(lambda m, name, c: notes.append((name, type(c).__name__))),
        parts.register_module_module_registration_hook(
            lambda m, name, c: n.nn.Tanh() if isinstance(c, n.nn.ReLU) else None
        ),
    ]
    m = n.nn.Sequential(n.nn.Linear(2, 3), n.nn.ReLU(), n.nn.BatchNorm1d(3))
    for handle in handles:
        handle.remove()
    return m, notes


def _always_called(n: Any) -> Any:
    notes: list[Any] = []
    m = n.nn.Sequential(n.nn.Module())
    m.register_forward_hook(lambda mod, args, out: notes.append(out is None), always_call=True)
    m.register_forward_hook(lambda mod, args, out: notes[7], always_call=True)
    try:
        m(n.ones(5))
    except NotImplementedError:
        notes.append("failed")
    return notes, len(m._forward_hooks), len(m._forward_hooks_always_called)


def _tables(n: Any) -> Any:
    m = net(n)
    handle = m.register_forward_hook(lambda *args: None, with_kwargs=True)
    before = [len(m._forward_hooks), list(m._forward_hooks_with_kwargs.values())]
    m._forward_hooks.clear()
    handle.remove()
    return before, m._modules, m._parameters, m.first._parameters, m._buffers, m.norm._buffers, m._forward_hooks


def _prepended(n: Any) -> Any:
    notes: list[Any] = []
    m = n.nn.Linear(2, 1)
    m.register_forward_hook(lambda *args: notes.append(1))
    with m.register_forward_hook(lambda *args: notes.append(2), prepend=True):
        m(x(n))
    m.register_forward_pre_hook(lambda mod, args, kwargs: (args, kwargs), with_kwargs=True)
    m(input=x(n))
    m.register_forward_pre_hook(lambda mod, args, kwargs: 3, with_kwargs=True)
    try:
        m(x(n))
    except RuntimeError as error:
        notes.append(str(error))
    return notes


def _copied(n: Any) -> Any:
    notes: list[Any] = []
    m = net(n)
    m.register_forward_hook(lambda mod, args, out: notes.append(mod is m))
    m.register_load_state_dict_pre_hook(lambda mod, *rest: notes.append(("load", mod is m)))
    twin = copy.deepcopy(m)
    twin(x(n))
    twin.load_state_dict(m.state_dict())
    m(x(n))
    return notes, twin


def _old_pickle(n: Any) -> Any:
    m = n.nn.Linear(2, 1)
    state = {name: value for name, value in m.__dict__.items() if "state" not in name and "with" not in name}
    made = n.nn.Linear.__new__(n.nn.Linear)
    made.__setstate__(state)
    return made(x(n)) - m(x(n)), made.state_dict()


def _super_init(n: Any) -> Any:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    class Both(n.nn.Module, Named):  # type: ignore[misc]
        call_super_init = True

    return Both("me").name, len(Both("me")._parameters)


def _members(n: Any) -> Any:
    m = net(n)
    m.tied = m.first
    return (
        [name for name, _ in m._named_members(lambda one: one._modules.items(), prefix="p")],
        [name for name, _ in m.named_modules(memo={m.first})],
        [name for name, _ in m.named_parameters(remove_duplicate=False)],
    )


def _submodules(n: Any) -> Any:
    m = n.nn.Sequential(net(n))
    m.set_submodule("0.last", n.nn.Identity())
    m.set_submodule("0.new", n.nn.Identity())
    return m


def _empty(n: Any) -> Any:
    m = net(n).to(n.float64).to_empty(device="cpu")
    return [(name, value.dtype, tuple(value.shape)) for name, value in m.state_dict().items()], m.first.weight.is_leaf


def _no_submodule(target: str, **options: Any) -> Program:
    return lambda n: net(n).set_submodule(target, n.nn.ReLU(), **options)


PROGRAMS: dict[str, Program] = {
    "state hooks": _state_hooks,
    "a state hook that returns": _bad_state_hook,
    "load hooks": _load_hooks,
    "a load hook that forgives": _post_hook_empties,
    "a load hook that returns": _bad_load_hook,
    "loading of its own": _own_loading,
    "extra state": _extra,
    "extra state that is not taken": lambda n: _extra(n, setter=False),
    "extra state that is not given": lambda n: _extra(n, getter=False),
    "extra state of none": lambda n: net(n).get_extra_state(),
    "an old batch norm": _old_batch_norm,
    "versions": lambda n: net(n).state_dict()._metadata,
    "assigned": _assigned,
    "a row of one": _row_of_one,
    "a state of numbers": lambda n: net(n).load_state_dict({"first.weight": 3, "first.bias": [1.0]}, strict=False),
    "shapes": lambda n: net(n).load_state_dict({"first.weight": n.ones(3)}, strict=False),
    "missing and unexpected": lambda n: net(n).load_state_dict({"a": n.ones(1), "first.b.c": n.ones(1)}),
    "missing and unexpected, not strict": lambda n: net(n).load_state_dict({"a": 1, "last.b": 2}, strict=False),
    "positional state": lambda n: net(n).state_dict(OrderedDict(), "p."),
    "modes of its own": _overridden_modes,
    "hooks of all modules": _all_modules,
    "hooks of registration": _registration,
    "hooks of failures": _always_called,
    "tables": _tables,
    "order of hooks": _prepended,
    "copied with hooks": _copied,
    "an old pickle": _old_pickle,
    "init of a mixin": _super_init,
    "arguments of init": lambda n: n.nn.Module(3),
    "keywords of init": lambda n: n.nn.Module(a=3),
    "members": _members,
    "submodules": _submodules,
    "no submodule": _no_submodule(""),
    "submodule in the place of a parameter": _no_submodule("first.weight"),
    "strict submodule": _no_submodule("first.new", strict=True),
    "submodule below none": _no_submodule("none.new"),
    "empty": _empty,
    "attributes": lambda n: [n.nn.Module.dump_patches, n.nn.Module._version, n.nn.Module.call_super_init],
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_module_does_as_torch_s(tc: Any, program: Program) -> None:
    assert seen(program, tc) == seen(program, torch)


# What has no place here: other accelerators, and torch's own way of tracing and of copying to several devices.
WITHOUT = {
    *("ipu", "mtia", "xpu", "_slow_forward", "_wrapped_call_impl", "_replicate_for_data_parallel"),
    *("_get_backward_hooks", "_get_backward_pre_hooks", "_maybe_warn_non_full_backward_hook", "_is_full_backward_hook"),
    *("_backward_hooks", "_backward_pre_hooks"),
}


def test_a_module_has_every_attribute_of_torch_s(tc: Any) -> None:
    assert set(dir(torch.nn.Module())) - set(dir(tc.nn.Module())) <= WITHOUT


# compile


def _compiled(n: Any) -> Any:
    m = net(n)
    made = n.compile(m)
    made.extra = 3
    made.eval()
    return (
        made,
        [name for name, _ in made.named_parameters()],
        [name for name, _ in made.named_modules()],
        made.state_dict(),
        made.first.weight is m.first.weight,
        (m.extra, m.training, made.training, len(made), made._orig_mod is m),
        type(made).__name__,
    )


def _compiled_state(n: Any) -> Any:
    m = n.compile(n.nn.Linear(2, 1))
    state = {name.removeprefix("_orig_mod."): value * 2 for name, value in m.state_dict().items()}
    m._orig_mod.load_state_dict(state)
    m.weight = n.nn.Parameter(n.zeros(1, 2))
    m.register_buffer("b", n.ones(1))
    return m.state_dict(), m.load_state_dict(m.state_dict()), list(m._orig_mod._buffers)


COMPILED: dict[str, Program] = {
    "names": _compiled,
    "state": _compiled_state,
    "unknown attribute": lambda n: n.compile(n.nn.Linear(1, 1)).nonsense,
    "no length": lambda n: len(n.compile(n.nn.Linear(1, 1))),
    "no function": lambda n: n.compile(3),
    "disabled": lambda n: n.compile(net(n), disable=True),
    "a copy": lambda n: copy.deepcopy(n.compile(net(n))),
}


@pytest.mark.parametrize("program", COMPILED.values(), ids=COMPILED.keys())
def test_a_compiled_module_has_the_names_of_torch_s(tc: Any, program: Program) -> None:
    assert seen(program, tc) == seen(program, torch)


@pytest.mark.parametrize("fullgraph", [False, True], ids=["as it is", "recorded"])
def test_a_compiled_module_computes_what_the_module_does(tc: Any, fullgraph: bool) -> None:
    tc.manual_seed(1)
    m, rows, calls = net(tc), x(tc), []
    m.register_forward_pre_hook(lambda *args: calls.append(1))
    compiled = tc.compile(m.eval(), mode="reduce-overhead") if not fullgraph else tc.compile(m.eval(), fullgraph=True)
    expected = plain(m(rows))
    for _ in range(3):
        assert plain(compiled(rows)) == expected
    assert len(calls) == (2 if fullgraph else 4)
    twin = copy.deepcopy(compiled)
    compiled.first.weight.data.zero_()
    assert plain(compiled(rows)) != expected == plain(twin(rows))
    m.compile(fullgraph=fullgraph)
    assert plain(m(rows)) == plain(compiled(rows))
    assert "_orig_mod" not in repr(m.state_dict().keys())
