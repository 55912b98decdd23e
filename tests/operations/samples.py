"""Samples of our own: one or more calls for each operation that torch's shipped samples do not reach.

A sample is the arguments, then the keyword arguments as a dict if there are any.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from operations.lists import words


def _x() -> torch.Tensor:
    return torch.tensor([[1.5, -2.0, 3.0], [0.25, 5.0, -6.0]])


def _square() -> torch.Tensor:
    return torch.tensor([[2.0, 1.0], [1.0, 3.0]])


def _ints() -> torch.Tensor:
    return torch.tensor([[1, 2, 3], [4, 5, 6]])


def _grad() -> torch.Tensor:
    return _x().requires_grad_()


def _image() -> torch.Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def _volume() -> torch.Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 8 * 8 * 8).reshape(2, 3, 8, 8, 8)


def _signal() -> torch.Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 16).reshape(2, 3, 16)


def _complex() -> torch.Tensor:
    return torch.tensor([1 + 2j, 3 - 1j])


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _rnn(gates: int) -> list[torch.Tensor]:
    return [torch.ones(gates * 4, 3), torch.ones(gates * 4, 4), torch.ones(gates * 4), torch.ones(gates * 4)]


def _deep(gates: int) -> list[torch.Tensor]:
    """The weights of two layers: dropout acts between them."""
    second = [torch.ones(gates * 4, 4), torch.ones(gates * 4, 4), torch.ones(gates * 4), torch.ones(gates * 4)]
    return [*_rnn(gates), *second]


def _sparse() -> torch.Tensor:
    return torch.tensor([[0.0, 0.0, 3.0], [4.0, 0.0, 5.0]]).to_sparse()


def _with_grad() -> torch.Tensor:
    x = _grad()
    x.sum().backward()
    return x


_UNARY_IN_PLACE = words("""
abs_ acos_ acosh_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ asin_ asinh_ atan_ atanh_ ceil_ celu_
conj_physical_ cos_ cosh_ deg2rad_ detach_ erf_ erfc_ exp2_ exp_ expm1_ fix_ floor_ frac_ i0_ log10_ log1p_ log2_ log_
logit_ nan_to_num_ neg_ negative_ rad2deg_ reciprocal_ relu_ round_ rrelu_ rsqrt_ selu_ sigmoid_ sin_ sinc_ sinh_ sqrt_
square_ tan_ tanh_ trunc_ zero_ nn.functional.celu_ nn.functional.elu_ nn.functional.hardtanh_
nn.functional.leaky_relu_ nn.functional.relu_ nn.functional.rrelu_ nn.functional.selu_ Tensor.relu Tensor.relu_
Tensor.hardshrink celu detach detach_copy Tensor.cpu Tensor.detach Tensor.detach_
Tensor.requires_grad_ Tensor.to_dense dequantize Tensor.dequantize nn.init.ones_ nn.init.zeros_ nn.init.uniform_
nn.init.normal_ nn.init.trunc_normal_ nn.init.eye_ nn.init.xavier_uniform_ nn.init.xavier_normal_
nn.init.kaiming_uniform_ nn.init.kaiming_normal_ nn.init.orthogonal_ nn.functional.gumbel_softmax
nn.functional.dropout nn.functional.dropout1d nn.functional.alpha_dropout nn.functional.rrelu
""")

_QUESTIONS = words("""
Tensor.dim Tensor.dim_order Tensor.element_size Tensor.get_device Tensor.is_complex Tensor.is_conj
Tensor.is_contiguous Tensor.is_distributed Tensor.is_floating_point Tensor.is_inference Tensor.is_neg Tensor.is_pinned
Tensor.is_shared Tensor.is_signed Tensor.ndimension Tensor.nelement Tensor.numel Tensor.numpy Tensor.size
Tensor.sparse_dim Tensor.dense_dim Tensor.storage_offset Tensor.stride Tensor.tolist Tensor.type Tensor._is_view
Tensor.__len__ Tensor.__repr__ get_device is_complex is_conj is_distributed is_floating_point is_inference is_neg
is_signed numel Tensor.__reversed__ Tensor.__pos__
""")

_PROPERTIES = words("""
H T mH mT real data device dtype grad grad_dtype grad_fn is_cpu is_cuda is_ipu is_leaf is_maia is_meta is_mkldnn is_mps
is_mtia is_nested is_quantized is_sparse is_sparse_csr is_vulkan is_xla is_xpu itemsize layout name nbytes ndim
output_nr requires_grad retains_grad shape _version
""")

_BINARY = words("""
add and div eq floordiv ge gt iadd iand ifloordiv ilshift imod imul ior ipow irshift isub ixor le lshift lt
mod mul ne or pow radd rand rdiv rfloordiv rlshift rmod rmul ror rpow rrshift rshift rsub rtruediv rxor sub truediv xor
""")

_NUMBER = torch.tensor([3])

_POOLS: dict[str, list[Any]] = {
    "adaptive_max_pool1d": [lambda: (_signal(), 4), lambda: (_signal(), 4, True)],
    "adaptive_max_pool2d": [lambda: (_image(), 4), lambda: (_image(), (4, 4), {"return_indices": True})],
    "adaptive_max_pool3d": [lambda: (_volume(), 4), lambda: (_volume(), 4, {"return_indices": True})],
    "max_pool1d": [lambda: (_signal(), 2), lambda: (_signal(), 2, {"return_indices": True})],
    "max_pool2d": [lambda: (_image(), 2), lambda: (_image(), 2, None, 0, 1, False, True)],
    "max_pool3d": [lambda: (_volume(), 2), lambda: (_volume(), 2, {"return_indices": True})],
    "fractional_max_pool2d": [
        lambda: (_image(), 2, 4),
        lambda: (_image(), 2, {"output_ratio": (0.5, 0.5), "return_indices": True}),
    ],
    "fractional_max_pool3d": [lambda: (_volume(), 2, 4), lambda: (_volume(), 2, 4, None, True)],
}

SAMPLES: dict[str, list[Any]] = {
    **{name: [lambda: (_x(),)] for name in _UNARY_IN_PLACE},
    **{name: [lambda: (_x(),)] for name in _QUESTIONS},
    **{f"Tensor.{name}.__get__": [lambda: (_square(),), lambda: (_square().requires_grad_(),)] for name in _PROPERTIES},
    **{f"Tensor.__{name}__": [lambda: (_ints(), _ints()), lambda: (_ints(), 2)] for name in _BINARY},
    "Tensor.__itruediv__": [lambda: (_x(), _x())],
    "Tensor.__idiv__": [lambda: (_x(), _x())],
    "Tensor.__matmul__": [lambda: (_square(), _square())],
    "Tensor.__rmatmul__": [lambda: (_square(), _square())],
    "Tensor.__invert__": [lambda: (_ints(),)],
    "Tensor.__bool__": [lambda: (_NUMBER,)],
    "Tensor.__int__": [lambda: (_NUMBER,)],
    "Tensor.__long__": [lambda: (_NUMBER,)],
    "Tensor.__nonzero__": [lambda: (_NUMBER,)],
    "Tensor.__index__": [lambda: (_NUMBER,)],
    "Tensor.__float__": [lambda: (_NUMBER,)],
    "Tensor.__complex__": [lambda: (_NUMBER,)],
    "Tensor.item": [lambda: (_NUMBER,)],
    "Tensor.is_nonzero": [lambda: (_NUMBER,)],
    "is_nonzero": [lambda: (_NUMBER,)],
    "Tensor.__contains__": [lambda: (_x(), 3.0)],
    "Tensor.__format__": [lambda: (_x(), ""), lambda: (torch.tensor(1.5), ".3f")],
    "Tensor.__getitem__": [lambda: (_x(), 0), lambda: (_x(), (slice(None), None, ...)), lambda: (_x(), _x() > 0)],
    "Tensor.__setitem__": [lambda: (_x(), 0, 7.0), lambda: (_x(), (slice(None), [0, 2]), torch.zeros(2, 2))],
    "Tensor.size": [lambda: (_x(),), lambda: (_x(), 1)],
    "Tensor.stride": [lambda: (_x(),), lambda: (_x(), 1)],
    "Tensor.type": [lambda: (_x(),), lambda: (_x(), torch.float64), lambda: (_x(), "torch.IntTensor")],
    "Tensor.imag.__get__": [lambda: (_complex(),)],
    "Tensor.real.__get__": [lambda: (_complex(),), lambda: (_x(),)],
    "Tensor.real.__set__": [lambda: (_complex(), torch.zeros(2))],
    "Tensor.imag.__set__": [lambda: (_complex(), torch.zeros(2))],
    "Tensor.data.__set__": [lambda: (_x(), torch.zeros(4))],
    "Tensor.grad.__set__": [lambda: (_grad(), torch.zeros(2, 3)), lambda: (_grad(), None)],
    "Tensor.grad.__get__": [lambda: (_with_grad(),), lambda: (_x(),)],
    "Tensor.requires_grad.__set__": [lambda: (_x(), True)],
    "Tensor.retain_grad": [lambda: (_grad() * 2,)],
    "Tensor.backward": [lambda: (_grad().sum(),), lambda: (_grad() * 2, torch.ones(2, 3))],
    "autograd.backward": [lambda: ([_grad().sum(), _grad().sum()],)],
    "autograd.grad": [lambda: ((x := _grad()).sum(), [x])],
    "Tensor.bernoulli": [lambda: (torch.full((3,), 0.5),)],
    "bernoulli": [lambda: (torch.full((3,), 0.5),)],
    "Tensor.bernoulli_": [lambda: (_x(), 0.5)],
    "Tensor.multinomial": [lambda: (torch.ones(4), 2)],
    "multinomial": [lambda: (torch.ones(4), 2)],
    "binomial": [lambda: (torch.full((3,), 9.0), torch.full((3,), 0.5))],
    "poisson": [lambda: (torch.full((3,), 4.0),)],
    "normal": [
        lambda: (0.0, 1.0, (2, 2)),
        lambda: (torch.zeros(3), torch.ones(3)),
        lambda: (0.0, torch.ones(3)),
        lambda: (torch.zeros(3), 1.0),
    ],
    **{
        f"Tensor.{name}": [lambda: (_x(),)]
        for name in ("cauchy_", "exponential_", "log_normal_", "normal_", "random_", "uniform_")
    },
    "Tensor.geometric_": [lambda: (_x(), 0.5)],
    "Tensor.random_": [lambda: (_x(),), lambda: (_ints(), 2, 9), lambda: (_ints(), 9)],
    "Tensor.copy_": [lambda: (_x(), torch.zeros(3))],
    "Tensor.fill_diagonal_": [lambda: (_square(), 0.0)],
    "Tensor.float_power_": [lambda: (_x().double(), 2.0)],
    "Tensor.is_same_size": [lambda: (_x(), _x())],
    "is_same_size": [lambda: (_x(), _x())],
    "Tensor.is_set_to": [lambda: (_x(), _x())],
    "Tensor.new_tensor": [lambda: (_x(), [1.0, 2.0])],
    "Tensor.prelu": [lambda: (_x(), torch.tensor([0.25]))],
    "Tensor.resize": [lambda: (_x(), 3, 2)],
    "Tensor.resize_as": [lambda: (_x(), torch.zeros(3, 2))],
    "Tensor.type_as": [lambda: (_x(), _ints())],
    "Tensor.slice_inverse": [lambda: (_x()[:1], _x(), 0, 0, 1)],
    "Tensor.slogdet": [lambda: (_square(),)],
    "Tensor.unsafe_split_with_sizes": [lambda: (_x(), [1, 2], 1)],
    "adaptive_max_pool1d": [lambda: (_signal(), 4)],
    "addmv_": [lambda: (torch.ones(2), _square(), torch.ones(2))],
    "affine_grid_generator": [lambda: (torch.ones(1, 2, 3), [1, 1, 4, 4], False)],
    "nn.functional.affine_grid": [lambda: (torch.ones(1, 2, 3), [1, 1, 4, 4], {"align_corners": False})],
    "alpha_dropout": [lambda: (_x(), 0.5, True)],
    "alpha_dropout_": [lambda: (_x(), 0.5, True)],
    "feature_alpha_dropout": [lambda: (_image(), 0.5, True)],
    "feature_alpha_dropout_": [lambda: (_image(), 0.5, True)],
    "feature_dropout": [lambda: (_image(), 0.5, True)],
    "feature_dropout_": [lambda: (_image(), 0.5, True)],
    "dropout": [lambda: (_x(), 0.5, True)],
    "dropout_": [lambda: (_x(), 0.5, True)],
    "native_dropout": [lambda: (_x(), 0.5, True)],
    "nn.functional.dropout": [lambda: (_x(),), lambda: (_x(), 0.5, True, True), lambda: (_x(), {"inplace": True})],
    "nn.functional.dropout2d": [lambda: (_image(),), lambda: (_image(), {"inplace": True})],
    "nn.functional.dropout3d": [lambda: (_volume(),)],
    "nn.functional.feature_alpha_dropout": [lambda: (_image(), 0.5, True)],
    "nn.functional.alpha_dropout": [lambda: (_x(), 0.5, True)],
    "nn.functional.rrelu": [lambda: (_x(), {"training": True})],
    "as_strided_": [lambda: (_x(), (2, 2), (1, 1))],
    "as_tensor": [lambda: ([1, 2],), lambda: (_x(), {"dtype": torch.float64})],
    "asarray": [lambda: ([1, 2],)],
    "from_numpy": [lambda: (np.arange(3),)],
    **{f"{name}_window": [lambda: (5,)] for name in ("bartlett", "blackman", "hamming", "hann", "kaiser")},
    "batch_norm": [
        lambda: (_image(), None, None, torch.zeros(3), torch.ones(3), True, 0.1, 1e-5, False),
        lambda: (_image(), None, None, torch.zeros(3), torch.ones(3), False, 0.1, 1e-5, False),
    ],
    "nn.functional.batch_norm": [
        lambda: (_image(), torch.zeros(3), torch.ones(3), {"training": True}),
        lambda: (_image(), torch.zeros(3), torch.ones(3), {"training": False}),
    ],
    "instance_norm": [lambda: (_image(), None, None, torch.zeros(3), torch.ones(3), True, 0.1, 1e-5, False)],
    "nn.functional.instance_norm": [
        lambda: (_image(), torch.zeros(3), torch.ones(3)),
        lambda: (_image(), torch.zeros(3), torch.ones(3), None, None, False),
    ],
    "can_cast": [lambda: (torch.int32, torch.float32)],
    "promote_types": [lambda: (torch.int32, torch.float32)],
    "result_type": [lambda: (_x(), 1), lambda: (_x(), _ints())],
    "broadcast_shapes": [lambda: ((2, 1), (3,))],
    "chain_matmul": [lambda: (_square(), _square())],
    **{name: [lambda: (_x(), -1.0, 1.0)] for name in ("clamp_", "clip_", "threshold_", "nn.functional.threshold_")},
    "clamp_max_": [lambda: (_x(), 1.0)],
    "clamp_min_": [lambda: (_x(), 1.0)],
    "conv_tbc": [lambda: (torch.ones(4, 2, 3), torch.ones(2, 3, 5), torch.ones(5))],
    "nn.functional.conv_tbc": [lambda: (torch.ones(4, 2, 3), torch.ones(2, 3, 5), torch.ones(5))],
    "convolution": [lambda: (_signal(), torch.ones(4, 3, 2), None, [1], [0], [1], False, [0], 1)],
    "cosine_embedding_loss": [lambda: (_x(), _x(), torch.ones(2))],
    "hinge_embedding_loss": [lambda: (_x(), torch.ones(2, 3))],
    "margin_ranking_loss": [lambda: (_x(), _x(), torch.ones(2, 3))],
    "binary_cross_entropy_with_logits": [lambda: (_x(), torch.ones(2, 3))],
    "kl_div": [lambda: (_x(), torch.ones(2, 3))],
    "ctc_loss": [
        lambda: (torch.zeros(4, 1, 3).log_softmax(2), torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2]))
    ],
    "frobenius_norm": [lambda: (_x(), [1])],
    "einsum": [lambda: ("ij,jk->ik", _square(), _square()), lambda: ("ij->ji", [_square()])],
    "embedding": [lambda: (_x(), torch.tensor([0, 1]))],
    "embedding_bag": [lambda: (_x(), torch.tensor([0, 1]), torch.tensor([0]))],
    "embedding_renorm_": [lambda: (_x(), torch.tensor([0, 1]), 1.0, 2.0)],
    "nn.functional.embedding": [
        lambda: (torch.tensor([0, 1]), _x()),
        lambda: (torch.tensor([0, 1]), _x(), {"max_norm": 1.0}),
        lambda: (torch.tensor([0, 1]), _x(), None, 0.5),
    ],
    "nn.functional.embedding_bag": [
        lambda: (torch.tensor([[0, 1]]), _x()),
        lambda: (torch.tensor([[0, 1]]), _x(), {"max_norm": 1.0}),
    ],
    "empty_strided": [lambda: ((2, 2), (1, 2))],
    "fake_quantize_per_channel_affine": [lambda: (_x(), torch.ones(2), torch.zeros(2, dtype=torch.int32), 0, 0, 255)],
    "fake_quantize_per_tensor_affine": [lambda: (_x(), 0.1, 0, 0, 255)],
    "fft.fftfreq": [lambda: (4,)],
    "fft.rfftfreq": [lambda: (4,)],
    "fill_": [lambda: (_x(), 2.0)],
    **{name: [lambda: (_ints(), torch.tensor([2, 4, 6]))] for name in ("gcd_", "lcm_")},
    **{name: [lambda: (_x(), torch.ones(3))] for name in ("ldexp_", "xlogy_")},
    "index_put_": [lambda: (_x(), [torch.tensor([0])], torch.tensor(1.0))],
    "resize_as_": [lambda: (_x(), torch.zeros(3, 2))],
    "grid_sampler": [lambda: (_image(), torch.zeros(2, 4, 4, 2), 0, 0, False)],
    "gru_cell": [lambda: (torch.ones(2, 3), torch.ones(2, 4), *_rnn(3))],
    "rnn_tanh_cell": [lambda: (torch.ones(2, 3), torch.ones(2, 4), *_rnn(1))],
    "rnn_relu_cell": [lambda: (torch.ones(2, 3), torch.ones(2, 4), *_rnn(1))],
    "lstm_cell": [lambda: (torch.ones(2, 3), [torch.ones(2, 4)] * 2, *_rnn(4))],
    "lobpcg": [lambda: (torch.diag(torch.arange(1.0, 13.0)), 2)],
    "max_pool1d": [lambda: (_signal(), 2)],
    "max_pool1d_with_indices": [lambda: (_signal(), 2)],
    "max_pool2d": [lambda: (_image(), 2)],
    "max_pool3d": [lambda: (_volume(), 2)],
    "native_channel_shuffle": [lambda: (torch.ones(1, 4, 2, 2), 2)],
    "nn.functional.native_channel_shuffle": [lambda: (torch.ones(1, 4, 2, 2), 2)],
    **{
        f"nn.functional.{name}{suffix}": samples for suffix in ("", "_with_indices") for name, samples in _POOLS.items()
    },
    "nn.functional.fold": [lambda: (torch.ones(1, 12, 4), (3, 3), 2)],
    "nn.functional.gumbel_softmax": [lambda: (_x(),), lambda: (_x(), 1.0, True)],
    "nn.functional.lp_pool1d": [lambda: (_signal(), 2.0, 2)],
    "nn.functional.lp_pool2d": [lambda: (_image(), 2.0, 2)],
    "nn.functional.lp_pool3d": [lambda: (_volume(), 2.0, 2)],
    "nn.functional.upsample": [lambda: (_image(), {"scale_factor": 2})],
    "nn.functional.upsample_nearest": [lambda: (_image(), {"scale_factor": 2})],
    "nn.functional.upsample_bilinear": [lambda: (_image(), {"scale_factor": 2})],
    "nn.functional.scaled_dot_product_attention": [
        lambda: (torch.ones(1, 4, 8),) * 3,
        lambda: (*(torch.ones(1, 4, 8),) * 3, {"dropout_p": 0.5}),
    ],
    "nn.functional.relu": [lambda: (_x(),), lambda: (_x(), True), lambda: (_x(), {"inplace": True})],
    **{
        f"nn.functional.{name}": [lambda: (_x(),), lambda: (_x(), {"inplace": True})]
        for name in words("celu elu hardsigmoid hardswish hardtanh leaky_relu mish relu6 selu silu")
    },
    "nn.init.constant_": [lambda: (_x(), 1.0)],
    "nn.init.dirac_": [lambda: (torch.ones(2, 2, 3),)],
    "nn.init.sparse_": [lambda: (_x(), 0.5)],
    "nn.init.calculate_gain": [lambda: ("relu",)],
    "nn.utils.clip_grad_norm_": [lambda: (_with_grad(), 1.0), lambda: ([_with_grad()], 1.0)],
    "nn.utils.clip_grad_value_": [lambda: ([_with_grad()], 1.0)],
    "nn.utils.clip_grads_with_norm_": [lambda: ([_with_grad()], 1.0, torch.tensor(2.0))],
    "nn.utils.get_total_norm": [lambda: ([_x(), _x()],)],
    "nn.utils.parameters_to_vector": [lambda: ([_x(), _x()],)],
    "nn.utils.vector_to_parameters": [lambda: (torch.ones(6), [_x()])],
    "nn.utils.rnn.pad_sequence": [lambda: ([torch.ones(2), torch.ones(3)],)],
    "Generator": [lambda: ()],
    **{
        f"Generator.{name}": [lambda: (_generator(),)]
        for name in ("clone_state", "get_state", "initial_seed", "seed", "device.__get__")
    },
    "Generator.manual_seed": [lambda: (_generator(), 3)],
    "Generator.set_state": [lambda: (_generator(), _generator().get_state())],
    "get_default_dtype": [lambda: ()],
    "set_default_dtype": [lambda: (torch.float32,)],
    "set_printoptions": [lambda: ({"profile": "default"},)],
    "get_rng_state": [lambda: ()],
    "set_rng_state": [lambda: (torch.get_rng_state(),)],
    "initial_seed": [lambda: ()],
    "manual_seed": [lambda: (5,)],
    "gru": [lambda: (torch.ones(5, 2, 3), torch.ones(2, 2, 4), _deep(3), True, 2, 0.5, True, False, False)],
    "lstm": [lambda: (torch.ones(5, 2, 3), [torch.ones(2, 2, 4)] * 2, _deep(4), True, 2, 0.5, True, False, False)],
    "rnn_tanh": [lambda: (torch.ones(5, 2, 3), torch.ones(2, 2, 4), _deep(1), True, 2, 0.5, True, False, False)],
    "rnn_relu": [lambda: (torch.ones(5, 2, 3), torch.ones(2, 2, 4), _deep(1), True, 2, 0.5, True, False, False)],
    "Tensor.grad_dtype.__set__": [lambda: (_grad(), torch.float32)],
    "Tensor.volatile.__get__": [lambda: (_x(),)],
    "norm_except_dim": [lambda: (_x(), 2, 0)],
    "nuclear_norm": [lambda: (_square(),)],
    "poisson_nll_loss": [lambda: (_x(), torch.ones(2, 3), True, False, 1e-8, 1)],
    "range": [lambda: (0, 4)],
    "tensor": [lambda: ([1, 2],), lambda: (np.ones(2), {"dtype": torch.float16})],
    "select_copy": [lambda: (_x(), 0, 1)],
    "slice_copy": [lambda: (_x(), 0, 0, 1)],
    "slice_inverse": [lambda: (_x()[:1], _x(), 0, 0, 1)],
    "slogdet": [lambda: (_square(),)],
    "vander": [lambda: (torch.ones(3),)],
    "split_copy": [lambda: (_x(), 1)],
    "unsafe_split_with_sizes": [lambda: (_x(), [1, 2], 1)],
    "view_as_complex_copy": [lambda: (torch.ones(3, 2),)],
    "view_as_real_copy": [lambda: (_complex(),)],
    "nn.functional.multi_head_attention_forward": [
        lambda: (
            *(torch.ones(4, 1, 8),) * 3,
            8,
            2,
            torch.ones(24, 8),
            torch.ones(24),
            None,
            None,
            False,
            0.5,
            torch.ones(8, 8),
            torch.ones(8),
        ),
    ],
    "seed": [lambda: ()],
    "rand": [lambda: (2, 3)],
    "randn": [lambda: (2, 3)],
    "randint": [lambda: (0, 5, (2, 2))],
    "randperm": [lambda: (5,)],
    "pca_lowrank": [lambda: (_x(), 2)],
    "svd_lowrank": [lambda: (_x(), 2)],
    "special.polygamma": [lambda: (1, _x().abs())],
    "polygamma": [lambda: (1, _x().abs())],
    "where": [lambda: (_x() > 0,), lambda: (_x() > 0, _x(), 0.0), lambda: (_x() > 0, 1, 2)],
    "max": [lambda: (_x(),), lambda: (_x(), 1), lambda: (_x(), _x()), lambda: (_x(), {"axis": 0})],
    "Tensor.max": [lambda: (_x(),), lambda: (_x(), 1, True), lambda: (_x(), _x()), lambda: (_x(), {"dim": 0})],
    "Tensor.__eq__": [lambda: (_x(), _x()), lambda: (_x(), 1.5)],
    "Tensor.__ne__": [lambda: (_x(), _x()), lambda: (_x(), True)],
    "lu": [lambda: (_square(),), lambda: (_square(), {"get_infos": True})],
    "Tensor.lu": [lambda: (_square(),), lambda: (_square(), {"get_infos": True})],
    "unique": [lambda: (_ints(),), lambda: (_ints(), True, True, True), lambda: (_ints(), {"return_counts": True})],
    "sparse_coo_tensor": [
        lambda: (torch.tensor([[0, 1], [2, 0]]), torch.tensor([3.0, 4.0]), (2, 3)),
        lambda: ([[0, 1]], [3.0, 4.0]),
        lambda: ((2, 3),),
    ],
    "Tensor.to_sparse": [lambda: (_x(),), lambda: (_volume(), 2)],
    "Tensor.sparse_mask": [lambda: (_x(), _sparse())],
    "sparse.mm": [lambda: (_sparse(), torch.ones(3, 2)), lambda: (_sparse(), _sparse().t())],
    "sparse.addmm": [lambda: (torch.ones(2, 2), _sparse(), torch.ones(3, 2))],
    "sparse.sum": [lambda: (_sparse(),), lambda: (_sparse(), 1)],
    "sparse.softmax": [lambda: (_sparse(), 1)],
    "sparse.log_softmax": [lambda: (_sparse(), 1)],
    **{
        f"Tensor.{name}": [lambda: (_sparse(),)]
        for name in ("_indices", "_nnz", "_values", "coalesce", "indices", "is_coalesced", "values")
    },
    "nonzero": [lambda: (_x(),), lambda: (_x(), {"as_tuple": True})],
}
