"""The base of all optimisers: groups of parameters with options, what is remembered for each, and hooks.

Knows groups and options; does not know how an algorithm steps. A class of the caller's that has its own `step` runs
here, operation by operation; those of torch.optim run on the server (served.py).
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import tclient
from tclient.nn._core import Tensor
from tclient.nn._hooks import RemovableHandle, add

Params = Iterable[Any]
ParamsT = Params


class _RequiredParameter:
    """In the place of a default: every group has to say it."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _RequiredParameter()

_global_optimizer_pre_hooks: OrderedDict[int, Any] = OrderedDict()
_global_optimizer_post_hooks: OrderedDict[int, Any] = OrderedDict()

# The hooks of one optimiser, by the attribute that holds them.
_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Calls hook(optimizer, args, kwargs) before each step of any optimiser."""
    return add(_global_optimizer_pre_hooks, hook, False)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Calls hook(optimizer, args, kwargs) after each step of any optimiser."""
    return add(_global_optimizer_post_hooks, hook, False)


class Optimizer:
    """Parameters, and how they follow their gradients.

    Args:
        params: tensors, pairs of a name and a tensor, or mappings with "params" and options of their own.
        defaults: the options of all groups that have none of their own.

    Raises: what torch raises for the same options, when it is made.

    Example:
        >>> class Descent(tclient.optim.Optimizer):
        ...     def __init__(self, params, lr):
        ...         super().__init__(params, {"lr": lr})
        ...     @tclient.no_grad()
        ...     def step(self, closure=None):
        ...         for group in self.param_groups:
        ...             for p in group["params"]:
        ...                 if p.grad is not None:
        ...                     p.add_(p.grad, alpha=-group["lr"])
    """

    OptimizerPreHook = Callable[..., Any]
    OptimizerPostHook = Callable[..., Any]

    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._prepare()
        self.state: Any = defaultdict(dict)
        self.param_groups = []
        for group in groups_of(params):
            self.add_param_group(group)

    def _prepare(self) -> None:
        """What an optimiser has besides its groups and its state, also one that is copied."""
        for name in _HOOKS:
            self.__dict__.setdefault(name, OrderedDict())
        # Whether a schedule looks at the steps, and whether there was one since then.
        self._watched = self._stepped = False
        self._patch_step_function()

    def _patch_step_function(self) -> None:
        """Has the class's own step run the hooks; once for each class."""
        kind: Any = type(self)
        if not getattr(kind.step, "hooked", False):
            kind.step = self.profile_hook_step(kind.step)

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """The function that runs a step with its hooks."""

        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self: Optimizer = args[0]
            hooks = itertools.chain(_global_optimizer_pre_hooks.values(), self._hooked("step_pre"))
            for hook in tuple(hooks):
                changed = hook(self, args, kwargs)
                if changed is not None:
                    if not isinstance(changed, tuple) or len(changed) != 2:
                        raise RuntimeError(
                            f"{func} must return None or a tuple of (new_args, new_kwargs), but got {changed}."
                        )
                    args, kwargs = changed
            result = func(*args, **kwargs)
            self._stepped = self._watched
            for hook in tuple(itertools.chain(self._hooked("step_post"), _global_optimizer_post_hooks.values())):
                hook(self, args, kwargs)
            return result

        wrapper.hooked = True  # type: ignore[attr-defined]
        return wrapper

    def _hooked(self, what: str) -> tuple[Callable[..., Any], ...]:
        return tuple(self.__dict__.get(f"_optimizer_{what}_hooks", {}).values())

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls hook(optimizer, args, kwargs) before each step; it may return other args and kwargs."""
        return add(self.__dict__["_optimizer_step_pre_hooks"], hook, False)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls hook(optimizer, args, kwargs) after each step."""
        return add(self.__dict__["_optimizer_step_post_hooks"], hook, False)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Calls hook(optimizer) before `state_dict`."""
        return add(self.__dict__["_optimizer_state_dict_pre_hooks"], hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Calls hook(optimizer, state) after `state_dict`; what it returns, unless None, replaces the state."""
        return add(self.__dict__["_optimizer_state_dict_post_hooks"], hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Calls hook(optimizer, state) before `load_state_dict`; what it returns, unless None, is loaded."""
        return add(self.__dict__["_optimizer_load_state_dict_pre_hooks"], hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Calls hook(optimizer) after `load_state_dict`."""
        return add(self.__dict__["_optimizer_load_state_dict_post_hooks"], hook, prepend)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along the gradients; subclasses define it."""
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Lets go of the gradients of all parameters, or fills them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif (grad := param.grad) is not None:
                    grad.detach_().zero_()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with options of their own."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        listed = listed_group(param_group)
        names = [param[0] for param in listed["params"] if isinstance(param, tuple)]
        if names and len(names) != len(listed["params"]):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        group = split_group(listed)
        for param in group["params"]:
            # A parameter of a module is a leaf; of others the server knows.
            if not isinstance(param, tclient.nn.Parameter) and not (param.is_leaf or param.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            group.setdefault(name, default)
        params = set(group["params"])
        if len(params) != len(group["params"]):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause an error; "
                "see github.com/pytorch/pytorch/issues/40967 for more information",
                stacklevel=3,
            )
        if any(not params.isdisjoint(other["params"]) for other in self.param_groups):
            raise ValueError("some parameters appear in more than one parameter group")
        if self.param_groups and ("param_names" in group) != ("param_names" in self.param_groups[0]):
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group "
                f"{'with' if names else 'without'} names to the optimizer"
            )
        param_group.update(group)
        self.param_groups.append(param_group)

    # State

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, by the number of the parameter, and the options of each group."""
        for hook in self._hooked("state_dict_pre"):
            hook(self)
        groups = []
        start = 0
        for group in self.param_groups:
            count = len(group["params"])
            options = {name: value for name, value in group.items() if name != "params"}
            groups.append({**options, "params": list(range(start, start + count))})
            start += count
        state: dict[str, Any] = {"state": self._packed_state(), "param_groups": groups}
        for hook in self._hooked("state_dict_post"):
            changed = hook(self, state)
            state = state if changed is None else changed
        return state

    def _packed_state(self) -> dict[Any, Any]:
        """What is remembered, by the number of the parameter."""
        numbers: dict[Any, int] = {}
        for param in self._all_params():
            numbers.setdefault(param, len(numbers))
        return {
            numbers[key] if isinstance(key, Tensor) and key in numbers else key: value
            for key, value in self.state.items()
        }

    def _all_params(self) -> list[Any]:
        return [param for group in self.param_groups for param in group["params"]]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave; numpy arrays will do for tensors.

        Raises: ValueError if there are other groups, or other numbers of parameters in them.
        """
        state_dict = dict(state_dict)
        for hook in self._hooked("load_state_dict_pre"):
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(new["params"]) != len(old["params"]) for new, old in zip(groups, self.param_groups, strict=True)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        self._take_state(state_dict["state"], groups)
        for hook in self._hooked("load_state_dict_post"):
            hook(self)

    def _take_state(self, state: Mapping[Any, Any], groups: list[dict[str, Any]]) -> None:
        """Takes over what is remembered, and the options of the groups."""
        numbers = itertools.chain.from_iterable(group["params"] for group in groups)
        params = dict(zip(numbers, self._all_params(), strict=True))
        self.state = defaultdict(dict)
        for key, value in state.items():
            if key in params:
                self.state[params[key]] = _as_of(params[key], value, "")
            else:
                self.state[key] = value
        for mine, new in zip(self.param_groups, groups, strict=True):
            mine.update(deepcopy({name: value for name, value in new.items() if name not in PARAMS}))

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()
        self.defaults.setdefault("differentiable", False)

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for index, group in enumerate(self.param_groups):
            text += f"\nParameter Group {index}\n"
            for name in sorted(group):
                if name != "params":
                    text += f"    {name}: {group[name]}\n"
        return text + ")"


PARAMS = frozenset({"params", "param_names"})


def groups_of(params: Params) -> list[Any]:
    """The groups that the first argument of an optimiser says, each still as it was given."""
    if isinstance(params, Tensor):
        raise TypeError(
            f"params argument given to the optimizer should be an iterable of Tensors or dicts, but got {params.type()}"
        )
    entries = list(params)
    if not entries:
        raise ValueError("optimizer got an empty parameter list")
    return entries if isinstance(entries[0], dict) else [{"params": entries}]


def listed_group(entry: Mapping[str, Any]) -> dict[str, Any]:
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


def split_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group as the caller sees it: tensors, and their names if they were given."""
    params = group["params"]
    if params and isinstance(params[0], tuple):
        return {**group, "params": [tensor for _, tensor in params], "param_names": [name for name, _ in params]}
    return dict(group)


def named_params(group: Mapping[str, Any]) -> list[Any]:
    """The parameters of a group as they travel, with their names if they have any."""
    params: list[Any] = group["params"]
    return list(zip(group["param_names"], params, strict=True)) if "param_names" in group else params


def _as_of(param: Tensor, value: Any, name: str) -> Any:
    """What was remembered elsewhere, with the dtype and device of the parameter; a count of steps is left as it is."""
    if isinstance(value, Tensor):
        if name == "step":
            return value
        return value.to(dtype=param.dtype if param.is_floating_point() else None, device=param.device)
    if isinstance(value, dict):
        return {key: _as_of(param, item, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_as_of(param, item, name) for item in value)
    return value
