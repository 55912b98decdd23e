"""Optimisers that live beside the parameters they change, one call a step.

Knows torch; does not know gRPC or sessions. Each is a real `torch.optim` instance over the very parameter tensors, so
its numbers are torch's. Only the kinds and options named here can be asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

_IMPLEMENTATION = ("maximize", "foreach")

KINDS: dict[str, tuple[type[torch.optim.Optimizer], frozenset[str]]] = {
    name: (kind, frozenset((*options, *_IMPLEMENTATION)))
    for name, kind, options in (
        ("SGD", torch.optim.SGD, ("lr", "momentum", "dampening", "weight_decay", "nesterov", "fused")),
        (
            "Adam",
            torch.optim.Adam,
            ("lr", "betas", "eps", "weight_decay", "amsgrad", "fused", "capturable", "decoupled_weight_decay"),
        ),
        ("AdamW", torch.optim.AdamW, ("lr", "betas", "eps", "weight_decay", "amsgrad", "fused", "capturable")),
        ("Adamax", torch.optim.Adamax, ("lr", "betas", "eps", "weight_decay", "capturable")),
        (
            "NAdam",
            torch.optim.NAdam,
            ("lr", "betas", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay", "capturable"),
        ),
        ("RAdam", torch.optim.RAdam, ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay", "capturable")),
        (
            "Adagrad",
            torch.optim.Adagrad,
            ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps", "fused"),
        ),
        ("Adadelta", torch.optim.Adadelta, ("lr", "rho", "eps", "weight_decay", "capturable")),
        (
            "RMSprop",
            torch.optim.RMSprop,
            ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "capturable"),
        ),
        ("Rprop", torch.optim.Rprop, ("lr", "etas", "step_sizes", "capturable")),
        ("ASGD", torch.optim.ASGD, ("lr", "lambd", "alpha", "t0", "weight_decay", "capturable")),
        ("Adafactor", torch.optim.Adafactor, ("lr", "beta2_decay", "eps", "d", "weight_decay")),
        ("SparseAdam", torch.optim.SparseAdam, ("lr", "betas", "eps")),
        (
            "Muon",
            torch.optim.Muon,
            (*("lr", "weight_decay", "momentum", "nesterov", "ns_coefficients", "eps", "ns_steps"), "adjust_lr_fn"),
        ),
    )
}
"""The optimisers and their options."""

_PARAMS = frozenset({"params", "param_names"})
# Options that name one of torch's own ways.
_TEXTS = frozenset({"adjust_lr_fn"})
Group = Mapping[str, Any]


class Optimizer:
    """One optimiser over tensors of a session."""

    __slots__ = ("_inner", "_kind", "_options")
    held_as: ClassVar[str] = "optimizer"

    def __init__(self, kind: str, groups: Sequence[Group], defaults: Mapping[str, Any]) -> None:
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(KINDS)}"
            raise ValueError(f"optimizer: there is no optimiser {kind!r}; {hint}")
        factory, self._options = KINDS[kind]
        self._kind = kind
        for name, value in defaults.items():
            self._check(name, value)
        self._inner = factory([self._group(group) for group in groups], **defaults)

    def step(self, updates: Sequence[Group]) -> None:
        """One step; updates has one mapping a group, the options that have changed since the last call."""
        self._update(updates)
        self._check_fused()
        self._inner.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Lets go of the gradients of all parameters, or fills them with zeros."""
        self._inner.zero_grad(set_to_none=set_to_none)

    def add_group(self, group: Group) -> None:
        """Adds parameters with options of their own."""
        self._inner.add_param_group(self._group(group))

    def describe(self) -> list[dict[str, Any]]:
        """The options of each group as torch has completed them, without the parameters."""
        return [
            {name: value for name, value in group.items() if name not in _PARAMS} for group in self._inner.param_groups
        ]

    @property
    def kind(self) -> str:
        """Which of KINDS it is."""
        return self._kind

    def written(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[tuple[Tensor, dict[str, Any]]]]:
        """All that it is made of: its groups, its defaults, and what it remembers of each parameter."""
        inner = self._inner
        known = self._options | _PARAMS
        groups = [{name: value for name, value in group.items() if name in known} for group in inner.param_groups]
        defaults = {name: value for name, value in inner.defaults.items() if name in self._options}
        return groups, defaults, [(param, dict(entries)) for param, entries in inner.state.items()]

    @classmethod
    def of(cls, kind: Any, groups: Any, defaults: Any, state: Any) -> Optimizer:
        """One that was written. Raises: ValueError, TypeError, and what torch raises."""
        optimizer = make(kind, [{"params": group["params"]} for group in groups], defaults)
        for group, told in zip(optimizer._inner.param_groups, groups, strict=True):
            for name, value in told.items():
                if name == "param_names":
                    if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
                        raise TypeError("optimizer: names of parameters are texts")
                    group[name] = value
                elif name != "params":
                    optimizer._check(name, value)
                    group[name] = value
        params = {id(param): param for group in optimizer._inner.param_groups for param in group["params"]}
        optimizer._inner.state.clear()
        for param, entries in state:
            if id(param) not in params or not all(
                _is_plain(each) or isinstance(each, Tensor) for each in entries.values()
            ):
                raise ValueError("optimizer: something is remembered of what is no parameter, or that is no number")
            optimizer._inner.state[param] = dict(entries)
        return optimizer

    def held_tensors(self) -> list[Tensor]:
        """The tensors that live as long as the optimiser does: the parameters, and what is remembered for them."""
        tensors = [param for group in self._inner.param_groups for param in group["params"]]
        for entries in self._inner.state.values():
            tensors += [value for value in entries.values() if isinstance(value, Tensor)]
        return tensors

    def state(self) -> tuple[list[list[Any]], list[Any]]:
        """What the optimiser remembers: names as [index of the parameter, name], and values in the same order."""
        names: list[list[Any]] = []
        values: list[Any] = []
        for index, entries in self._inner.state_dict()["state"].items():
            for name, value in entries.items():
                names.append([index, name])
                values.append(value)
        return names, values

    def load_state(self, names: Sequence[Sequence[Any]], values: Sequence[Any], groups: Sequence[Group]) -> None:
        """Replaces what the optimiser remembers, and the options of its groups.

        Raises: ValueError when there are other groups or parameters than the optimiser has.
        """
        if len(names) != len(values):
            raise ValueError(f"optimizer: {len(values)} values for {len(names)} names of state; give one for each")
        current = self._inner.state_dict()["param_groups"]
        if len(groups) != len(current):
            raise ValueError("loaded state dict has a different number of parameter groups")
        merged = []
        for old, new in zip(current, groups, strict=True):
            options = {name: value for name, value in new.items() if name not in _PARAMS and name in self._options}
            for name, value in options.items():
                self._check(name, value)
            if len(new.get("params", ())) != len(old["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
                )
            merged.append({**old, **options})
        state: dict[int, dict[str, Any]] = {}
        for (index, name), value in zip(names, values, strict=True):
            if not isinstance(index, int) or not isinstance(name, str):
                raise TypeError(f"optimizer: state is named {[index, name]!r}; give [index, name]")
            state.setdefault(index, {})[name] = value
        self._inner.load_state_dict({"state": state, "param_groups": merged})

    def _update(self, updates: Sequence[Group]) -> None:
        if len(updates) > len(self._inner.param_groups):
            raise ValueError(
                f"optimizer: options for {len(updates)} groups, but there are {len(self._inner.param_groups)}"
            )
        for changes in updates:
            for name, value in changes.items():
                self._check(name, value)
        for group, changes in zip(self._inner.param_groups, updates, strict=False):
            group.update(changes)

    def _check_fused(self) -> None:
        """Refuse what fused kernels would take the parameter's size for: they look at no other's."""
        for group in self._inner.param_groups:
            if not group.get("fused"):
                continue
            for param in group["params"]:
                if param.grad is None:
                    continue
                given = {"gradient": param.grad, **self._inner.state.get(param, {}), "parameter": param}
                for name, value in given.items():
                    if name != "step" and isinstance(value, Tensor) and not _is_like(value, param):
                        raise RuntimeError(
                            f"optimizer: {self._kind} with fused=True has a {name} of shape {list(value.shape)} and "
                            f"strides {list(value.stride())} for a parameter of shape {list(param.shape)}; make it one "
                            "of the same shape that has memory for each element, or use fused=False"
                        )

    def _group(self, group: Group) -> dict[str, Any]:
        if "params" not in group:
            raise TypeError("optimizer: a group has no 'params'; give it a list of parameters")
        for name, value in group.items():
            if name != "params":
                self._check(name, value)
        params = [tuple(param) if isinstance(param, list) else param for param in group["params"]]
        return {**group, "params": params}

    def _check(self, name: str, value: Any) -> None:
        if name not in self._options:
            raise TypeError(f"{self._kind}.__init__() got an unexpected keyword argument '{name}'")
        if isinstance(value, list | tuple) and all(_is_plain(item) for item in value):
            return
        if name in _TEXTS and isinstance(value, str):
            return
        if not _is_plain(value) and not isinstance(value, Tensor):
            raise TypeError(f"optimizer: {name} is a {type(value).__name__}; give a number")


def _is_like(tensor: Tensor, param: Tensor) -> bool:
    """Whether it has the shape, and memory for each of its elements. torch itself compares dtypes and devices."""
    room = tensor.untyped_storage().nbytes() - tensor.storage_offset() * tensor.itemsize
    return tensor.shape == param.shape and tensor.numel() * tensor.itemsize <= room


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def make(kind: Any, groups: Sequence[Any], defaults: Mapping[str, Any]) -> Optimizer:
    """An optimiser of that kind.

    Raises: ValueError for a kind that is not there, TypeError for an option it lacks, and what torch raises.
    """
    if not isinstance(kind, str):
        raise TypeError(f"optimizer: kind is a {type(kind).__name__}; give one of {', '.join(KINDS)}")
    if not all(isinstance(group, Mapping) for group in groups):
        raise TypeError("optimizer: groups has something else than mappings; give a list of mappings with 'params'")
    return Optimizer(kind, groups, defaults)


def _optimizer(value: Any) -> Optimizer:
    if not isinstance(value, Optimizer):
        raise TypeError(f"optimizer: got a {type(value).__name__}; give what tc.optimizer returned")
    return value


BUILTIN_OPERATIONS: dict[str, Callable[..., Any]] = {
    "tc.optimizer": make,
    "tc.optimizer_describe": lambda optimizer: _optimizer(optimizer).describe(),
    "tc.optimizer_step": lambda optimizer, updates: _optimizer(optimizer).step(updates),
    "tc.optimizer_zero_grad": lambda optimizer, set_to_none=True: _optimizer(optimizer).zero_grad(set_to_none),
    "tc.optimizer_add_group": lambda optimizer, group: _optimizer(optimizer).add_group(group),
    "tc.optimizer_state": lambda optimizer: _optimizer(optimizer).state(),
    "tc.optimizer_load_state": lambda optimizer, names, values, groups: _optimizer(optimizer).load_state(
        names, values, groups
    ),
}
"""What the engine adds to torch's operations."""
