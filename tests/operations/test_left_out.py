"""Nothing that touches files, processes, pickles, pointers, code or the process's settings can be called.

Shown by name, by kind of function, and by trying: every operation runs under the interpreter's audit hook.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.operations.calls import ROOT, table, targets
from tests.support.raw import RawSession
from tests.support.serving import ServerProcess
from tserver.engine.operations import Operations, UnknownOperation

_FORBIDDEN = {
    "files and pickles": """save load serialization.save serialization.load hub.load from_file Tensor.__reduce_ex__
        Tensor.__reduce__ Tensor.__setstate__ Tensor.__getstate__ Generator.__reduce__ Generator.__setstate__
        jit.load jit.save package.PackageImporter ops.load_library classes.load_library UntypedStorage.from_file
        FloatStorage.from_buffer get_file_path import_ir_module import_ir_module_from_buffer utils.data.DataLoader""",
    "processes and libraries": """multiprocessing.Process multiprocessing.spawn distributed.init_process_group
        distributed.rpc.rpc_sync utils.cpp_extension.load utils.cpp_extension.load_inline fork wait os.system sys.exit
        cuda.cudart _C._cuda_setDevice prepare_multiprocessing_environment""",
    "pointers and storages": """Tensor.data_ptr Tensor.const_data_ptr Tensor.storage Tensor.untyped_storage
        Tensor._typed_storage Tensor.set_ Tensor.share_memory_ Tensor.pin_memory Tensor.__dlpack__ from_dlpack to_dlpack
        utils.dlpack.from_dlpack frombuffer Tensor.__cuda_array_interface__.__get__ Tensor._cdata.__get__
        UntypedStorage Tensor.new Tensor._make_subclass Tensor.as_subclass Tensor.record_stream _C._set_storage_data""",
    "code and callables": """compile jit.script jit.trace jit.CompilationUnit vmap func.vmap cond while_loop
        Tensor.register_hook Tensor.register_post_accumulate_grad_hook Tensor.apply_ Tensor.map_ Tensor.map2_
        autograd.Function autograd.functional.jacobian library.Library library.define parse_ir fx.symbolic_trace
        overrides.TorchFunctionMode utils.checkpoint.checkpoint __import__ __builtins__.eval eval exec nn.Module""",
    "settings of the whole process": """set_num_threads set_num_interop_threads set_default_device
        set_default_tensor_type use_deterministic_algorithms set_deterministic_debug_mode set_flush_denormal
        set_warn_always set_float32_matmul_precision autograd.set_detect_anomaly set_anomaly_enabled
        set_autocast_enabled set_grad_enabled _C._set_deterministic_algorithms cuda.set_device cuda.empty_cache
        backends.cudnn.set_flags sparse.check_sparse_tensor_invariants""",
    "paths out of the table": """Tensor Tensor.__class__ Tensor.__init__ Tensor.__new__ Tensor.__getattribute__
        Tensor.__setattr__ Tensor.__dict__ Tensor.__subclasshook__ Tensor.add.__self__ Tensor.add.__class__
        add.__globals__ functional.split.__globals__ nn.functional.relu.__globals__ Generator.__class__ ops.aten.add
        _C._VariableFunctions.add nn.functional.torch.save os sys storage __name__ __doc__ tc.__class__""",
    "malformed memory": """sparse_csr_tensor sparse_compressed_tensor quantize_per_tensor
        _sparse_coo_tensor_unsafe segment_reduce native_batch_norm native_group_norm _unsafe_index _embedding_bag
        mkldnn_rnn_layer nested.nested_tensor""",
}
_NAMES = [
    pytest.param(name, id=f"{kind.replace(' ', '-')}-{name}")
    for kind, text in _FORBIDDEN.items()
    for name in text.split()
]


@pytest.fixture(scope="module")
def operations() -> Operations:
    return Operations([])


@pytest.mark.parametrize("name", _NAMES)
def test_a_forbidden_name_is_not_in_the_table_and_is_refused(operations: Operations, name: str) -> None:
    assert name not in table()
    with pytest.raises(UnknownOperation, match="operation"):
        operations.get(name).function()


def test_a_running_server_refuses_every_forbidden_name(server: ServerProcess) -> None:
    names = [str(param.values[0]) for param in _NAMES]
    with RawSession(server.address) as session:
        reply = session.run(*(session.call(0, name) for name in names))
        assert {error.reason for error in reply.errors.values()} == {"UNKNOWN_OPERATION"}
        assert len(reply.errors) == len(names)
        session.run(session.call(1, "ones", 2)).clean()


def test_no_operation_comes_from_a_module_of_files_or_processes() -> None:
    forbidden = ("serialization", "multiprocessing", "hub", "jit", "distributed", "package", "dlpack", "fx", "storage")
    for name, target in targets().items():
        module = getattr(target, "__module__", None) or ""
        assert not any(part in forbidden for part in module.split(".")), f"{name} comes from {module}"


def test_no_operation_has_a_parameter_for_a_file_or_a_function() -> None:
    forbidden = {
        "file",
        "filename",
        "fileobj",
        "path",
        "f",
        "fn",
        "func",
        "callable",
        "hook",
        "pickle_module",
        "storage",
    }
    takes_none_only = {"nn.functional.triplet_margin_with_distance_loss", "lobpcg"}
    for name, target in targets().items():
        try:
            parameters = inspect.signature(target).parameters
        except (TypeError, ValueError):
            continue
        named = {parameter.lower() for parameter in parameters}
        hits = named & forbidden
        annotated = any("Callable" in str(parameter.annotation) for parameter in parameters.values())
        assert name in takes_none_only or not (hits or annotated), f"{name}{tuple(parameters)}"


def test_no_target_is_a_class_but_the_generator() -> None:
    classes = [name for name, target in targets().items() if isinstance(target, type)]
    assert classes == ["Generator"]
    assert not [name for name, target in targets().items() if inspect.ismodule(target)]


_TRYING = """
import sys, warnings
import torch
torch.set_num_threads(1)
from tests.operations.calls import from_torch, from_us, operators
from tests.operations.samples import SAMPLES

warnings.simplefilter("ignore")

calls = [call for operator in operators() for call in from_torch(operator, 1)]
calls += [call for name in SAMPLES for call in from_us(name)]
seen, watching, current = set(), False, ""

def watch(event, arguments):
    if watching and not event.startswith(("object.", "sys._getframe", "code.__new__", "warnings.")):
        seen.add((current, event))

sys.addaudithook(watch)
for turn in range(2):  # the first one loads what is loaded on first use
    for call in calls:
        current = call.entry["name"]
        watching = turn == 1
        try:
            call.run()
        except Exception:
            pass
        watching = False
print(sorted(seen))
"""


def test_no_operation_opens_a_file_starts_a_process_or_runs_code() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])}
    done = subprocess.run(
        [sys.executable, "-c", _TRYING],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]", done.stdout


def test_what_is_written_to_a_tensor_of_another_session_stays_impossible_without_its_handle() -> None:
    # as_strided is the one way to name memory by numbers: torch holds it to the tensor's own storage.
    x: Any = torch.ones(3)
    for size, stride, offset in [((4,), (1,), 0), ((1,), (1,), 3), ((2,), (2**62,), 0), ((1,), (1,), -1)]:
        with pytest.raises(RuntimeError):
            torch.as_strided(x, size, stride, offset)
