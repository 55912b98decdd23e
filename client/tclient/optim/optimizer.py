"""The base of all optimisers: groups of parameters with options, and one call a step.

Knows groups and options; the state and the arithmetic are the server's, where torch's own optimiser runs beside the
parameters. An option that has changed since the last step travels with the next one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import tclient
from tclient.nn._core import Tensor, call_builtin

Params = Iterable[Any]
_PARAMS = frozenset({"params", "param_names"})


class Optimizer:
    """Parameters, and how they follow their gradients.

    Args:
        params: tensors, pairs of a name and a tensor, or mappings with "params" and options of their own.
        defaults: the options of all groups that have none of their own.

    Raises: what torch raises for the same options, when it is made.
    """

    kind: ClassVar[str]
    param_groups: list[dict[str, Any]]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                f"{type(params).__name__}"
            )
        self.defaults = defaults
        entries = list(params)
        if not entries:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(entries[0], dict):
            entries = [{"params": entries}]
        groups = [_group(entry) for entry in entries]
        self._remote = call_builtin("tc.optimizer", self.kind, groups, defaults)
        # This waits: wrong options are refused here, as in torch, and not at the first step.
        self._known: list[dict[str, Any]] = call_builtin("tc.optimizer_describe", self._remote)
        self.param_groups = [{**_split(group), **options} for group, options in zip(groups, self._known, strict=True)]
        self._stepped = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along the gradients, one call; with a closure, that is run first and its loss returned."""
        loss = None
        if closure is not None:
            with tclient.enable_grad():
                loss = closure()
        call_builtin("tc.optimizer_step", self._remote, self._changes())
        self._stepped = True
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Lets go of the gradients of all parameters, or fills them with zeros; one call."""
        call_builtin("tc.optimizer_zero_grad", self._remote, set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with options of their own."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = _group(param_group)
        call_builtin("tc.optimizer_add_group", self._remote, group)
        self._known = call_builtin("tc.optimizer_describe", self._remote)
        self.param_groups.append({**_split(group), **self._known[-1]})

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
        parameters = [param for group in self.param_groups for param in group["params"]]
        return {parameters[index]: entries for index, entries in self._state().items()}

    def _state(self) -> dict[int, dict[str, Any]]:
        names, values = call_builtin("tc.optimizer_state", self._remote)
        state: dict[int, dict[str, Any]] = {}
        for (index, name), value in zip(names, values, strict=True):
            state.setdefault(index, {})[name] = value
        return state

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, by the number of the parameter, and the options of each group."""
        groups = []
        start = 0
        for group in self.param_groups:
            count = len(group["params"])
            options = {name: value for name, value in group.items() if name != "params"}
            groups.append({**options, "params": list(range(start, start + count))})
            start += count
        return {"state": self._state(), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave; numpy arrays will do for tensors.

        Raises: ValueError if there are other groups, or other numbers of parameters in them.
        """
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(new["params"]) != len(old["params"]) for new, old in zip(groups, self.param_groups, strict=True)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        names: list[list[Any]] = []
        values: list[Any] = []
        for index, entries in state_dict["state"].items():
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
            group.update({name: value for name, value in new.items() if name not in _PARAMS})
            group.update(options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Optimizer:
        """An optimiser of copies of the parameters, as in torch; those that memo knows already are not copied again."""
        made = memo[id(self)] = object.__new__(type(self))
        for name, value in self.__dict__.items():
            if name != "_remote":
                made.__dict__[name] = copy.deepcopy(value, memo)
        made._known = [
            {name: group[name] for name in options}
            for group, options in zip(made.param_groups, self._known, strict=True)
        ]
        groups = [
            {**{name: group[name] for name in made.defaults if name in group}, "params": _named(group)}
            for group in made.param_groups
        ]
        made._remote = call_builtin("tc.optimizer", self.kind, groups, made.defaults)
        names, values = call_builtin("tc.optimizer_state", self._remote)
        wanted = [
            {**options, "params": list(range(len(group["params"])))}
            for group, options in zip(made.param_groups, made._known, strict=True)
        ]
        call_builtin("tc.optimizer_load_state", made._remote, names, copy.deepcopy(values, memo), wanted)
        return made

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for index, group in enumerate(self.param_groups):
            text += f"\nParameter Group {index}\n"
            for name in sorted(group):
                if name != "params":
                    text += f"    {name}: {group[name]}\n"
        return text + ")"


def _group(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A group as it travels: its parameters a list."""
    if "params" not in entry:
        raise KeyError("params")
    params = entry["params"]
    if isinstance(params, set):
        raise TypeError(
            "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
            "will change between runs. Please use a list instead."
        )
    params = [params] if isinstance(params, Tensor) else list(params)
    for param in params:
        tensor = param[1] if isinstance(param, tuple) and len(param) == 2 else param
        if not isinstance(tensor, Tensor):
            raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(tensor).__name__}")
    return {**entry, "params": params}


def _split(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group as the caller sees it: tensors, and their names if they were given."""
    params = group["params"]
    if params and isinstance(params[0], tuple):
        return {**group, "params": [tensor for _, tensor in params], "param_names": [name for name, _ in params]}
    return dict(group)


def _named(group: Mapping[str, Any]) -> list[Any]:
    """The parameters of a group as they travel, with their names if they have any."""
    params: list[Any] = group["params"]
    return list(zip(group["param_names"], params, strict=True)) if "param_names" in group else params


def _value(value: Any) -> Any:
    plain = value is None or isinstance(value, Tensor | bool | int | float)
    return value if plain else tclient.as_tensor(value)
