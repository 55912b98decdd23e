"""What goes wrong is raised as torch raises it, where the caller can see it, and once."""

from __future__ import annotations

import builtins
import inspect
import subprocess
import sys
import traceback
import warnings
from types import ModuleType
from typing import Any, Literal

import grpc
import numpy as np
import pytest
import torch

import tclient
from tclient import _exceptions
from tclient._transport.statuses import translate
from tensorcompute.v1 import status_pb2
from tests.support.serving import ServerProcess, server_environment, serving


def line() -> int:
    """The line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_failed_call_poisons_what_depends_on_it_and_nothing_else(tc: ModuleType) -> None:
    good = tc.ones(2)
    bad, where = tc.ones(2) + tc.ones(3), line()
    worse = (bad * 2).sum()
    fine = good * 3
    with pytest.raises(RuntimeError, match="must match the size") as caught:
        worse.item()
    error = caught.value
    assert isinstance(error, tc.TensorError)
    assert (error.operation, error.filename, error.lineno) == ("Tensor.__add__", __file__, where)
    assert error.__notes__ == [f"`Tensor.__add__` issued at {__file__}:{where}"]
    with pytest.raises(RuntimeError):
        bad.tolist()
    assert fine.tolist() == [3.0, 3.0]


def test_a_failed_effect_is_raised_by_the_next_wait_once(tc: ModuleType) -> None:
    x, other = tc.ones(2), tc.ones(4)
    x.add_(tc.ones(3))
    where = line() - 1
    with pytest.raises(tc.TensorError, match="must match the size") as caught:
        other.sum().item()
    assert caught.value.lineno == where
    assert x.tolist() == [1.0, 1.0]
    tc.synchronize()


def test_effects_that_were_skipped_for_one_reason_are_raised_once(tc: ModuleType) -> None:
    bad = tc.ones(2) + tc.ones(3)
    x = tc.ones(2)
    for _ in range(5):
        x.add_(bad)
    with pytest.raises(RuntimeError, match="must match the size"):
        bad.tolist()
    assert x.tolist() == [1.0, 1.0]


def test_two_failed_effects_are_raised_one_after_the_other(tc: ModuleType) -> None:
    x = tc.ones(2)
    x.add_(tc.ones(3))
    x[7] = 1
    with pytest.raises(RuntimeError):
        x.tolist()
    with pytest.raises(IndexError):
        x.tolist()
    assert x.tolist() == [1.0, 1.0]


def test_synchronize_raises_a_failed_effect(tc: ModuleType) -> None:
    tc.ones(2).add_(tc.ones(3))
    with pytest.raises(RuntimeError):
        tc.synchronize()
    tc.synchronize()


def test_close_raises_a_failed_effect(server: ServerProcess) -> None:
    session = tclient.connect(server.address)
    tclient.ones(2).add_(tclient.ones(3))
    with pytest.raises(RuntimeError):
        session.close()
    session.close()


def test_an_exception_in_the_block_is_not_hidden_by_that_of_a_failed_effect(server: ServerProcess) -> None:
    def block() -> None:
        with tclient.connect(server.address):
            tclient.ones(2).add_(tclient.ones(3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()


def test_an_error_that_nobody_read_is_warned_about(server: ServerProcess) -> None:
    session = tclient.connect(server.address)
    tclient.ones(2) + tclient.ones(3)
    with pytest.warns(RuntimeWarning, match=r"`Tensor.__add__` failed \(issued at .*test_errors.py:\d+\)"):
        session.close()


def test_an_error_that_nobody_read_is_told_at_exit(server: ServerProcess) -> None:
    script = "import sys, tclient\ntclient.connect(sys.argv[1])\nx = tclient.ones(2) + tclient.ones(3)\n"
    script += "tclient.ones(2).add_(tclient.ones(5))\n"
    done = subprocess.run(
        [sys.executable, "-c", script, server.address],
        capture_output=True,
        text=True,
        timeout=60,
        env=server_environment(),
        check=False,
    )
    assert done.returncode == 0
    assert "`Tensor.__add__` failed" in done.stderr
    assert "size of tensor b (5)" in done.stderr


def test_synchronous_mode_raises_at_the_line_of_the_call(tc: ModuleType) -> None:
    with tc.synchronous(True):
        with pytest.raises(tc.TensorError) as caught:
            tc.ones(2).add_(tc.ones(3))
        with pytest.raises(IndexError):
            tc.ones(2)[5]
        assert any(entry.lineno == caught.value.lineno for entry in traceback.extract_tb(caught.value.__traceback__))
    tc.synchronize()
    before = tclient._session.current.current().stats.waits
    tc.ones(2) + 1
    assert tclient._session.current.current().stats.waits == before


def test_a_line_within_a_function_of_the_caller_is_the_one_that_is_named(tc: ModuleType) -> None:
    def helper() -> Any:
        return tc.nn.functional.linear(
            tc.ones(2, 3),
            tc.ones(4, 5),
        )

    with pytest.raises(tc.TensorError) as caught:
        helper().tolist()
    assert caught.value.filename == __file__
    assert helper.__code__.co_firstlineno < caught.value.lineno <= helper.__code__.co_firstlineno + 4


def test_torch_s_warnings_arrive_as_warnings_of_the_caller_s_line(tc: ModuleType) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tc.tensor(tc.ones(2))
        where = line() - 1
        tc.synchronize()
    told = [each for each in caught if "copy construct" in str(each.message)]
    assert [(each.category, each.filename, each.lineno) for each in told] == [(UserWarning, __file__, where)]


@pytest.mark.parametrize("kind", ["error", "ignore"])
def test_what_a_call_failed_of_comes_before_what_it_warned_of(tc: ModuleType, kind: Literal["error", "ignore"]) -> None:
    def misfit(module: Any) -> None:
        # Resizes what it is to write to, which is warned of, and does not fit its dtype.
        module.matmul(module.ones(2, 3), module.ones(3, 4), out=module.zeros(1, dtype=module.int64))
        module.ones(1).item()

    raised = []
    for module in (torch, tc):
        with warnings.catch_warnings():
            warnings.simplefilter(kind)
            with pytest.raises(RuntimeError) as told:
                misfit(module)
        raised.append(str(told.value).splitlines()[0])
    assert raised[0].rstrip(".") in raised[1]


KINDS = {
    "RuntimeError": lambda tc: tc.ones(2) + tc.ones(3),
    "IndexError": lambda tc: tc.ones(2)[5],
    "TypeError": lambda tc: tc.ones(2).add(1, foo=2),
    "ValueError": lambda tc: tc.tensor([[1, 2], [3]]),
    "NotImplementedError": lambda tc: tc.ones(2) & tc.ones(2),
    "ZeroDivisionError": lambda tc: tc.ones(2, dtype=tc.int64) // 0,
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_raised_is_torch_s_class_and_ours(tc: ModuleType, name: str) -> None:
    # Division of integers by zero is a ZeroDivisionError in Python, but a RuntimeError in torch.
    expected = RuntimeError if name == "ZeroDivisionError" else getattr(builtins, name)
    with pytest.raises(expected) as caught:
        KINDS[name](tc).tolist()
    assert isinstance(caught.value, tc.TensorError)


def test_linear_algebra_s_error_is_a_class_of_its_own(tc: ModuleType) -> None:
    with pytest.raises(tc.LinAlgError, match="singular"):
        tc.linalg.inv(tc.zeros(2, 2)).tolist()


def test_every_status_of_grpc_has_its_exception() -> None:
    statuses = {code.name for code in grpc.StatusCode} - {"OK"}
    assert set(_exceptions.BY_STATUS) == statuses


REFUSALS = {
    "busy": (b"RESOURCE_EXHAUSTED", "", "ServerBusy"),
    "a full queue": (b"QUEUE_FULL", "", "ServerBusy"),
    "no memory": (b"OUT_OF_MEMORY", "", "OutOfMemoryError"),
    "a quota": (b"QUOTA_EXCEEDED", "", "OutOfMemoryError"),
    "outputs": (b"TOO_LARGE_FOR_A_MESSAGE", "", "RequestRefused"),
    "a reply": (b"REPLY_TOO_LARGE", "", "RequestRefused"),
    "a disk": (b"DISK", "", "ServerFailed"),
    "grpc in C": (b"", "SERVER: Received message larger than max (8116209 vs. 4194304)", "RequestRefused"),
    "grpc in Go": (b"", "grpc: received message larger than max (5 vs. 4)", "RequestRefused"),
    "grpc in Java": (b"", "gRPC message exceeds maximum size 4: 5", "RequestRefused"),
}


@pytest.mark.parametrize(("reason", "text", "kind"), REFUSALS.values(), ids=REFUSALS)
def test_a_server_is_busy_only_where_trying_again_helps(reason: bytes, text: str, kind: str) -> None:
    class Refused(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.RESOURCE_EXHAUSTED

        def details(self) -> str:
            return text or "no"

        def trailing_metadata(self) -> Any:
            if not reason:
                return ()
            status = status_pb2.Status(code=8)
            info = status_pb2.ErrorInfo(reason=reason.decode(), domain="tensorcompute")
            status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString())
            return (("grpc-status-details-bin", status.SerializeToString()),)

    assert type(translate(Refused(), "here:1")).__name__ == kind


def test_memory_that_an_upload_does_not_get_is_told_as_all_memory_is() -> None:
    with serving("--max-session-bytes", "3000000") as server, tclient.connect(server.address):
        for make in (tclient.from_numpy, tclient.tensor):
            with pytest.raises(tclient.OutOfMemoryError, match="3000000"):
                make(np.zeros(4_000_000, np.uint8)).sum().item()
        assert tclient.ones(3).tolist() == [1.0] * 3


def test_every_class_of_the_table_is_the_builtin_that_it_is_named_for() -> None:
    for name, kind in _exceptions.BY_TYPE.items():
        assert issubclass(kind, _exceptions.TensorError)
        if hasattr(builtins, name) and name not in ("LookupError", "StopIteration"):
            assert issubclass(kind, getattr(builtins, name)), name


def test_the_tree_at_the_top_of_the_file_names_every_class() -> None:
    assert _exceptions.__doc__ is not None
    for name, kind in vars(_exceptions).items():
        if inspect.isclass(kind) and issubclass(kind, _exceptions.TensorError):
            assert name in _exceptions.__doc__


def test_a_name_that_does_not_exist_gets_the_nearest_that_do(tc: ModuleType) -> None:
    with pytest.raises(AttributeError, match=r"nearest: .*ones"):
        tc.onse
    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'reshpae'") as caught:
        tc.ones(2).reshpae
    assert "reshape" in caught.value.__notes__[0]
    with pytest.raises(AttributeError, match="relu"):
        tc.nn.functional.rleu


def test_an_operation_that_the_server_lacks_is_said_to_be_lacking_there(tc: ModuleType) -> None:
    from tclient._issue import call_builtin

    with pytest.raises(AttributeError, match=r"does not have the operation `tc\.not_yet`.*upgrade"):
        call_builtin("tc.not_yet", tc.ones(2))


def test_a_callable_is_refused_before_it_is_sent(tc: ModuleType) -> None:
    with pytest.raises(TypeError, match="callable"):
        tc.add(tc.ones(2), print)
