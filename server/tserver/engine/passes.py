"""Backward passes that stop where a caller's own code is to run, and go on when it has.

A pass runs on a thread of its own, in turns with the thread that hands over to it: only one of the two runs at a time,
so that all of torch's state of the process is as if there were one. Where the pass meets a function or a hook of a
caller it suspends itself: whoever began or resumed it goes on, with what is to be told, and the caller does its part
with ordinary calls. Passes know nothing of each other, and may be resumed in any order: none holds a lock meanwhile.

Knows torch; does not know the store of a session, nor what is told.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch.autograd.grad_mode import set_multithreading_enabled

from tserver.engine.sparse import GUARD
from tserver.errors import InvalidArgument

# Passes of one session that may wait for its client, each of which is a thread. Those of one client thread are nested.
MAX_SUSPENDED = 64

Told = dict[str, Any]
_here = threading.local()


class Aborted(BaseException):
    """Ends a suspended pass whose caller does not go on with it."""


def current() -> Pass | None:
    """The pass that runs on this thread."""
    return getattr(_here, "pass_", None)


def _form(tensor: torch.Tensor) -> Any:
    if tensor.layout is not torch.strided:
        return tensor.shape, tensor.dtype, tensor.layout
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, tensor.device


class Surroundings:
    """The modes that are in force on this thread, to be put in force on another."""

    def __init__(self, enter_streams: Callable[[], None], *, is_guarded: bool) -> None:
        """`is_guarded`: kernels that do not know sparse tensors are refused them."""
        self._enter_streams, self._is_guarded = enter_streams, is_guarded
        self._gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        self._grad = torch.is_grad_enabled()
        self._inference = torch.is_inference_mode_enabled()
        self._cached = torch.is_autocast_cache_enabled()
        self._autocasts = [
            (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)) for kind in ("cpu", "cuda")
        ]

    def enter(self, stack: contextlib.ExitStack) -> None:
        """Put them in force until the stack is closed. A kernel of CUDA runs on this thread, and on no other."""
        self._enter_streams()
        if self._gpu is not None:
            torch.cuda.set_device(self._gpu)
        stack.enter_context(set_multithreading_enabled(False))
        if self._is_guarded:
            stack.enter_context(GUARD)
        if self._inference:
            stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.set_grad_enabled(self._grad))
        for kind, dtype, enabled in self._autocasts:
            if enabled:
                stack.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=self._cached))


class Pass:
    """One pass, from its beginning to its end."""

    def __init__(self, function: Callable[[], Any], surroundings: Surroundings) -> None:
        self._function: Callable[[], Any] | None = function
        self._surroundings = surroundings
        self._to_pass = threading.Semaphore(0)
        self._to_caller = threading.Semaphore(0)
        self.thread: threading.Thread | None = None
        self.is_over = self._is_aborted = False
        # How often it was suspended; what it tells, and what it is told.
        self.suspensions = 0
        self._told: Told = {}
        # The gradients that its caller has a hand on, and the form that torch knows them in.
        self._forms: list[tuple[weakref.ref[torch.Tensor], Any]] = []
        self._answer: Any = None
        self._error: BaseException | None = None

    # --- on its own thread ---

    def execute(self) -> None:
        """Run it to its end."""
        function, self._function = self._function, None
        assert function is not None
        _here.pass_ = self
        try:
            with contextlib.ExitStack() as stack:
                self._surroundings.enter(stack)
                self._told = {"result": function()}
        except BaseException as error:
            self._error = error
        finally:
            _here.pass_ = None
            self.is_over = True

    def hand_back(self) -> None:
        """Let the caller go on."""
        self._to_caller.release()

    def suspend(self, told: Told) -> Any:
        """Tell something, and wait for the answer."""
        if self._is_aborted:
            raise Aborted
        self.suspensions += 1
        self._keep_in_view(told["given"])
        self._told = told
        del told
        self.hand_back()
        self._to_pass.acquire()
        if self._is_aborted:
            raise Aborted
        answer, self._answer = self._answer, None
        # What a session holds of the pass, the pass holds too: the very tensors, so that torch sees who has them and
        # copies where it must. But torch looks at the form of gradients once.
        if any(_form(tensor) != form for tensor, form in self._watched()):
            raise RuntimeError("a gradient of this backward was given another shape or dtype while it was suspended")
        self._keep_in_view(answer)
        return answer

    def _watched(self) -> Iterator[tuple[torch.Tensor, Any]]:
        self._forms = [each for each in self._forms if each[0]() is not None]
        for reference, form in self._forms:
            tensor = reference()
            if tensor is not None:
                yield tensor, form

    def _keep_in_view(self, values: Any) -> None:
        if isinstance(values, torch.Tensor):
            self._forms.append((weakref.ref(values), _form(values)))
        elif isinstance(values, (list, tuple)):
            for each in values:
                self._keep_in_view(each)

    # --- on the thread that hands over to it ---

    def wait(self) -> Told:
        """What it tells next: the result at its end. Raises what it raised."""
        self._to_caller.acquire()
        told, self._told = self._told, {}
        error, self._error = self._error, None
        if error is not None:
            raise error
        return told

    def resume(self, answer: Any) -> Told:
        """Go on with an answer, and give what it tells next."""
        self._answer = answer
        self._to_pass.release()
        return self.wait()

    def abort(self) -> None:
        """End it where it is suspended."""
        if self.is_over or threading.current_thread() is self.thread:
            return
        self._is_aborted = True
        with contextlib.suppress(Aborted, Exception):
            self.resume(None)


class Suspended:
    """A suspended pass as a session holds it. Let go before it was resumed, it ends the pass."""

    held_as: ClassVar[str] = "pass"

    def __init__(self, suspended: Pass, *, wants_list: bool) -> None:
        """`wants_list`: it is to be answered with as many values as torch counts; else with one."""
        self.wants_list = wants_list
        self._pass = suspended
        self._number = suspended.suspensions

    @property
    def is_over(self) -> bool:
        """Whether nobody can resume it any more."""
        return self._pass.is_over or self._pass.suspensions != self._number

    def take(self) -> Pass:
        """The pass, to be resumed. Raises: InvalidArgument if it has gone on since."""
        if self._pass.is_over or self._pass.suspensions != self._number:
            raise InvalidArgument("this backward pass has gone on since: resume it from where it is, once")
        return self._pass

    def __del__(self) -> None:
        if self._pass.suspensions == self._number:
            self._pass.abort()


class PassThreads:
    """The threads of an engine on which passes run: kept for the next ones, as many as were needed at a time."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        """`prepare` is run at the beginning of each."""
        self._prepare = prepare
        self._idle: list[_Worker] = []
        self._passes: weakref.WeakSet[Pass] = weakref.WeakSet()

    def begin(
        self, function: Callable[[], Any], enter_streams: Callable[[], None], *, is_guarded: bool = True
    ) -> tuple[Pass, Told]:
        """Begin a pass: it, and what it tells first. `enter_streams` has a thread's work run where the session's does.
        What a caller's code answers may be sparse, whatever was before: against that it is guarded.

        Raises what it raises until then.
        """
        begun = Pass(function, Surroundings(enter_streams, is_guarded=is_guarded))
        worker = self._idle.pop() if self._idle else _Worker(self._prepare, self._idle)
        self._passes.add(begun)
        worker.take(begun)
        return begun, begun.wait()

    def is_one(self, thread: threading.Thread) -> bool:
        """Whether a thread is one of passes."""
        return isinstance(thread, _Worker)

    def stop(self) -> None:
        """End all that is suspended, and the threads."""
        for each in list(self._passes):
            each.abort()
        while self._idle:
            self._idle.pop().end()


class _Worker(threading.Thread):
    """A thread that runs one pass after another."""

    def __init__(self, prepare: Callable[[], None], idle: list[_Worker]) -> None:
        super().__init__(name="backward pass", daemon=True)
        self._prepare, self._idle = prepare, idle
        self._begun = threading.Semaphore(0)
        self._pass: Pass | None = None
        self.start()

    def take(self, begun: Pass) -> None:
        """Run a pass."""
        begun.thread = self
        self._pass = begun
        self._begun.release()

    def end(self) -> None:
        """Leave, and wait for it."""
        self._begun.release()
        self.join()

    def run(self) -> None:
        """See threading.Thread."""
        self._prepare()
        while self._run_one():
            pass

    def _run_one(self) -> bool:
        self._begun.acquire()
        running, self._pass = self._pass, None
        if running is None:
            return False
        running.execute()
        # Before the caller goes on: it may begin another pass at once.
        self._idle.append(self)
        running.hand_back()
        return True
