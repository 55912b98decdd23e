"""Reviewed: what no signature and no schema says, or says wrongly, of what operations return and change."""

from __future__ import annotations

from typing import Any

from operations.lists import words

Returns = Any  # "tensor", "self", "none", "object", "wait", {"fields": …}, {"count": …}, or a list of overloads

_INPUT: list[Any] = ["input", "tensor", True, False]


def _flags(*flags: str) -> list[list[Any]]:
    return [[flag, "bool", False, False] for flag in flags]


_AT_LEAST: list[dict[str, Any]] = [
    {"params": [_INPUT], "returns": "tensor"},
    {"params": [["*tensors", "any", False, False]], "returns": "wait"},
]
_LU: list[dict[str, Any]] = [
    {
        "params": [
            _INPUT,
            ["pivot", "bool", False, False],
            ["get_infos", "false", False, False],
            ["out", "any", False, False],
        ],
        "returns": {"count": 2},
    },
    {
        "params": [
            _INPUT,
            ["pivot", "bool", False, False],
            ["get_infos", "true", True, False],
            ["out", "any", False, False],
        ],
        "returns": {"count": 3},
    },
]

_LU_WITH_INFO = "torch.return_types._lu_with_info"  # whatever its type says, only torch.lu returns it


def _unique(before: list[str]) -> list[dict[str, Any]]:
    """unique and unique_consecutive return as many tensors as flags are set, and one."""
    found: list[dict[str, Any]] = []
    for inverse in ("false", "true"):
        for counts in ("false", "true"):
            several = 1 + (inverse == "true") + (counts == "true")
            found.append(
                {
                    "params": [
                        _INPUT,
                        *_flags(*before),
                        ["return_inverse", inverse, inverse == "true", False],
                        ["return_counts", counts, counts == "true", False],
                        ["dim", "int|none", False, False],
                    ],
                    "returns": "tensor" if several == 1 else {"count": several},
                }
            )
    return found


def _as_method(overloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**overload, "params": [["self", "tensor", True, False], *overload["params"][1:]]} for overload in overloads
    ]


_ONE_TENSOR = words("""
block_diag cartesian_prod cdist chain_matmul einsum norm stft istft tensordot tensor as_tensor asarray from_numpy
complex polar scalar_tensor
nn.functional.logsigmoid nn.functional.sigmoid nn.functional.tanh nn.functional.hardsigmoid nn.functional.hardswish
nn.functional.upsample nn.functional.upsample_bilinear nn.functional.upsample_nearest
nn.functional.scaled_dot_product_attention nn.functional.linear_cross_entropy
Tensor.__pos__ Tensor.__reversed__ Tensor.__rlshift__ Tensor.__rrshift__ Tensor.__rmatmul__
Tensor.__rmod__ Tensor.__rdiv__ Tensor.cdouble Tensor.cfloat Tensor.norm Tensor.resize Tensor.resize_as
Tensor.stft Tensor.istft Tensor.new_tensor Tensor.unflatten
get_rng_state Generator.get_state
nn.utils.get_total_norm nn.utils.clip_grad_norm_ nn.utils.parameters_to_vector nn.utils.rnn.pad_sequence
masked.amax masked.amin masked.argmax masked.argmin masked.cumprod masked.cumsum
masked.log_softmax masked.logaddexp masked.logsumexp masked.mean masked.median masked.norm
masked.normalize masked.prod masked.softmax masked.softmin masked.std masked.sum
masked.var
sparse_coo_tensor sparse.mm sparse.addmm sparse.sum sparse.softmax sparse.log_softmax Tensor._indices Tensor._values
""")

_NOTHING = words("""
Tensor.backward autograd.backward Tensor.retain_grad Tensor.__setitem__ Tensor.__delitem__
Tensor.grad.__set__ Tensor.data.__set__ Tensor.requires_grad.__set__ Tensor.real.__set__ Tensor.imag.__set__
Tensor.grad_dtype.__set__ set_rng_state set_default_dtype set_printoptions nn.utils.clip_grad_value_
nn.utils.clip_grads_with_norm_ nn.utils.vector_to_parameters
""")

_SELF = words("""
Tensor.__iadd__ Tensor.__iand__ Tensor.__ifloordiv__ Tensor.__ilshift__ Tensor.__imod__ Tensor.__imul__ Tensor.__ior__
Tensor.__ipow__ Tensor.__irshift__ Tensor.__isub__ Tensor.__itruediv__ Tensor.__ixor__ Tensor.__idiv__
Generator.manual_seed Generator.set_state
nn.init.uniform_ nn.init.normal_ nn.init.trunc_normal_ nn.init.constant_ nn.init.ones_ nn.init.zeros_ nn.init.eye_
nn.init.dirac_ nn.init.xavier_uniform_ nn.init.xavier_normal_ nn.init.kaiming_uniform_ nn.init.kaiming_normal_
nn.init.orthogonal_ nn.init.sparse_
""")

RETURNS: dict[str, Returns] = {
    **dict.fromkeys(_ONE_TENSOR, "tensor"),
    **dict.fromkeys(_NOTHING, "none"),
    **dict.fromkeys(_SELF, "self"),
    "atleast_1d": _AT_LEAST,
    "atleast_2d": _AT_LEAST,
    "atleast_3d": _AT_LEAST,
    "lu": [_LU[0], {**_LU[1], "returns": {"fields": ["LU", "pivots", "info"], "type": _LU_WITH_INFO}}],
    "Tensor.lu": _as_method([{**o, "params": o["params"][:3]} for o in _LU]),
    "unique": _unique(["sorted"]),
    "Tensor.unique": _as_method(_unique(["sorted"])),
    "unique_consecutive": _unique([]),
    "Tensor.unique_consecutive": _as_method(_unique([])),
    "lobpcg": {"count": 2},
    "pca_lowrank": {"count": 3},
    "svd_lowrank": {"count": 3},
    "Generator": "object",
    "Generator.clone_state": "object",
    # The stubs say a tuple of tensors: the second item is one, of unknown length.
    "histogramdd": "wait",
    # The stubs say None.
    "split_copy": "wait",
    "split_with_sizes_copy": "wait",
    "unbind_copy": "wait",
    # None before backward.
    "Tensor.grad.__get__": "wait",
    "manual_seed": "object",
    "nn.functional.multi_head_attention_forward": "wait",
}

# Tensors that are written although no schema says so. The flag is the parameter that asks for it.
WRITES: dict[str, list[str]] = {
    "Tensor.__setitem__": ["self"],
    "Tensor.__delitem__": ["self"],
    "Tensor.grad.__set__": ["self"],
    "Tensor.data.__set__": ["self"],
    "Tensor.requires_grad.__set__": ["self"],
    "Tensor.real.__set__": ["self"],
    "Tensor.imag.__set__": ["self"],
    "Tensor.grad_dtype.__set__": ["self"],
    "Tensor.retain_grad": ["self"],
    "Tensor.requires_grad_": ["self"],
    "Tensor.detach_": ["self"],
}

_RUNNING = ["running_mean", "running_var"]
WRITES_IF: dict[str, dict[str, Any]] = {
    "batch_norm": {"flag": "training", "default": False, "writes": _RUNNING},
    "nn.functional.batch_norm": {"flag": "training", "default": False, "writes": _RUNNING},
    "instance_norm": {"flag": "use_input_stats", "default": True, "writes": _RUNNING},
    "nn.functional.instance_norm": {"flag": "use_input_stats", "default": True, "writes": _RUNNING},
    "nn.functional.embedding": {"flag": "max_norm", "default": False, "writes": ["weight"]},
    # It takes input and weight in the other order, too.
    "nn.functional.embedding_bag": {"flag": "max_norm", "default": False, "writes": ["self", "weight"]},
}

# Operations that draw although no schema says so: Python functions over those that do.
RANDOM = frozenset(
    words("""
    manual_seed seed set_rng_state get_rng_state
    nn.functional.dropout nn.functional.dropout1d nn.functional.dropout2d nn.functional.dropout3d
    nn.functional.alpha_dropout nn.functional.feature_alpha_dropout nn.functional.gumbel_softmax nn.functional.rrelu
    nn.functional.fractional_max_pool2d nn.functional.fractional_max_pool2d_with_indices
    nn.functional.fractional_max_pool3d nn.functional.fractional_max_pool3d_with_indices
    nn.functional.scaled_dot_product_attention nn.functional.multi_head_attention_forward
    lobpcg pca_lowrank svd_lowrank
    nn.init.uniform_ nn.init.normal_ nn.init.trunc_normal_ nn.init.xavier_uniform_ nn.init.xavier_normal_
    nn.init.kaiming_uniform_ nn.init.kaiming_normal_ nn.init.orthogonal_ nn.init.sparse_
    """)
)

# Operations that change something of the session that is no argument: the random state, the default dtype, how tensors
# are printed, the gradients of leaves.
STATE = frozenset(
    words("""
    manual_seed seed set_rng_state set_default_dtype set_printoptions
    Generator.manual_seed Generator.seed Generator.set_state Generator.set_offset
    Tensor.backward autograd.backward
    nn.utils.clip_grad_norm_ nn.utils.clip_grad_value_ nn.utils.clip_grads_with_norm_ nn.utils.vector_to_parameters
    """)
)

# In-place operations after which shape, strides, dtype or what autograd knows of the target may differ. (Every in-place
# operation may turn requires_grad on.)
META_CHANGE = frozenset(
    words("""
    Tensor.t_ Tensor.transpose_ Tensor.swapaxes_ Tensor.swapdims_ Tensor.squeeze_ Tensor.unsqueeze_
    Tensor.resize_ Tensor.resize_as_ Tensor.as_strided_ Tensor.requires_grad_ Tensor.detach_
    Tensor.addbmm_
    Tensor.data.__set__ Tensor.requires_grad.__set__ as_strided_ detach_ resize_as_
    nn.utils.vector_to_parameters
    """)
)

# Results (or what a target gains) that torch leaves uninitialised: freed memory of others shows, unless it is zeroed.
UNINITIALIZED = frozenset(
    words(
        """
        empty empty_like empty_strided empty_permuted Tensor.new_empty Tensor.new_empty_strided
        Tensor.resize_ Tensor.resize_as_ resize_as_
        """
    )
)
