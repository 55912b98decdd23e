"""Runs the calls of one batch on one store, in order, in slices.

A failed call poisons its result; calls that need it are skipped with the same root error; all others go on. Nothing
here waits, and nothing here knows who asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.packed import (
    CALL,
    CONTEXT_SHIFT,
    COUNT_SHIFT,
    FREE,
    GENERAL,
    KIND_BITS,
    KIND_MASK,
    MAX_COUNT,
    MAX_OPERATION,
    OPERATION_SHIFT,
    PART,
)
from tserver.engine import packed, replies, sequences
from tserver.engine.apply import apply_operation, unsupported
from tserver.engine.batch_run import BatchRun
from tserver.engine.extents import mend
from tserver.engine.failures import DeviceFailure, is_device_lost
from tserver.engine.memory import is_out_of_memory
from tserver.engine.modes import Mode
from tserver.engine.object_store import FIRST_SERVER_ID, Failed, ObjectStore, Parts
from tserver.engine.operations import Operation, UnknownOperation, refusing
from tserver.engine.pieces import Unfinished, is_in_pieces
from tserver.engine.reads import Deferred
from tserver.engine.values import Elements, Packed, decode, describe, encode
from tserver.errors import AlreadyExists, CallFailed, Exhausted, InvalidArgument, ServerError, TooLarge, UnknownId

# torch's messages are short; one that quotes an argument back must not fill the reply.
_MAX_MESSAGE = 4096

# Exception classes that travel by name. Anything else is a RuntimeError to the caller.
_TRAVELS = frozenset(
    {
        "AcceleratorError",
        "ArithmeticError",
        "AssertionError",
        "AttributeError",
        "BufferError",
        "IndexError",
        "KeyError",
        "LinAlgError",
        "LookupError",
        "NotImplementedError",
        "OutOfMemoryError",
        "OverflowError",
        "RuntimeError",
        "StopIteration",
        "TypeError",
        "ValueError",
        "ZeroDivisionError",
    }
)


class Executor:
    """Runs calls. One for each engine thread; keeps the modes that are in force between two calls."""

    def __init__(self) -> None:
        self._mode: Mode | None = None
        # Until when the slice lasts.
        self._deadline = 0.0
        # The run whose call is being executed, for warnings that torch gives meanwhile.
        self.current: BatchRun | None = None
        # By which it is seen that work goes on: jobs, and parts of such.
        self.steps = 0
        # For the metrics: read from any thread, only growing.
        self.batches = self.calls = 0
        self.failures: dict[str, int] = {}

    def run(self, store: ObjectStore, run: BatchRun, deadline: float) -> bool:
        """Run calls until the batch ends or the deadline (time.perf_counter) passes; True if the batch ended."""
        objects = store.objects
        operations = store.operations if run.operations is None else run.operations
        if run.refusal is not None:
            operations = [refusing(operation, run.refusal) for operation in operations]
        clock = time.perf_counter
        self.current = run
        self._deadline = deadline
        profile, began = store.profile, 0.0
        if profile is not None:
            began = clock()
            # For this slice: of others nothing is noted.
            self._call = profile.timing(type(self)._call.__get__(self))  # type: ignore[method-assign]
        try:
            if (unfinished := run.unfinished) is not None:
                has_ended = self._go_on(store, run)
                if profile is not None:
                    profile.add("call", unfinished.operation.name, began, clock(), id=unfinished.call_id)
                if not has_ended:
                    return False
            if run.words is not None:
                if not self._run_packed(store, run, operations, run.words, deadline):
                    return False
            else:
                for call in run.remaining:
                    self._run_general(store, run, call, operations)
                    run.index += 1
                    if clock() > deadline and run.index < run.count:
                        return False
            if run.unfinished is not None:
                # The last one: the time was up before it ended.
                return False
        finally:
            self.current = None
            if profile is not None:
                del self._call
                profile.add("slice", f"batch {run.seq}", began, clock(), calls=run.index)
        for call_id in run.frees:
            objects.pop(call_id, None)
        for ref in run.parts:
            store.free(ref)
        self._tell_made(store, run)
        self.batches += 1
        self.calls += run.index
        return True

    def leave_mode(self) -> None:
        """Back to the default modes, before another session's calls."""
        if self._mode is not None:
            self._mode.leave()
            self._mode = None

    def _run_packed(
        self, store: ObjectStore, run: BatchRun, operations: list[Operation], words: Sequence[int], deadline: float
    ) -> bool:
        """Run packed calls, as `run` does."""
        objects = store.objects
        clock = time.perf_counter
        at, end = run.at, len(words)
        run_plain = packed.run_plain if store.profile is None else None
        try:
            while at < end:
                if run_plain is not None:
                    at = run_plain(self, store, run, operations, words, at, deadline)
                    if at < 0:
                        return False
                    if at == end:
                        break
                word = words[at]
                kind = word & KIND_MASK
                if kind == CALL:
                    first = at + 2
                    at = first + (word >> COUNT_SHIFT & MAX_COUNT)
                    if at > end:
                        raise IndexError
                    self._call(
                        store,
                        run,
                        operations,
                        words[first - 1],
                        word >> OPERATION_SHIFT & MAX_OPERATION,
                        word >> CONTEXT_SHIFT,
                        words[first:at],
                        None,
                    )
                elif kind == FREE:
                    objects.pop(word >> KIND_BITS, None)
                    at += 1
                    continue
                elif kind == PART:
                    first = at + 2
                    at = first + words[at + 1]
                    if at > end:
                        raise IndexError
                    store.free(pb.Ref(id=word >> KIND_BITS, path=[step & 0xFFFF_FFFF for step in words[first:at]]))
                    continue
                elif word == GENERAL:
                    self._run_general(store, run, next(run.remaining), operations)
                    at += 1
                else:
                    raise IndexError
                run.index += 1
                if clock() > deadline and at < end:
                    run.at = at
                    return False
            run.at = at
            if next(run.remaining, None) is not None or not run.is_whole:
                raise StopIteration
        except (IndexError, StopIteration):
            refusal = InvalidArgument(f"the packed calls of the batch break the rules at word {min(at, end)} of {end}")
            self._tell_error(store, run, 0, None, (), {}, _error(run, 0, None, refusal))
        return True

    def _run_general(self, store: ObjectStore, run: BatchRun, call: pb.Call, operations: list[Operation]) -> None:
        # Each access to a repeated field makes a wrapper: once each, on this path. A slice is a list, which is gone
        # through in half the time.
        if frees := call.frees[:]:
            for call_id in frees:
                store.objects.pop(call_id, None)
        if parts := call.free_parts:
            for ref in parts:
                store.free(ref)
        self._call(store, run, operations, call.id, call.operation, call.context, None, call)

    def _call(
        self,
        store: ObjectStore,
        run: BatchRun,
        operations: list[Operation],
        call_id: int,
        number: int,
        context: int,
        words: Sequence[int] | None,
        call: pb.Call | None,
    ) -> None:
        """Run a call with its arguments as words, or as the message that it is."""
        objects = store.objects
        operation: Operation | None = None
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        entries: Any = ()
        run.number = number
        try:
            try:
                operation = operations[number]
            except IndexError:
                raise InvalidArgument(
                    f"operation index {number} is not defined; the session has defined {len(operations)}"
                ) from None
            if call_id:
                if call_id in objects:
                    raise AlreadyExists(f"id {call_id} is in use; choose another, or free it", reason="DUPLICATE_ID")
                if call_id >= FIRST_SERVER_ID and run.operations is None:
                    raise InvalidArgument(f"id {call_id} is not below 2^48; larger ids are made by the server")
            if context or self._mode is not None:
                self._set_mode(store, context)
            if words is not None:
                for word in words:
                    found = objects.get(word) if word < FIRST_SERVER_ID else None
                    if not isinstance(found, Tensor):
                        args = packed.arguments(store, words)
                        break
                    args.append(found)
            elif call is not None:
                entries = call.kwargs
                for value in call.args[:]:
                    # A tensor is by far the most frequent argument: looked at first, and not asked for its kind.
                    if call_ref := value.result:
                        found = objects.get(call_ref)
                        args.append(found if isinstance(found, Tensor) else store.whole(call_ref))
                    else:
                        argument = decode(store, value)
                        if argument.__class__ is Packed and not operation.takes_packed:
                            argument = argument.array.tolist()
                        args.append(argument)
                for entry in entries:
                    if entry.name in kwargs:
                        raise InvalidArgument(f"keyword argument {entry.name[:100]!r} is given twice")
                    kwargs[entry.name] = decode(store, entry.value)
            if operation.is_direct and not store.watched and (not kwargs or "out" not in kwargs):
                result = operation.function(*args, **kwargs) if kwargs else operation.function(*args)
                if result is NotImplemented:
                    raise unsupported(operation.name, args)
            else:
                result = apply_operation(store, operation, args, kwargs)
        except CallFailed as skipped:
            self._tell_error(store, run, call_id, operation, entries, kwargs, skipped.error)
            return
        except Exception as error:
            mend(args, kwargs)
            self._tell_error(store, run, call_id, operation, entries, kwargs, _error(run, call_id, operation, error))
            return
        if isinstance(result, Tensor):
            if call_id:
                objects[call_id] = result
                run.made[call_id] = run.index
                for argument in args:
                    if argument is result:
                        run.same[call_id] = _id_of(words, call, _position(args, result))
                        break
                if len(objects) > store.peak_results:  # noqa: PLR1730 - a call less for each call
                    store.peak_results = len(objects)
        elif is_in_pieces(result):
            run.unfinished = Unfinished(
                result, run.index, number, call_id, context, operation, args, kwargs, words, call
            )
            self._go_on(store, run)
        elif result is not None or call_id:
            self._tell_value(store, run, call_id, operation, result)

    def _go_on(self, store: ObjectStore, run: BatchRun) -> bool:
        """Go on with the call that is left in the middle, until it or the slice ends; whether it has ended."""
        unfinished = run.unfinished
        assert unfinished is not None
        call_id, operation, pieces = unfinished.call_id, unfinished.operation, unfinished.pieces
        entries: Any = () if unfinished.call is None else unfinished.call.kwargs
        clock, deadline = time.perf_counter, self._deadline
        behind, run.index = run.index, unfinished.index
        run.number = unfinished.number
        run.unfinished = None
        try:
            if run.refusal is not None:
                pieces.close()
                raise CallFailed(run.refusal)
            if unfinished.context or self._mode is not None:
                self._set_mode(store, unfinished.context)
            while True:
                next(pieces)
                if clock() > deadline:
                    run.unfinished = unfinished
                    return False
        except StopIteration as end:
            result = end.value
            if isinstance(result, Tensor) and call_id:
                store.objects[call_id] = result
                run.made[call_id] = run.index
                if any(argument is result for argument in unfinished.args):
                    position = _position(unfinished.args, result)
                    run.same[call_id] = _id_of(unfinished.words, unfinished.call, position)
                store.peak_results = max(store.peak_results, len(store.objects))
            elif not isinstance(result, Tensor) and (result is not None or call_id):
                self._tell_value(store, run, call_id, operation, result)
        except CallFailed as skipped:
            self._tell_error(store, run, call_id, operation, entries, unfinished.kwargs, skipped.error)
        except Exception as error:
            mend(unfinished.args, unfinished.kwargs)
            told = _error(run, call_id, operation, error)
            self._tell_error(store, run, call_id, operation, entries, unfinished.kwargs, told)
        finally:
            run.index = behind
        return True

    def enter(self, store: ObjectStore, context: int) -> bool:
        """For a call of this context; False if it is not defined."""
        try:
            self._set_mode(store, context)
        except InvalidArgument:
            return False
        return True

    def failed(
        self, store: ObjectStore, run: BatchRun, call_id: int, operation: Operation, args: list[Any], error: Exception
    ) -> None:
        """Tell of a plain call that failed, as `_call` does."""
        if isinstance(error, CallFailed):
            self._tell_error(store, run, call_id, operation, (), {}, error.error)
            return
        mend(args, {})
        self._tell_error(store, run, call_id, operation, (), {}, _error(run, call_id, operation, error))

    def refused(self, store: ObjectStore, run: BatchRun, call_id: int, operation: Operation, args: list[Any]) -> None:
        """The same of one whose function takes no such arguments."""
        self.failed(store, run, call_id, operation, args, unsupported(operation.name, args))

    def _set_mode(self, store: ObjectStore, context: int) -> None:
        wanted = store.mode(context)
        if wanted is not self._mode:
            self.leave_mode()
            if wanted is not None:
                wanted.enter()
                self._mode = wanted

    def _tell_value(self, store: ObjectStore, run: BatchRun, call_id: int, operation: Operation, result: Any) -> None:
        encoder = replies.BY_CLASS.get(result.__class__)
        if encoder is not None:
            value = encoder(result)
            if len(value) <= store.reply_room:
                store.reply_room -= len(value)
                run.told.append(replies.result_field(run.index, value))
                return
        elif result.__class__ is Deferred:
            self._tell_later(store, run, call_id, operation, result)
            return
        elif (result.__class__ is tuple or result.__class__ is list) and len(result) > sequences.PIECE:
            pieces = sequences.told(store, call_id, operation.name, result)
            run.unfinished = Unfinished(pieces, run.index, run.number, 0, 0, operation, [], {}, None, None)
            self._go_on(store, run)
            return
        told = run.reply.results.add(call_index=run.index)
        try:
            held = encode(result, told.value)
            if held and not call_id:
                del run.reply.results[-1]
                return
            kind = result.__class__
            if kind is not float and kind is not int and kind is not bool:
                size = len(result.data) if kind is Elements else told.ByteSize()
                if size > store.reply_room:
                    raise _no_room(operation, size)
                store.reply_room -= size
        except Exception as error:
            # What a call returned may be what no message can say: an error of that call, and not of the batch.
            del run.reply.results[-1]
            self._tell_error(store, run, call_id, operation, (), {}, _error(run, call_id, operation, error))
            return
        if held:
            kept: Any = result
            if isinstance(result, (tuple, list, dict)):
                kept = Parts(result)
            store.objects[call_id] = kept

    def _tell_later(
        self, store: ObjectStore, run: BatchRun, call_id: int, operation: Operation, result: Deferred
    ) -> None:
        """Take note of a call that is told of when its elements have arrived. Room in the reply is taken now."""
        if result.size_bytes > store.reply_room:
            refusal = _no_room(operation, result.size_bytes)
            self._tell_error(store, run, call_id, operation, (), {}, _error(run, call_id, operation, refusal))
            return
        store.reply_room -= result.size_bytes
        run.deferred.append((run.index, call_id, operation, result))

    def complete(self, run: BatchRun) -> None:
        """Tell of the calls whose elements have arrived by now. From any thread, when the batch has ended."""
        for index, call_id, operation, result in run.deferred:
            try:
                value = result.value()
                encoder = replies.BY_CLASS.get(value.__class__)
                if encoder is not None:
                    run.told.append(replies.result_field(index, encoder(value)))
                else:
                    told = pb.Value()
                    encode(value, told)
                    run.reply.results.add(call_index=index, value=told)
            except Exception as error:
                run.index = index
                run.reply.results.add(call_index=index, error=_error(run, call_id, operation, error))
        run.deferred = []

    def _tell_error(
        self,
        store: ObjectStore,
        run: BatchRun,
        call_id: int,
        operation: Operation | None,
        entries: Iterable[pb.NamedValue],
        kwargs: dict[str, Any],
        error: pb.Error,
    ) -> None:
        """Tell of a failed or skipped call, and let those that need its result know."""
        self.failures[error.reason] = self.failures.get(error.reason, 0) + 1
        store.reply_room -= len(error.message)
        if store.reply_room < 0:
            error.message = error.message[:100]
        told = run.reply.results.add(call_index=run.index, error=error)
        if operation is not None:
            # An argument that could not be decoded is not among kwargs, but may be the very target.
            given = {entry.name: kwargs.get(entry.name, True) for entry in entries}
            told.lost_effect = operation.changes(given)
        is_refused = error.reason == "DUPLICATE_ID" or (call_id >= FIRST_SERVER_ID and run.operations is None)
        if call_id and not is_refused and call_id not in store.objects:
            store.objects[call_id] = Failed(error)

    def _tell_made(self, store: ObjectStore, run: BatchRun) -> None:
        """Describe every tensor of the batch that is still held."""
        objects = store.objects
        for call_id, index in run.made.items():
            tensor = objects.get(call_id)
            if not isinstance(tensor, Tensor):
                continue
            if run.operations is None and call_id not in run.same:
                value = replies.description(tensor)
                if value is not None:
                    run.told.append(replies.result_field(index, value))
                    continue
            told = run.reply.results.add(call_index=index)
            try:
                meta = told.value.tensor
                describe(tensor, meta)
            except InvalidArgument as error:
                run.index = index
                told.error.CopyFrom(_error(run, call_id, None, error))
                objects[call_id] = Failed(told.error)
                continue
            if run.operations is not None:
                meta.id.id = call_id
            same = run.same.get(call_id)
            if same is not None:
                meta.same_as.CopyFrom(pb.Ref(id=same) if isinstance(same, int) else same)


def _no_room(operation: Operation, size: int) -> Exhausted:
    return TooLarge(
        f"{operation.name}: the reply has no room for {size} bytes more; read in smaller batches, or as a tensor",
        reason="REPLY_TOO_LARGE",
    )


def _position(args: list[Any], wanted: torch.Tensor) -> int:
    return next(position for position, argument in enumerate(args) if argument is wanted)


def _id_of(words: Sequence[int] | None, call: pb.Call | None, position: int) -> int | pb.Ref:
    """The argument at that place, by name."""
    if words is not None or call is None:
        return packed.id_at(words or [], position)
    value = call.args[position]
    return value.ref if value.WhichOneof("kind") == "ref" else value.result


def _error(run: BatchRun, call_id: int, operation: Operation | None, error: Exception) -> pb.Error:
    details: dict[str, str] = {}
    if isinstance(error, ServerError):
        kind, message, reason = _server_error_type(error), error.message, error.reason
        details = error.details if reason == "LIMIT" else {}
    else:
        kind, message, reason = type(error).__name__.lstrip("_"), str(error), "OPERATION_FAILED"
        if isinstance(error, KeyError) and error.args:
            message = str(error.args[0])
        if is_out_of_memory(error):
            # On the CPU torch says RuntimeError, on CUDA this, which is one: a caller should need to know one only.
            kind, reason = "OutOfMemoryError", "OUT_OF_MEMORY"
        elif isinstance(error, UnknownOperation):
            kind, reason = "AttributeError", "UNKNOWN_OPERATION"
        elif is_device_lost(error):
            raise DeviceFailure(message) from error
        if kind not in _TRAVELS:
            kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _TRAVELS), "RuntimeError")
    if len(message) > _MAX_MESSAGE:
        message = message[:_MAX_MESSAGE] + " …"
    return pb.Error(
        type=kind,
        message=message.replace("\x00", "\\0"),
        operation=operation.name if operation is not None else "",
        call_id=call_id,
        batch_seq=run.seq,
        call_index=run.index,
        reason=reason,
        details=details,
    )


def _server_error_type(error: ServerError) -> str:
    if isinstance(error, UnknownId):
        return "KeyError"
    if isinstance(error, Exhausted):
        return "RuntimeError" if isinstance(error, TooLarge) else "OutOfMemoryError"
    return "ValueError" if isinstance(error, (InvalidArgument, AlreadyExists)) else "RuntimeError"
