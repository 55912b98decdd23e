"""Programs on a GPU as graphs: run call by call a few times, then captured, then replayed where that is faster.

Only what is known to be capturable is captured (CAPTURABLE): calls that make new tensors of what they read, draw no
numbers and look at no elements. A graph is kept for each form of the inputs: shapes, strides, dtypes and plain values.
Small inputs are copied to where the graph reads; of large ones the very memory belongs to the form. Outputs are copied
out. Where an output is a view of an input or of another output, or anybody wants gradients, or a quota counts memory,
the calls are run one by one as ever.

Only the engine's thread uses this. Knows nothing of how a program is run.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tserver.engine import graph_capture
from tserver.engine.failures import is_device_lost
from tserver.engine.pieces import whole
from tserver.engine.streams import StreamPair

log = logging.getLogger("tserver.engine")

_EAGER_RUNS = 3
_TIMED_REPLAYS = 3
_MOST_FORMS = 4
_MOST_GRAPHS = 64
_MOST_COPIED_BYTES = 1 << 20

# Gives the result, or what gives it in pieces.
Run = Callable[[Sequence[Any]], Any]

_NAMES = """
abs add addmm amax amin argmax argmin baddbmm bmm cat celu clamp clip clone contiguous cos cosine_similarity div
divide dot elu eq erf exp expand expm1 flatten ge gelu glu gt hardshrink hardsigmoid hardswish hardtanh l1_loss
layer_norm le leaky_relu linear log log1p log_softmax logical_and logical_not logical_or logsigmoid logsumexp lt
matmul maximum mean minimum mish mm mse_loss mul multiply mv ne neg negative permute pow prod relu relu6 reshape
rms_norm rsqrt selu sigmoid sign silu sin softmax softmin softplus softshrink softsign sqrt square squeeze stack
std sub subtract sum t tanh tanhshrink transpose true_divide unsqueeze var view
__abs__ __add__ __ge__ __gt__ __le__ __lt__ __matmul__ __mul__ __neg__ __pow__ __radd__ __rmatmul__ __rmul__
__rpow__ __rsub__ __rtruediv__ __sub__ __truediv__ T.__get__ mT.__get__
"""
CAPTURABLE = frozenset(_NAMES.split())
_PLAIN = (int, float, bool, str, type(None), torch.dtype)


def is_capturable(name: str, constants: Sequence[Any]) -> bool:
    """Whether calls of an operation can be captured, with these constants among the arguments."""
    bare = name.removeprefix("Tensor.").removeprefix("nn.functional.")
    return bare in CAPTURABLE and all(isinstance(value, _PLAIN) for value in constants)


class _Timing:
    """How long one run took: the engine's thread to give it, and the device to do it."""

    def __init__(self) -> None:
        self._given_s = -time.perf_counter()
        self._began = _moment()
        self._ended: Any = None

    def end(self) -> None:
        """All has been given."""
        self._ended = _moment()
        self._given_s += time.perf_counter()

    def is_known(self) -> bool:
        """Whether the device is done, so that asking is not waiting."""
        return bool(self._ended.query())

    def total_s(self) -> float:
        """Both together: either may be what others wait for."""
        return self._given_s + float(self._began.elapsed_time(self._ended)) / 1000


def _moment() -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class _Form:
    """One form of the inputs, and how far it has come."""

    def __init__(self) -> None:
        self.runs = 0
        self.is_given_up = False
        self.captured: graph_capture.CapturedGraph | None = None
        self.eager: list[_Timing] = []
        self.replays: list[_Timing] = []
        self.is_decided = False

    def give_up(self) -> None:
        """From now on call by call."""
        self.is_given_up, self.captured = True, None
        self.eager, self.replays = [], []

    def decide(self, what: str) -> None:
        """Compare, once all timings are known."""
        if not all(timing.is_known() for timing in (*self.eager, *self.replays)):
            return
        self.is_decided = True
        eager_s = min(timing.total_s() for timing in self.eager)
        replay_s = min(timing.total_s() for timing in self.replays)
        log.debug("a program as a graph", extra={"eager_s": eager_s, "replay_s": replay_s, "program": what})
        if replay_s >= eager_s:
            self.give_up()
        self.eager, self.replays = [], []


_graphs: weakref.WeakSet[_Form] = weakref.WeakSet()


class ProgramGraphs:
    """The graphs of one program."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._forms: dict[Any, _Form] = {}

    def run(self, run: Run, inputs: Sequence[Any], pair: StreamPair) -> Any:
        """The result for these inputs; `run` makes it call by call, and is what is given where that is to be done.

        The pair's work stream is the current one.
        """
        key = _key(inputs, pair.work.device)
        if key is None:
            return run(inputs)
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= _MOST_FORMS:
                return run(inputs)
            form = self._forms[key] = _Form()
        if form.is_given_up:
            return run(inputs)
        if form.runs < _EAGER_RUNS:
            return _eager(form, run, inputs)
        if form.captured is None and not self._capture(form, run, inputs, pair):
            return run(inputs)
        return self._replay(form, inputs)

    def _capture(self, form: _Form, run: Run, inputs: Sequence[Any], pair: StreamPair) -> bool:
        if len(_graphs) >= _MOST_GRAPHS:
            return False
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        try:
            with torch.inference_mode(mode=False):
                read = [_own(tensor) if _is_copied(tensor) else tensor for tensor in tensors]

            def captured(*given: Tensor) -> Any:
                found = iter(given)
                return whole(run([next(found) if isinstance(value, Tensor) else value for value in inputs]))

            made = graph_capture.capture(captured, read, pair, warm_up_runs=1)
        except Exception as error:
            if is_device_lost(error):
                raise
            log.info("a program is not captured as a CUDA graph: %s", error, extra={"program": self._what})
            form.give_up()
            return False
        # What the caller has brought is not kept.
        made.inputs = [tensor for tensor, brought in zip(read, tensors, strict=True) if tensor is not brought]
        form.captured = made
        _graphs.add(form)
        return True

    def _replay(self, form: _Form, inputs: Sequence[Any]) -> Any:
        captured = form.captured
        assert captured is not None
        timing = _Timing() if not form.is_decided and len(form.replays) < _TIMED_REPLAYS else None
        copied = [value for value in inputs if isinstance(value, Tensor) and _is_copied(value)]
        for own, brought in zip(captured.inputs, copied, strict=True):
            own.copy_(brought, non_blocking=True)
        captured.replay()
        result = _cloned(captured.outputs)
        if timing is not None:
            timing.end()
            form.replays.append(timing)
        elif not form.is_decided:
            form.decide(self._what)
            if form.is_given_up:
                _graphs.discard(form)
        return result


def _eager(form: _Form, run: Run, inputs: Sequence[Any]) -> Any:
    form.runs += 1
    timing = _Timing()
    result = whole(run(inputs))
    timing.end()
    form.eager.append(timing)
    if not _is_self_contained(result, inputs):
        form.give_up()
    return result


def _key(inputs: Sequence[Any], device: torch.device) -> Any:
    """The form of the inputs; None where they, or the modes in force, are not for a graph."""
    if torch.is_autocast_enabled("cuda"):
        return None
    wants_gradients = torch.is_grad_enabled()
    key: list[Any] = [torch.get_default_dtype(), device]
    for value in inputs:
        if isinstance(value, Tensor):
            if (
                value.device != device
                or value.layout is not torch.strided
                or (wants_gradients and value.requires_grad)
                or value.is_conj()
                or value.is_neg()
            ):
                return None
            place = None if _is_copied(value) else value.data_ptr()
            key.append((value.shape, value.stride(), value.dtype, place))
        elif isinstance(value, _PLAIN):
            # 1, 1.0 and True are equal, but not the same to torch; and 0.0 and -0.0 are not even that.
            key.append((type(value), repr(value)))
        else:
            return None
    return tuple(key)


def _is_copied(tensor: Tensor) -> bool:
    return tensor.nbytes <= _MOST_COPIED_BYTES and _is_dense(tensor)


def _is_dense(tensor: Tensor) -> bool:
    """Whether its elements fill its memory, each once: then a copy has the same strides."""
    return tensor.is_contiguous() or torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def _own(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _is_self_contained(result: Any, inputs: Sequence[Any]) -> bool:
    """Whether a copy of the result is as good as the result."""
    taken = {value.untyped_storage().data_ptr() for value in inputs if isinstance(value, Tensor)}
    for leaf in _leaves(result):
        if isinstance(leaf, Tensor):
            place = leaf.untyped_storage().data_ptr()
            if place in taken or leaf.requires_grad or leaf.layout is not torch.strided or not _is_dense(leaf):
                return False
            if leaf.is_conj() or leaf.is_neg():
                return False
            taken.add(place)
        elif not isinstance(leaf, (*_PLAIN, torch.Size)):
            return False
    return True


def _leaves(result: Any) -> Iterator[Any]:
    if type(result) in (list, tuple):
        for item in result:
            yield from _leaves(item)
    elif type(result) is dict:
        for item in result.values():
            yield from _leaves(item)
    else:
        yield result


def _cloned(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.clone()
    if type(result) in (list, tuple):
        return type(result)(map(_cloned, result))
    if type(result) is dict:
        return {name: _cloned(item) for name, item in result.items()}
    return result
