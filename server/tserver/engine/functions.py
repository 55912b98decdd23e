"""What of a graph of autograd is a caller's own code: functions with a backward of their own, and hooks.

Such code runs at the caller's. Here is what stands for it in the graph: a node of torch's own class of functions, or a
hook, which suspend the pass that meets them (passes.py) and go on with what the caller computed. All that torch has to
say about it (what was changed in between, how many gradients are wanted, their shapes) torch says itself.

A caller names what it has by keys of its own; it is told which of them torch has let go of.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn.modules._functions import BackwardHookFunction

from tserver.engine.callers_code import KINDS, CallersCode, Hook, Life, suspended_with
from tserver.engine.new_memory import BACKWARD, on_zeros
from tserver.engine.object_store import ObjectStore
from tserver.engine.passes import MAX_SUSPENDED, Suspended, Told
from tserver.errors import Exhausted, InvalidArgument

_MAX_NAME = 200
# Classes of functions that a session has at a time; they are made anew where it has more.
_MAX_CLASSES = 1024
_local = threading.local()


class _Made:
    """What a caller's forward has made, on its way into the graph."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)
        self.ctx: Any = None


def _forward(ctx: Any, *inputs: Any) -> Any:
    made = _local.made
    ctx.set_materialize_grads(made.materialize)
    ctx.save_for_backward(*made.saved)
    ctx.mark_dirty(*made.dirty)
    ctx.mark_non_differentiable(*made.non_differentiable)
    ctx.tc_key, ctx.tc_life = made.key, made.life
    made.ctx = ctx
    return made.outputs


def _backward(ctx: Any, *gradients: Any) -> Any:
    saved: Any = ()
    refusal = ""
    try:
        saved = ctx.saved_tensors
    except RuntimeError as error:
        # For the caller, if it looks at them.
        refusal = str(error)
    answer = suspended_with(
        {
            "key": ctx.tc_key,
            "given": tuple(gradients),
            "saved": saved,
            "refusal": refusal,
            "needed": tuple(ctx.needs_input_grad),
        }
    )
    return tuple(answer)


def function(
    store: ObjectStore,
    name: Any,
    key: Any,
    inputs: Any,
    outputs: Any,
    saved: Any,
    dirty: Any,
    non_differentiable: Any,
    materialize: Any,
) -> tuple[Tensor, ...]:
    """`tc.function`: the outputs of a caller's forward, put into the graph as those of a node with its name."""
    code = store.callers_code
    key, name = _key("tc.function", key), _name(name)
    given = _tensors("inputs", inputs)
    written, constant = _tensors("dirty", dirty), _tensors("non_differentiable", non_differentiable)
    if any(tensor is None for tensor in (*written, *constant)):
        raise InvalidArgument("tc.function: what is dirty or not differentiable is a list of tensors")
    results = _tensors("outputs", outputs)
    _check_dirty(name, written, given, results)
    # torch gives the very tensors a new history, and leaves half of one where it raises: these are others for that.
    own = {id(each): _apart(each) for each in results if each is not None and not _is_in(each, given)}
    made = _Made(
        key=key,
        life=Life(code.gone, key),
        outputs=tuple(own.get(id(each), each) for each in results),
        saved=[own.get(id(each), each) for each in _tensors("saved", saved)],
        dirty=written,
        non_differentiable=[own.get(id(each), each) for each in constant],
        materialize=materialize is not False,
    )
    _local.made = made
    try:
        found = _class(code, name).apply(*given)
    except BaseException:
        for tensor in written:
            if tensor.grad_fn is not None and tensor.grad_fn is made.ctx:
                tensor.detach_()
        raise
    finally:
        made.ctx = None
        del _local.made
    return tuple(each for each in found if isinstance(each, Tensor))


def _is_in(tensor: Tensor, others: list[Any]) -> bool:
    return any(tensor is each for each in others)


def _apart(output: Tensor) -> Tensor:
    """Another tensor of the same memory, and the same view to torch."""
    if not output._is_view():
        return output.detach()
    with torch.no_grad():
        return output.view_as(output)


def _check_dirty(name: str, written: list[Tensor], inputs: list[Any], outputs: list[Any]) -> None:
    """In torch's words, but before anything is changed."""
    if not torch.is_grad_enabled():
        return
    for tensor in written:
        if not _is_in(tensor, inputs) or not _is_in(tensor, outputs):
            raise RuntimeError(
                "Some elements marked as dirty during the forward method were not returned as output. The inputs that "
                "are modified inplace must all be outputs of the Function."
            )
        if tensor.is_leaf and tensor.requires_grad:
            raise RuntimeError("a leaf Variable that requires grad has been used in an in-place operation.")
        if tensor._is_view():
            # torch locks the node of a view while it runs the function that has changed it.
            raise NotImplementedError(
                f"{name}: a view that a function marks dirty is not supported on a server; return a new tensor"
            )


def _class(code: CallersCode, name: str) -> Any:
    found = code.classes.get(name)
    if found is None:
        if len(code.classes) >= _MAX_CLASSES:
            code.classes.clear()
        body = {"forward": staticmethod(_forward), "backward": staticmethod(_backward)}
        found = code.classes[name] = type(name, (torch.autograd.Function,), body)
    return found


def _key(operation: str, key: Any) -> int:
    if type(key) is not int or not 0 < key < 1 << 63:
        raise InvalidArgument(f"{operation}: a key is an int of 1 to 2^63 - 1, not {str(key)[:40]}")
    return key


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or len(name) > _MAX_NAME:
        raise InvalidArgument(f"the name of a function is an identifier of at most {_MAX_NAME} characters")
    return name


def _tensors(what: str, values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)) and all(value is None or isinstance(value, Tensor) for value in values):
        return list(values)
    raise InvalidArgument(f"tc.function: {what} is a list of tensors, with None for what is none")


# ---- hooks -----------------------------------------------------------------------------------------------------------


def hook(store: ObjectStore, target: Any, kind: Any, key: Any, name: Any) -> None:
    """`tc.hook`: have passes suspended where the gradient of a tensor is there, or where a node runs."""
    code = store.callers_code
    key = _key("tc.hook", key)
    wanted = KINDS.get(kind) if isinstance(kind, str) else None
    if wanted is None or not isinstance(target, wanted[0]):
        raise InvalidArgument(f"tc.hook: {str(kind)[:40]!r} is no kind of hook of a {type(target).__name__}")
    if key in code.hooks:
        raise InvalidArgument(f"tc.hook: key {key} is in use")
    if not isinstance(name, str) or len(name) > _MAX_NAME:
        raise InvalidArgument(f"tc.hook: a name is a text of at most {_MAX_NAME} characters")
    code.hooks[key] = wanted[1](target, Hook(code, key, name))


def unhook(store: ObjectStore, key: Any) -> None:
    """`tc.unhook`: take a hook away; nothing, where it is gone."""
    handle = store.callers_code.hooks.pop(_key("tc.unhook", key), None)
    if handle is not None:
        handle.remove()


def gone(store: ObjectStore) -> list[int]:
    """`tc.gone`: the keys of nodes and hooks that torch has let go of since they were told last."""
    return store.callers_code.told_gone()


# ---- passes ----------------------------------------------------------------------------------------------------------


def begin(store: ObjectStore, name: Any, args: Any, kwargs: Any) -> Told:
    """`tc.pass_begin`: a backward that may meet code of the caller; its result, or where it is suspended."""
    if not isinstance(name, str) or name not in BACKWARD or not isinstance(args, (list, tuple)):
        raise InvalidArgument(f"tc.pass_begin takes one of {', '.join(sorted(BACKWARD))}, and a list of its arguments")
    if not isinstance(kwargs, dict):
        raise InvalidArgument("tc.pass_begin: keyword arguments are a mapping")
    if len(store.callers_code.suspended) >= MAX_SUSPENDED:
        raise Exhausted(
            f"{name}: {MAX_SUSPENDED} backward passes of this session wait to be resumed; no more are begun",
            reason="TOO_MANY_PASSES",
        )
    operation = store.operation(name)
    threads = store.pass_threads

    def on_thread() -> Any:
        with store.read_only or contextlib.nullcontext():
            return operation.function(*args, **kwargs)

    def run() -> Told:
        begun, told = threads.begin(on_thread, store.state.enter_streams)
        return _told(store, begun, told)

    return _on_zeros(store, operation, run)


def resume(store: ObjectStore, suspended: Any, answer: Any) -> Told:
    """`tc.pass_resume`: go on with what the caller's code gave: a list of gradients for a function, else one value."""
    if not isinstance(suspended, Suspended):
        raise InvalidArgument(f"tc.pass_resume takes a suspended pass, not a {type(suspended).__name__}")
    taken = suspended.take()
    if suspended.wants_list and not isinstance(answer, (list, tuple)):
        raise InvalidArgument("tc.pass_resume: the gradients of a function are a list")
    return _on_zeros(store, store.operation("autograd.backward"), lambda: _told(store, taken, taken.resume(answer)))


def abort(store: ObjectStore, suspended: Any) -> None:
    """`tc.pass_abort`: end a pass where it is suspended."""
    if not isinstance(suspended, Suspended):
        raise InvalidArgument(f"tc.pass_abort takes a suspended pass, not a {type(suspended).__name__}")
    suspended.take().abort()


def _on_zeros(store: ObjectStore, operation: Any, run: Callable[[], Told]) -> Told:
    """Memory of the graph's operations is zeros where that of a backward would be."""
    if operation.on_zeros and store.graphs_on_zeros:
        result: Told = on_zeros(run, (), {})
        return result
    return run()


def _told(store: ObjectStore, running: Any, told: Told) -> Told:
    if not running.is_over:
        handle = Suspended(running, wants_list="saved" in told)
        store.callers_code.suspended.add(handle)
        told["pass"] = handle
    told["gone"] = store.callers_code.told_gone()
    return told


# ---- looking at a graph ----------------------------------------------------------------------------------------------


def identity(*tensors: Any) -> tuple[Any, ...]:
    """`tc.identity`: tensors as they are, behind one node, at which the gradients of all of them are there at once."""
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise InvalidArgument("tc.identity takes tensors")
    through: Any = BackwardHookFunction
    found: tuple[Any, ...] = through.apply(*tensors)
    return found


def node(found: Any) -> dict[str, Any]:
    """`tc.node`: what a node of a graph is: its name, what is behind it, and a number that no other node has."""
    known: Any = _is_node(found)
    return {
        "name": known.name(),
        "number": id(known) ^ _salt(),
        "next": tuple(known.next_functions),
        "variable": getattr(known, "variable", None),
        "key": getattr(known, "tc_key", None),
    }


def edge(tensor: Any) -> tuple[Any, int]:
    """`tc.edge`: the node from which a tensor's gradient comes, and which of its outputs the tensor is."""
    if not isinstance(tensor, Tensor):
        raise InvalidArgument(f"tc.edge takes a tensor, not a {type(tensor).__name__}")
    found: Any = get_gradient_edge(tensor)
    return found.node, found.output_nr


def saved(found: Any) -> Any:
    """`tc.saved`: what a node of a caller's function has saved."""
    known: Any = _is_node(found)
    if not isinstance(known, BackwardCFunction):
        raise AttributeError(f"'{type(known).__name__}' object has no attribute 'saved_tensors'")
    return known.saved_tensors


def twice(outputs: Any) -> tuple[Any, ...]:
    """`tc.differentiated_once`: gradients that fail where somebody differentiates them again."""
    message = "trying to differentiate twice a function that was marked with @once_differentiable"
    given = [None if each is None else each.detach().requires_grad_() for each in _tensors("outputs", outputs)]
    fail: Any = torch._C._functions.DelayedError(message.encode(), len(given))
    found: tuple[Any, ...] = fail(*given)
    return found


def _is_node(found: Any) -> Node:
    if not isinstance(found, Node):
        raise InvalidArgument(f"a node of a graph is wanted, not a {type(found).__name__}")
    return found


@functools.cache
def _salt() -> int:
    """Numbers of nodes say nothing about the memory of the server. Drawn late: engines are forked from one process."""
    return int.from_bytes(os.urandom(7), "little")


WITH_STORE: dict[str, Callable[..., Any]] = {
    "tc.function": function,
    "tc.hook": hook,
    "tc.unhook": unhook,
    "tc.gone": gone,
    "tc.pass_begin": begin,
    "tc.pass_resume": resume,
    "tc.pass_abort": abort,
}
BUILTIN_OPERATIONS: dict[str, Callable[..., Any]] = {
    "tc.identity": identity,
    "tc.node": node,
    "tc.edge": edge,
    "tc.saved": saved,
    "tc.differentiated_once": twice,
}
