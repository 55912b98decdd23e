"""Modules of torch.nn with settings and inputs, for comparing them with the client's.

Inputs are numpy arrays; where one is None the module is only built and printed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """One module and what it is called with."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Array, ...] = ()
    call: dict[str, Any] = field(default_factory=dict)

    def build(self, nn: Any) -> Any:
        """The module of that name in nn."""
        kind: Callable[..., Any] = vars(nn)[self.name]
        return kind(*self.args, **self.kwargs)

    @property
    def label(self) -> str:
        """A name for the test."""
        settings = [repr(arg) for arg in self.args] + [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.name}({', '.join(settings)}) of {' and '.join(str(a.shape) for a in self.inputs)}"


def _normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape).astype(np.float32)


def _uniform(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).uniform(0.05, 0.95, shape).astype(np.float32)


def _integers(high: int, *shape: int) -> Array:
    return np.random.default_rng(high).integers(0, high, shape)


def _signs(*shape: int) -> Array:
    return np.where(_normal(*shape) > 0, 1.0, -1.0).astype(np.float32)


def _case(
    name: str, *args: Any, on: tuple[Array, ...] | Array = (), call: dict[str, Any] | None = None, **kwargs: Any
) -> Case:
    return Case(name, args, kwargs, (on,) if isinstance(on, np.ndarray) else on, call or {})


_X = _normal(5, 4)

ACTIVATIONS = [
    _case("Identity", 54, on=_X),
    _case("Sigmoid", on=_X),
    _case("Tanh", on=_X),
    _case("LogSigmoid", on=_X),
    _case("Softsign", on=_X),
    _case("Tanhshrink", on=_X),
    _case("ReLU", on=_X),
    _case("ReLU", inplace=True, on=_X),
    _case("ReLU6", on=_X * 5),
    _case("SiLU", on=_X),
    _case("Mish", on=_X),
    _case("SELU", on=_X),
    _case("Hardsigmoid", on=_X * 4),
    _case("Hardswish", on=_X * 4),
    _case("Hardtanh", -0.5, 2.0, on=_X),
    _case("Threshold", 0.1, 20, on=_X),
    _case("LeakyReLU", 0.2, on=_X),
    _case("LeakyReLU", 0.2, True, on=_X),
    _case("RReLU"),
    _case("ELU", 0.7, on=_X),
    _case("CELU", 0.7, on=_X),
    _case("GELU", on=_X),
    _case("GELU", "tanh", on=_X),
    _case("Softplus", 2, 1, on=_X),
    _case("Softshrink", on=_X),
    _case("Hardshrink", 0.3, on=_X),
    _case("Softmax", 1, on=_X),
    _case("Softmax", dim=-2, on=_X),
    _case("Softmin", 1, on=_X),
    _case("LogSoftmax", 1, on=_X),
    _case("Softmax2d", on=_normal(2, 3, 4, 4)),
    _case("GLU", on=_X),
    _case("PReLU", on=_X),
    _case("PReLU", 4, 0.1, on=_X),
]

LINEAR = [
    _case("Linear", 4, 3, on=_X),
    _case("Linear", 4, 3, bias=False, on=_normal(2, 5, 4)),
    _case("Linear", 4, 1, on=_normal(4)),
    _case("Bilinear", 4, 3, 2, on=(_X, _normal(5, 3))),
    _case("Flatten", on=_normal(2, 3, 4)),
    _case("Flatten", 0, 1, on=_normal(2, 3, 4)),
    _case("Unflatten", 1, (2, 2), on=_X),
    _case("Dropout", 0.0, on=_X),
    _case("Dropout", 0.3, True),
    _case("Dropout1d", 0.3),
    _case("Dropout2d", 0.3),
    _case("Dropout3d", 0.3),
    _case("AlphaDropout", 0.3),
    _case("FeatureAlphaDropout", 0.3),
]

_IMAGE = _normal(2, 4, 9, 8)
_SOUND = _normal(2, 4, 9)
_SPACE = _normal(2, 4, 5, 5, 5)

CONVOLUTIONS = [
    _case("Conv1d", 4, 6, 3, on=_SOUND),
    _case("Conv1d", 4, 6, 3, padding="same", padding_mode="circular", on=_SOUND),
    _case("Conv2d", 4, 6, 3, on=_IMAGE),
    _case("Conv2d", 4, 6, (3, 2), stride=2, padding=(1, 2), dilation=2, groups=2, bias=False, on=_IMAGE),
    _case("Conv2d", 4, 6, 3, padding=1, padding_mode="reflect", on=_IMAGE),
    _case("Conv2d", 4, 6, 3, padding="same", on=_IMAGE),
    _case("Conv3d", 4, 2, 3, on=_SPACE),
    _case("ConvTranspose1d", 4, 6, 3, stride=2, on=_SOUND),
    _case("ConvTranspose2d", 4, 6, 3, stride=2, padding=1, output_padding=1, on=_IMAGE),
    _case("ConvTranspose2d", 4, 6, 3, stride=2, padding=1, on=_IMAGE, call={"output_size": (18, 16)}),
    _case("ConvTranspose3d", 4, 2, 3, groups=2, on=_SPACE),
    _case("Fold", (4, 5), (2, 2), on=_normal(1, 12, 12)),
    _case("Unfold", (3, 2), dilation=2, padding=1, stride=2, on=_IMAGE),
    _case("PixelShuffle", 2, on=_IMAGE),
    _case("PixelUnshuffle", 3, on=_normal(1, 2, 6, 6)),
    _case("ChannelShuffle", 2, on=_IMAGE),
    _case("Upsample", scale_factor=2, on=_IMAGE),
    _case("Upsample", (5, 6), mode="bilinear", align_corners=True, on=_IMAGE),
    _case("UpsamplingNearest2d", scale_factor=2, on=_IMAGE),
    _case("UpsamplingBilinear2d", scale_factor=2, on=_IMAGE),
    _case("ConstantPad1d", 2, 3.5, on=_SOUND),
    _case("ConstantPad2d", (1, 2, 0, 1), 3.5, on=_IMAGE),
    _case("ConstantPad3d", 1, 0.5, on=_SPACE),
    _case("ZeroPad1d", 2, on=_SOUND),
    _case("ZeroPad2d", 2, on=_IMAGE),
    _case("ZeroPad3d", 2, on=_SPACE),
    _case("ReflectionPad1d", 2, on=_SOUND),
    _case("ReflectionPad2d", 2, on=_IMAGE),
    _case("ReflectionPad3d", 2, on=_SPACE),
    _case("ReplicationPad1d", 2, on=_SOUND),
    _case("ReplicationPad2d", 2, on=_IMAGE),
    _case("ReplicationPad3d", 2, on=_SPACE),
    _case("CircularPad1d", 2, on=_SOUND),
    _case("CircularPad2d", 2, on=_IMAGE),
    _case("CircularPad3d", 2, on=_SPACE),
]

POOLING = [
    _case("MaxPool1d", 3, on=_SOUND),
    _case("MaxPool2d", 2, on=_IMAGE),
    _case("MaxPool2d", (3, 2), stride=(2, 1), padding=1, ceil_mode=True, on=_IMAGE),
    _case("MaxPool2d", 2, return_indices=True, on=_IMAGE),
    _case("MaxPool3d", 2, on=_SPACE),
    _case("MaxUnpool1d", 2),
    _case("MaxUnpool2d", 2, stride=3),
    _case("MaxUnpool3d", 2),
    _case("AvgPool1d", 3, on=_SOUND),
    _case("AvgPool2d", 3, stride=2, padding=1, count_include_pad=False, on=_IMAGE),
    _case("AvgPool3d", 2, on=_SPACE),
    _case("LPPool1d", 2, 3, on=_SOUND),
    _case("LPPool2d", 2, 3, on=_IMAGE),
    _case("LPPool3d", 2, 3, on=_SPACE),
    _case("FractionalMaxPool2d", 2, (4, 5), on=_IMAGE),
    _case("FractionalMaxPool2d", (2, 3), output_ratio=(0.5, 0.6), return_indices=True, on=_IMAGE),
    _case("FractionalMaxPool3d", 2, output_size=2, on=_SPACE),
    _case("AdaptiveAvgPool1d", 3, on=_SOUND),
    _case("AdaptiveAvgPool2d", (3, None), on=_IMAGE),
    _case("AdaptiveAvgPool3d", 2, on=_SPACE),
    _case("AdaptiveMaxPool1d", 3, on=_SOUND),
    _case("AdaptiveMaxPool2d", 2, on=_IMAGE),
    _case("AdaptiveMaxPool2d", 2, return_indices=True, on=_IMAGE),
    _case("AdaptiveMaxPool3d", 2, on=_SPACE),
]

NORMALISATIONS = [
    _case("BatchNorm1d", 4, on=_X),
    _case("BatchNorm1d", 4, momentum=None, on=_SOUND),
    _case("BatchNorm2d", 4, affine=False, on=_IMAGE),
    _case("BatchNorm2d", 4, track_running_stats=False, on=_IMAGE),
    _case("BatchNorm3d", 4, on=_SPACE),
    _case("InstanceNorm1d", 4, on=_SOUND),
    _case("InstanceNorm2d", 4, affine=True, track_running_stats=True, on=_IMAGE),
    _case("InstanceNorm2d", 4, on=_normal(4, 5, 5)),
    _case("InstanceNorm3d", 4, on=_SPACE),
    _case("LayerNorm", 8, on=_IMAGE),
    _case("LayerNorm", [9, 8], bias=False, on=_IMAGE),
    _case("LayerNorm", 8, elementwise_affine=False, on=_IMAGE),
    _case("RMSNorm", 8, on=_IMAGE),
    _case("RMSNorm", (9, 8), eps=0.1, on=_IMAGE),
    _case("GroupNorm", 2, 4, on=_IMAGE),
    _case("LocalResponseNorm", 2, on=_IMAGE),
    _case("SyncBatchNorm", 4, on=_IMAGE),
]

EMBEDDINGS = [
    _case("Embedding", 10, 3, on=_integers(10, 2, 5)),
    _case("Embedding", 10, 3, padding_idx=-1, on=_integers(10, 2, 5)),
    _case("Embedding", 10, 3, max_norm=1.0, on=_integers(10, 2, 5)),
    _case("EmbeddingBag", 10, 3, on=_integers(10, 2, 5)),
    _case("EmbeddingBag", 10, 3, mode="sum", padding_idx=2, on=(_integers(10, 6), np.array([0, 2, 4]))),
]

_SERIES = _normal(6, 2, 4)

RECURRENT = [
    _case("RNN", 4, 3, on=_SERIES),
    _case("RNN", 4, 3, 2, "relu", bidirectional=True, on=_SERIES),
    _case("RNN", 4, 3, nonlinearity="relu", bias=False, on=_normal(6, 4)),
    _case("GRU", 4, 3, 2, on=(_SERIES, _normal(2, 2, 3))),
    _case("GRU", 4, 3, batch_first=True, bidirectional=True, on=_SERIES),
    _case("LSTM", 4, 3, on=_SERIES),
    _case("LSTM", 4, 3, 2, batch_first=True, bidirectional=True, on=_SERIES),
    _case("LSTM", 4, 3, proj_size=2, on=_SERIES),
    _case("LSTM", 4, 3, 2, dropout=0.5),
    _case("LSTM", 4, 3, on=_normal(6, 4)),
    _case("RNNCell", 4, 3, on=_X),
    _case("RNNCell", 4, 3, False, "relu", on=(_X, _normal(5, 3))),
    _case("GRUCell", 4, 3, on=_X),
    _case("LSTMCell", 4, 3, on=_normal(4)),
]

_WORDS = _normal(5, 2, 8)

ATTENTION = [
    _case("MultiheadAttention", 8, 2, on=(_WORDS, _WORDS, _WORDS)),
    _case("MultiheadAttention", 8, 2, batch_first=True, on=(_WORDS, _WORDS, _WORDS), call={"need_weights": False}),
    _case("MultiheadAttention", 8, 2, bias=False, kdim=3, vdim=4, on=(_WORDS, _normal(6, 2, 3), _normal(6, 2, 4))),
    _case("MultiheadAttention", 8, 2, add_bias_kv=True, add_zero_attn=True, on=(_WORDS, _WORDS, _WORDS)),
    _case("TransformerEncoderLayer", 8, 2, 16, 0.0, on=_WORDS),
    _case("TransformerEncoderLayer", 8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True, on=_WORDS),
    _case("TransformerDecoderLayer", 8, 2, 16, 0.0, on=(_WORDS, _normal(6, 2, 8))),
    _case("Transformer", 8, 2, 1, 2, 16, 0.0, on=(_WORDS, _normal(4, 2, 8))),
]

_Y = _normal(4, 5).T
_CLASSES = _integers(4, 5)

LOSSES = [
    _case("L1Loss", on=(_X, _Y)),
    _case("MSELoss", on=(_X, _Y)),
    _case("MSELoss", reduction="sum", on=(_X, _Y)),
    _case("MSELoss", size_average=False, on=(_X, _Y)),
    _case("SmoothL1Loss", beta=0.5, on=(_X, _Y)),
    _case("HuberLoss", delta=0.5, on=(_X, _Y)),
    _case("SoftMarginLoss", on=(_X, _signs(5, 4))),
    _case("CrossEntropyLoss", on=(_X, _CLASSES)),
    _case("CrossEntropyLoss", ignore_index=1, label_smoothing=0.1, reduction="none", on=(_X, _CLASSES)),
    _case("NLLLoss", on=(_X, _CLASSES)),
    _case("NLLLoss2d", on=(_IMAGE, _integers(4, 2, 9, 8))),
    _case("AdaptiveLogSoftmaxWithLoss", 4, 20, [3, 7], 2.0, True, on=(_X, np.array([1, 0, 5, 19, 2]))),
    _case("AdaptiveLogSoftmaxWithLoss", 4, 9, [4], on=(_normal(1, 4), np.array([6]))),
    _case("BCELoss", on=(_uniform(5, 4), _uniform(5, 4).round())),
    _case("BCEWithLogitsLoss", on=(_X, _uniform(5, 4).round())),
    _case("KLDivLoss", reduction="batchmean", on=(_X, _uniform(5, 4))),
    _case("PoissonNLLLoss", full=True, on=(_X, _uniform(5, 4))),
    _case("GaussianNLLLoss", full=True, on=(_X, _Y, _uniform(5, 4))),
    _case("HingeEmbeddingLoss", on=(_X, _signs(5, 4))),
    _case("MarginRankingLoss", 0.2, on=(_X, _Y, _signs(5, 4))),
    _case("CosineEmbeddingLoss", on=(_X, _Y, _signs(5))),
    _case("MultiMarginLoss", p=2, on=(_X, _CLASSES)),
    _case("MultiLabelMarginLoss", on=(_X, _integers(4, 5, 4))),
    _case("MultiLabelSoftMarginLoss", on=(_X, _uniform(5, 4).round())),
    _case("TripletMarginLoss", swap=True, on=(_X, _Y, _X + 0.5)),
    _case("TripletMarginWithDistanceLoss", margin=0.5, swap=True, on=(_X, _Y, _X + 0.5)),
    _case(
        "CTCLoss",
        on=(np.log(_uniform(7, 2, 5)), _integers(4, 2, 3) + 1, np.array([7, 7]), np.array([3, 2])),
    ),
    _case("PairwiseDistance", keepdim=True, on=(_X, _Y)),
    _case("CosineSimilarity", on=(_X, _Y)),
]

ALL = [
    *ACTIVATIONS,
    *LINEAR,
    *CONVOLUTIONS,
    *POOLING,
    *NORMALISATIONS,
    *EMBEDDINGS,
    *RECURRENT,
    *ATTENTION,
    *LOSSES,
]
