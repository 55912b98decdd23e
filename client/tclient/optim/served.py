"""Optimisers that run on the server beside the parameters: one call a step.

Knows groups and options; the state and the arithmetic are the server's, where torch's own optimiser is. An option that
has changed since the last step travels with the next one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import tclient
from tclient.nn._core import Tensor, call_builtin
from tclient.optim.optimizer import PARAMS, Optimizer, Params, groups_of, listed_group, named_params, split_group


class ServedOptimizer(Optimizer):
    """One of torch's optimisers, by its kind."""

    kind: ClassVar[str]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        groups = [listed_group(entry) for entry in groups_of(params)]
        self._remote = call_builtin("tc.optimizer", self.kind, groups, defaults)
        # This waits: wrong options are refused here, as in torch, and not at the first step.
        self._known: list[dict[str, Any]] = call_builtin("tc.optimizer_describe", self._remote)
        self.param_groups = [
            {**split_group(group), **options} for group, options in zip(groups, self._known, strict=True)
        ]
        self._prepare()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along the gradients, one call; with a closure, that is run first and its loss returned."""
        loss = None
        if closure is not None:
            with tclient.enable_grad():
                loss = closure()
        call_builtin("tc.optimizer_step", self._remote, self._changes())
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Lets go of the gradients of all parameters, or fills them with zeros; one call."""
        call_builtin("tc.optimizer_zero_grad", self._remote, set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with options of their own."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = listed_group(param_group)
        call_builtin("tc.optimizer_add_group", self._remote, group)
        self._known = call_builtin("tc.optimizer_describe", self._remote)
        self.param_groups.append({**split_group(group), **self._known[-1]})

    def _changes(self) -> list[dict[str, Any]]:
        """The options that differ from what the server knows, a mapping for each group; nothing if none does."""
        changes = [
            {
                name: group[name]
                for name, known in options.items()
                if group[name] is not known and (isinstance(group[name], Tensor) or group[name] != known)
            }
            for group, options in zip(self.param_groups, self._known, strict=True)
        ]
        if not any(changes):
            return []
        for options, changed in zip(self._known, changes, strict=True):
            options.update(changed)
        return changes

    @property
    def state(self) -> dict[Any, dict[str, Any]]:
        """What is remembered for each parameter; asked of the server."""
        parameters = self._all_params()
        return {parameters[index]: entries for index, entries in self._packed_state().items()}

    def _packed_state(self) -> dict[int, dict[str, Any]]:
        names, values = call_builtin("tc.optimizer_state", self._remote)
        state: dict[int, dict[str, Any]] = {}
        for (index, name), value in zip(names, values, strict=True):
            state.setdefault(index, {})[name] = value
        return state

    def _take_state(self, state: Mapping[Any, Any], groups: list[dict[str, Any]]) -> None:
        names: list[list[Any]] = []
        values: list[Any] = []
        for index, entries in state.items():
            for name, value in entries.items():
                names.append([int(index), name])
                values.append(_value(value))
        known = [
            {name: value for name, value in group.items() if name in options}
            for group, options in zip(groups, self._known, strict=True)
        ]
        wanted = [{**options, "params": list(new["params"])} for options, new in zip(known, groups, strict=True)]
        call_builtin("tc.optimizer_load_state", self._remote, names, values, wanted)
        self._known = call_builtin("tc.optimizer_describe", self._remote)
        for group, new, options in zip(self.param_groups, groups, self._known, strict=True):
            group.update({name: value for name, value in new.items() if name not in PARAMS})
            group.update(options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Makes it anew on the server, of what `__getstate__` gave; also in another process."""
        state = dict(state)
        remembered: dict[Any, dict[str, Any]] = state.pop("state")
        self.__dict__.update(state)
        self._prepare()
        numbers = {param: number for number, param in enumerate(self._all_params())}
        pairs = [([numbers[p], name], value) for p, entries in remembered.items() for name, value in entries.items()]
        self._known = []
        self._begin_again([name for name, _ in pairs], [value for _, value in pairs])

    def _begin_again(self, names: list[list[Any]], values: list[Any]) -> None:
        """Has the server make it, of the groups and with what was remembered by these names."""
        groups = [
            {**{name: group[name] for name in self.defaults if name in group}, "params": named_params(group)}
            for group in self.param_groups
        ]
        self._remote = call_builtin("tc.optimizer", self.kind, groups, self.defaults)
        if not self._known:
            self._known = call_builtin("tc.optimizer_describe", self._remote)
        self._known = [
            {name: group[name] for name in options}
            for group, options in zip(self.param_groups, self._known, strict=True)
        ]
        wanted = [
            {**options, "params": list(range(len(group["params"])))}
            for group, options in zip(self.param_groups, self._known, strict=True)
        ]
        call_builtin("tc.optimizer_load_state", self._remote, names, values, wanted)

    def __deepcopy__(self, memo: dict[int, Any]) -> Optimizer:
        """An optimiser of copies of the parameters, as in torch; those that memo knows already are not copied again."""
        made = memo[id(self)] = object.__new__(type(self))
        for name, value in self.__dict__.items():
            if name != "_remote":
                made.__dict__[name] = copy.deepcopy(value, memo)
        made._known = self._known
        names, values = call_builtin("tc.optimizer_state", self._remote)
        made._begin_again(names, copy.deepcopy(values, memo))
        return made


def _value(value: Any) -> Any:
    plain = value is None or isinstance(value, Tensor | bool | int | float)
    return value if plain else tclient.as_tensor(value)
