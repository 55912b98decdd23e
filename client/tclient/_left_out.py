"""Names of torch that this client does not have, and what to do instead.

They say in an AttributeError what a user of torch needs to know. Knows no operations.
"""

from __future__ import annotations

_CALLABLE = "no code of a caller runs on the server"
_SPARSE = "sparse tensors are those of torch.sparse_coo here, whose indices can be checked; use sparse_coo_tensor"
_QUANTIZED = "quantized tensors are not supported; use float16 or bfloat16 to save memory"
_POINTER = "the memory of a tensor is the server's; read it with x.numpy() or x.tolist()"

_REASONS: dict[str, str] = {
    **dict.fromkeys(
        ("func.functionalize", "func.linearize", "fx", "export"),
        f"{_CALLABLE}; call the function as it is",
    ),
    **dict.fromkeys(("while_loop", "cond"), f"{_CALLABLE}; write the loop or condition in Python"),
    "to_dlpack": f"{_POINTER}, and make one with tclient.tensor(array)",
    "frombuffer": "use tclient.tensor(numpy.frombuffer(...))",
    "from_file": "the files of the server are not yours to read; use tclient.tensor(numpy.fromfile(...))",
    **dict.fromkeys(("jit.save", "jit.load"), "no code is kept in files; use save and load with a state_dict"),
    **dict.fromkeys(
        ("distributed.all_reduce", "distributed.all_gather", "distributed.broadcast"),
        "there are no groups of processes; a session may have several GPUs, which tensors name (cuda:1)",
    ),
    **dict.fromkeys(
        ("hub.load", "hub.list", "hub.help"),
        "models of others come as code, which is yours to fetch; import it, and load the weights with load",
    ),
    **dict.fromkeys(
        (
            "sparse_csr_tensor",
            "sparse_csc_tensor",
            "sparse_bsr_tensor",
            "sparse_bsc_tensor",
            "sparse_compressed_tensor",
            *(f"sparse.{name}" for name in ("sampled_addmm", "spsolve", "spdiags", "to_sparse_semi_structured")),
            *("sparse.SparseSemiStructuredTensor", "sparse.as_sparse_gradcheck"),
        ),
        _SPARSE,
    ),
    **dict.fromkeys(
        ("nn.LinearCrossEntropyLoss", "nn.LinearCrossEntropyOptions"), "use nn.Linear and nn.CrossEntropyLoss"
    ),
    "nn.CrossMapLRN2d": "use nn.LocalResponseNorm",
    "nn.factory_kwargs": "give device and dtype by their names",
    **dict.fromkeys(
        ("nn.functional.grouped_mm", "nn.functional.scaled_mm", "nn.functional.scaled_grouped_mm"),
        "it is for formats of single accelerators; multiply matrices of float16 or bfloat16",
    ),
    **dict.fromkeys(
        ("nn.parallel.gather", "nn.parallel.scatter", "nn.parallel.replicate", "nn.parallel.parallel_apply"),
        "a network is not copied to several GPUs; move its parts with .to(device)",
    ),
    **dict.fromkeys(("quantize_per_tensor", "quantize_per_channel", "quantize_per_tensor_dynamic"), _QUANTIZED),
}

_TENSOR_REASONS: dict[str, str] = {
    **dict.fromkeys(("apply_", "map_", "map2_"), f"{_CALLABLE}; use operations on whole tensors"),
    **dict.fromkeys(
        (
            "storage_type",
            "set_",
            "__cuda_array_interface__",
        ),
        _POINTER,
    ),
    **dict.fromkeys(("share_memory_", "record_stream"), _POINTER),
    **dict.fromkeys(
        (
            "to_sparse_csr",
            "to_sparse_csc",
            "to_sparse_bsr",
            "to_sparse_bsc",
        ),
        _SPARSE,
    ),
    "to_mkldnn": "only strided tensors travel",
}


def reason(name: str) -> str | None:
    """Why a module has no such name, if torch's has one."""
    return _REASONS.get(name)


def reason_of_tensor(name: str) -> str | None:
    """Why a tensor has no such attribute, if torch's has one."""
    return _TENSOR_REASONS.get(name)
