"""Every name of torch.nn and what is below it is here, or is left out for a reason that is written down here."""

from __future__ import annotations

import importlib
import pkgutil
import types
from typing import Any

import pytest
import torch
import torch.nn.utils.parametrizations
import torch.nn.utils.prune

from tclient import _left_out
from tclient._launcher import alias

from .side_by_side import Program, module, seen

MODULES = [
    *("nn", "nn.functional", "nn.init", "nn.modules", "nn.parameter", "nn.parallel", "nn.utils", "nn.utils.rnn"),
    *(
        f"nn.modules.{found.name}"
        for found in pkgutil.iter_modules(torch.nn.modules.__path__)
        if found.name[0] != "_" and "cross_entropy" not in found.name
    ),
]
# Not torch's own to give: what it imports, and types of annotations.
_FOREIGN = {"BroadcastingList1", "BroadcastingList2", "BroadcastingList3", "Tensor", "T"}

# Where the reason is the same for many: what stands below torch in Python, or for its own compiler.
WITHOUT = {
    "nn": {"CrossMapLRN2d", "LinearCrossEntropyLoss", "LinearCrossEntropyOptions", "factory_kwargs"},
    "nn.modules": {"CrossMapLRN2d", "LinearCrossEntropyLoss", "LinearCrossEntropyOptions"},
    "nn.functional": {
        *("ScalingType", "SwizzleType", "grouped_mm", "scaled_mm", "scaled_grouped_mm", "assert_int_or_pair"),
        *("boolean_dispatch", "handle_torch_function", "has_torch_function", "has_torch_function_unary"),
        *("has_torch_function_variadic", "GRID_SAMPLE_INTERPOLATION_MODES", "GRID_SAMPLE_PADDING_MODES"),
    },
    "nn.modules.normalization": {"CrossMapLRN2d"},
    "nn.parallel": {"gather", "parallel_apply", "replicate", "scatter", "DistributedDataParallelCPU"},
    "nn.utils.rnn": {"PackedSequence_", "bind", "copy_method_params"},
    "nn.modules.activation": {"_arg_requires_grad", "_check_arg_device", "_is_make_fx_tracing"},
    "nn.modules.batchnorm": {"_LazyNormBase"},
    "nn.modules.container": {"_addindent"},
    "nn.modules.conv": {"_ConvTransposeMixin", "_LazyConvXdMixin"},
    "nn.modules.lazy": {"_LazyProtocol"},
    "nn.modules.loss": {"LinearCrossEntropyLoss"},
    "nn.modules.module": {
        *("_WrappedHook", "_has_any_global_hook", "register_module_backward_hook"),
        *("register_module_full_backward_hook", "register_module_full_backward_pre_hook"),
    },
}


def names(path: str) -> list[str]:
    """The functions and classes that a module of torch's defines or lists, and private ones of its modules."""
    found = importlib.import_module(f"torch.{path}")
    listed = set(getattr(found, "__all__", ()))
    files = path.startswith("nn.modules.")
    return [
        name
        for name, value in vars(found).items()
        if not isinstance(value, types.ModuleType)
        and not name.startswith("__")
        and name not in _FOREIGN
        and (name in listed or _home(value) == found.__name__ or (not files and _home(value).startswith("torch.")))
        and (not name.startswith("_") or (files and callable(value)))
    ]


def _home(value: Any) -> str:
    return str(getattr(value, "__module__", ""))


@pytest.mark.parametrize("path", MODULES)
def test_every_name_is_there_or_left_out(tc: Any, path: str) -> None:
    lacking = {name for name in names(path) if alias._meant(path, name) is alias._Absent}
    assert lacking <= WITHOUT.get(path, set())
    assert {name for name in names(path) if not name.startswith("_")} & WITHOUT.get(path, set()) <= lacking


def test_a_name_that_is_left_out_says_why() -> None:
    for name in ("CrossMapLRN2d", "LinearCrossEntropyLoss", "LinearCrossEntropyOptions", "factory_kwargs"):
        assert _left_out.reason(f"nn.{name}")
    for name in ("grouped_mm", "scaled_mm", "scaled_grouped_mm"):
        assert _left_out.reason(f"nn.functional.{name}")


BASES = [
    ("conv", "_ConvNd", ["Conv1d", "Conv3d", "ConvTranspose2d"]),
    ("conv", "_ConvTransposeNd", ["ConvTranspose1d"]),
    ("batchnorm", "_BatchNorm", ["BatchNorm1d", "BatchNorm2d", "SyncBatchNorm"]),
    ("batchnorm", "_NormBase", ["BatchNorm3d", "InstanceNorm1d"]),
    ("instancenorm", "_InstanceNorm", ["InstanceNorm2d"]),
    ("dropout", "_DropoutNd", ["Dropout", "Dropout2d", "AlphaDropout"]),
    ("loss", "_Loss", ["MSELoss", "CrossEntropyLoss"]),
    ("loss", "_WeightedLoss", ["CrossEntropyLoss", "BCELoss"]),
    ("pooling", "_MaxPoolNd", ["MaxPool1d"]),
    ("pooling", "_MaxUnpoolNd", ["MaxUnpool2d"]),
    ("pooling", "_AvgPoolNd", ["AvgPool1d", "AvgPool3d"]),
    ("pooling", "_LPPoolNd", ["LPPool2d"]),
    ("pooling", "_AdaptiveAvgPoolNd", ["AdaptiveAvgPool2d"]),
    ("pooling", "_AdaptiveMaxPoolNd", ["AdaptiveMaxPool1d"]),
    ("padding", "_ConstantPadNd", ["ConstantPad1d", "ZeroPad2d"]),
    ("padding", "_ReflectionPadNd", ["ReflectionPad1d"]),
    ("padding", "_ReplicationPadNd", ["ReplicationPad3d"]),
    ("padding", "_CircularPadNd", ["CircularPad2d"]),
]


@pytest.mark.parametrize(("where", "base", "kinds"), BASES, ids=[base for _, base, _ in BASES])
def test_layers_share_the_bases_of_torch_s(tc: Any, where: str, base: str, kinds: list[str]) -> None:
    for n in (tc, torch):
        common = vars(module(n, f"nn.modules.{where}"))[base]
        assert all(issubclass(getattr(n.nn, kind), common) for kind in kinds)
        assert not issubclass(n.nn.Linear, common)


def _standardised(n: Any) -> Any:
    class Standardised(n.nn.Conv2d):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    return [Standardised(2, 3, 3, padding=1, padding_mode=mode)(n.ones(1, 2, 4, 4)) for mode in ("zeros", "circular")]


def _own_convolution(n: Any) -> Any:
    sizes, convs = module(n, "nn.modules.utils") if n is torch else n.nn.modules.utils, module(n, "nn.modules.conv")

    class Own(convs._ConvNd):  # type: ignore[misc, name-defined]
        def __init__(self, a: int, b: int, kernel: Any, padding: Any = 0) -> None:
            settings = [sizes._pair(value) for value in (kernel, 1, padding, 1)]
            super().__init__(a, b, *settings, False, sizes._pair(0), 1, True, "zeros")

        def forward(self, x: Any) -> Any:
            x = n.nn.functional.pad(x, self._reversed_padding_repeated_twice)
            return n.nn.functional.conv2d(x, self.weight, self.bias, self.stride)

    return Own(2, 3, 3, 1), Own(2, 3, (3, 1), (1, 2))(n.ones(1, 2, 4, 4))


def _sizes(n: Any) -> Any:
    sizes = module(n, "nn.modules.utils") if n is torch else n.nn.modules.utils
    state = n.nn.DataParallel(n.nn.Linear(1, 1)).state_dict()
    sizes.consume_prefix_in_state_dict_if_present(state, "module.")
    return (
        [sizes._single(3), sizes._pair((1, 2)), sizes._triple(3), sizes._quadruple([1, 2, 3, 4]), sizes._ntuple(5)(1)],
        [sizes._reverse_repeat_tuple((1, 2), 2), sizes._list_with_default([None, 3], [4, 5, 6])],
        (list(state), state._metadata),
    )


def _converted(n: Any) -> Any:
    m = n.nn.Sequential(n.nn.Linear(2, 3), n.nn.Sequential(n.nn.BatchNorm1d(3), n.nn.BatchNorm1d(3, affine=False)))
    m.eval()
    made = n.nn.SyncBatchNorm.convert_sync_batchnorm(m)
    return made, made.state_dict(), made(n.ones(2, 2)), made[1][0].training


def _adaptive(n: Any) -> Any:
    m = n.nn.AdaptiveLogSoftmaxWithLoss(4, 20, [3, 7], 2.0)
    x = n.linspace(-3, 3, 24).reshape(6, 4)
    output = m(x, n.tensor([0, 1, 2, 5, 9, 19]))
    one = m(x[0], n.tensor(6))
    return m.log_prob(x), m.predict(x), one.output, one.loss, output.output, output.loss, output._fields, m.cutoffs


def _transformer_parts(n: Any) -> Any:
    parts = module(n, "nn.modules.transformer")
    mask = parts._generate_square_subsequent_mask(3)
    return (
        [parts._get_clones(n.nn.ReLU(), 2), mask, parts._detect_is_causal_mask(mask), parts._get_activation_fn("relu")],
        [parts._get_seq_len(n.ones(2, 3, 4), first) for first in (True, False)],
    )


def _init_parts(n: Any) -> Any:
    init = n.nn.init
    weight = n.empty(3, 4, 5)
    return (
        [init._calculate_fan_in_and_fan_out(weight), init._calculate_correct_fan(weight, "fan_out")],
        [init._no_grad_uniform_(weight, 0, 1), init._no_grad_normal_(weight, 0, 1), init._no_grad_fill_(weight, 2)],
        init._no_grad_trunc_normal_(weight, 0, 1, -2, 2),
    )


def _fused(n: Any) -> Any:
    nn, utils = n.nn, n.nn.utils
    conv, norm = nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3)
    norm(n.linspace(0, 9, 3 * 16).reshape(1, 3, 4, 4))
    x = n.linspace(-1, 1, 2 * 16).reshape(1, 2, 4, 4)
    fused = utils.fuse_conv_bn_eval(conv.eval(), norm.eval())
    transposed = utils.fuse_conv_bn_eval(nn.ConvTranspose2d(2, 3, 3).eval(), norm, transpose=True)
    linear = utils.fuse_linear_bn_eval(nn.Linear(2, 3).eval(), nn.BatchNorm1d(3).eval())
    return fused, fused.state_dict(), fused(x) - norm(conv(x)), transposed(x), linear.state_dict()


def _stateless(n: Any) -> Any:
    m = n.nn.Sequential(n.nn.Linear(2, 2), n.nn.BatchNorm1d(2), n.nn.Linear(2, 2))
    call = module(n, "nn.utils.stateless").functional_call
    x = n.linspace(-1, 2, 6).reshape(3, 2) ** 2
    weight = n.full((2, 2), 0.5, requires_grad=True)
    untied = call(m, {"0.weight": weight}, (x,), tie_weights=False)
    m[2].weight = m[0].weight
    output = call(m, {"0.weight": weight, "1.running_mean": n.ones(2)}, x, {})
    (output * x + untied * x).sum().backward()
    return output, untied, weight.grad, m.state_dict(), m[0].weight.grad is None


def _not_stateless(n: Any, strict: bool) -> Any:
    call = module(n, "nn.utils.stateless").functional_call
    return call(n.nn.Linear(1, 1), {"weight": n.ones(1, 1), "x": n.ones(1)}, n.ones(1, 1), strict=strict)


def _laid_out(n: Any) -> Any:
    m = n.nn.Sequential(n.nn.Conv2d(2, 3, 3), n.nn.Conv3d(2, 3, 3))
    utils = n.nn.utils
    utils.convert_conv2d_weight_memory_format(m, n.channels_last)
    utils.convert_conv3d_weight_memory_format(m, n.channels_last_3d)
    return m[0].weight.stride(), m[1].weight.stride()


def _skipped(n: Any) -> Any:
    m = n.nn.utils.skip_init(n.nn.Linear, 2, 3, bias=False, dtype=n.float64)
    return m, m.weight.dtype, m.weight.device, n.rand(2)


PROGRAMS: dict[str, Program] = {
    "fused": _fused,
    "fused while training": lambda n: n.nn.utils.fuse_conv_bn_eval(n.nn.Conv2d(1, 1, 1), n.nn.BatchNorm2d(1)),
    "fused of other sizes": lambda n: n.nn.utils.fuse_linear_bn_eval(
        n.nn.Linear(1, 2).eval(), n.nn.BatchNorm1d(3).eval()
    ),
    "stateless": _stateless,
    "stateless with a strange name": lambda n: _not_stateless(n, strict=False),
    "stateless and strict": lambda n: _not_stateless(n, strict=True),
    "laid out": _laid_out,
    "skipped": _skipped,
    "nothing to skip": lambda n: n.nn.utils.skip_init(n.nn.ReLU),
    "a convolution with other weights": _standardised,
    "a convolution of one's own": _own_convolution,
    "sizes": _sizes,
    "no default": lambda n: (module(n, "nn.modules.utils") if n is torch else n.nn.modules.utils)._list_with_default(
        [1, None], [2]
    ),
    "batch norms of many processes": _converted,
    "adaptive softmax": _adaptive,
    "adaptive softmax beyond": lambda n: n.nn.AdaptiveLogSoftmaxWithLoss(4, 9, [4])(n.ones(1, 4), n.tensor([9])),
    "adaptive softmax, sizes": lambda n: n.nn.AdaptiveLogSoftmaxWithLoss(4, 9, [4])(n.ones(1, 4), n.tensor([1, 2])),
    "adaptive softmax, cutoffs": lambda n: n.nn.AdaptiveLogSoftmaxWithLoss(4, 9, [4, 4]),
    "adaptive softmax, no cutoffs": lambda n: n.nn.AdaptiveLogSoftmaxWithLoss(4, 9, []),
    "fractional pooling, no size": lambda n: n.nn.FractionalMaxPool2d(3),
    "fractional pooling, both sizes": lambda n: n.nn.FractionalMaxPool2d(3, 3, 0.5),
    "fractional pooling, ratio": lambda n: n.nn.FractionalMaxPool3d(3, output_ratio=1.5),
    "fractional pooling, kernel": lambda n: n.nn.FractionalMaxPool3d(0, 3),
    "container": lambda n: n.nn.Container(a=n.nn.ReLU()),
    "parts of transformers": _transformer_parts,
    "parts of initialisation": _init_parts,
    "sync batch norm, dimensions": lambda n: n.nn.SyncBatchNorm(3)(n.ones(3)),
    "indented": lambda n: module(n, "nn.modules.module")._addindent("a\nb\nc", 4),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_parts_do_as_torch_s(tc: Any, program: Program) -> None:
    assert seen(program, tc) == seen(program, torch)
