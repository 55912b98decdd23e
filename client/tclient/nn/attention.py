"""Attention of several heads.

Knows names and shapes of the weights; a pass is one call on the server.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Iterator
from typing import Any

import tclient
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.linear import NonDynamicallyQuantizableLinear
from tclient.nn.module import Module
from tclient.nn.parameter import Parameter, parameter_from


class SDPBackend(enum.Enum):
    """The ways to compute attention that torch knows by name."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextlib.contextmanager
def sdpa_kernel(backends: SDPBackend | list[SDPBackend], set_priority: bool = False) -> Iterator[None]:
    """Within it torch would compute attention in one of these ways; the server chooses by itself.

    Raises: AssertionError if backends is neither one of them nor a list.
    """
    if not isinstance(backends, (list, SDPBackend)):
        raise AssertionError(
            "Backend must be an instance of SDPBackend or a list of SDPBackend instances, got "
            f"{type(backends).__name__}"
        )
    yield


def xavier_uniform_of(parameter: Parameter, fan_in: int, fan_out: int) -> None:
    """What `init.xavier_uniform_` does, for fans that are known without asking the server."""
    bound = math.sqrt(3.0) * math.sqrt(2.0 / float(fan_in + fan_out))
    with tclient.no_grad():
        parameter.uniform_(-bound, bound)


def xavier_normal_of(parameter: Parameter, fan_in: int, fan_out: int) -> None:
    """What `init.xavier_normal_` does, for fans that are known without asking the server."""
    with tclient.no_grad():
        parameter.normal_(0.0, math.sqrt(2.0 / float(fan_in + fan_out)))


class MultiheadAttention(Module):
    """softmax(Q Kᵀ / sqrt(d)) V in several subspaces.

    Shapes: query (L, N, E), key (S, N, E), value (S, N, E) -> (L, N, E); N first with batch_first; or without N.
    Source: Vaswani and others (2017).
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and "
                f"num_heads={num_heads} instead"
            )
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")
        where = {"device": device, "dtype": dtype}
        if self._qkv_same_embed_dim:
            self.in_proj_weight = parameter_from(tclient.empty, (3 * embed_dim, embed_dim), **where)
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                self.register_parameter(name, None)
        else:
            self.q_proj_weight = parameter_from(tclient.empty, (embed_dim, embed_dim), **where)
            self.k_proj_weight = parameter_from(tclient.empty, (embed_dim, self.kdim), **where)
            self.v_proj_weight = parameter_from(tclient.empty, (embed_dim, self.vdim), **where)
            self.register_parameter("in_proj_weight", None)
        if bias:
            self.in_proj_bias = parameter_from(tclient.empty, 3 * embed_dim, **where)
        else:
            self.register_parameter("in_proj_bias", None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, **where)
        if add_bias_kv:
            self.bias_k = parameter_from(tclient.empty, (1, 1, embed_dim), **where)
            self.bias_v = parameter_from(tclient.empty, (1, 1, embed_dim), **where)
        else:
            self.bias_k = self.bias_v = None
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        width = self.embed_dim
        if self.in_proj_weight is not None:
            xavier_uniform_of(self.in_proj_weight, width, 3 * width)
        else:
            for parameter, fan_in in (
                (self.q_proj_weight, width),
                (self.k_proj_weight, self.kdim),
                (self.v_proj_weight, self.vdim),
            ):
                assert parameter is not None
                xavier_uniform_of(parameter, fan_in, width)
        with tclient.no_grad():
            if self.in_proj_bias is not None:
                self.in_proj_bias.zero_()
                assert self.out_proj.bias is not None
                self.out_proj.bias.zero_()
        for parameter in (self.bias_k, self.bias_v):
            if parameter is not None:
                xavier_normal_of(parameter, width, width)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What the query attends to, and with need_weights how much to each."""
        swap = self.batch_first and query.dim() == 3
        if swap:
            query, key, value = (tensor.transpose(1, 0) for tensor in (query, key, value))
        separate: dict[str, Any] = {}
        if not self._qkv_same_embed_dim:
            separate = {
                "use_separate_proj_weight": True,
                "q_proj_weight": self.q_proj_weight,
                "k_proj_weight": self.k_proj_weight,
                "v_proj_weight": self.v_proj_weight,
            }
        output, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            **separate,
        )
        return (output.transpose(1, 0) if swap else output), weights
