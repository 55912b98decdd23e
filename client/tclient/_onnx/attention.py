"""Operators of transformers: attention, rotated embeddings, gated units."""

from __future__ import annotations

from typing import Any

import tclient as tc
from tclient._onnx.operators import operator
from tclient._onnx.reading import DTYPES, Node
from tclient.nn import functional as F


@operator(
    "Attention",
    attributes="is_causal kv_num_heads left_window_size q_num_heads qk_matmul_output_mode right_window_size scale "
    "softcap softmax_precision",
)
def _attention(
    node: Node,
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    lengths: Any = None,
) -> Any:
    is_flat = query.ndim == 3
    if is_flat:
        heads, kv_heads = node.get("q_num_heads"), node.get("kv_num_heads")
        query, key, value = _split(query, heads), _split(key, kv_heads), _split(value, kv_heads)
    before: Any = 0  # how many keys come before the first query
    if past_key is not None:
        before = past_key.shape[2]
        key, value = tc.cat([past_key, key], 2), tc.cat([past_value, value], 2)
    elif lengths is not None:
        before = (lengths - query.shape[2]).reshape(-1, 1, 1, 1)
    scale = node.get("scale") or query.shape[-1] ** -0.5
    bias = _bias(node, mask, lengths, before, query, key)
    made, scores = _mixed(node, query, key, value, bias, scale)
    if is_flat:
        made = made.transpose(1, 2).flatten(2)
    return made, key, value, scores


def _split(x: Any, heads: int) -> Any:
    count, steps, width = x.shape
    return x.reshape(count, steps, heads, width // heads).transpose(1, 2)


def _mixed(node: Node, query: Any, key: Any, value: Any, bias: Any, scale: float) -> tuple[Any, Any]:
    repeats = query.shape[1] // key.shape[1]
    softcap = node.get("softcap", 0.0)
    if not softcap and "softmax_precision" not in node.attributes and len(node.outputs) < 4:
        mixed = F.scaled_dot_product_attention(query, key, value, bias, scale=scale, enable_gqa=repeats > 1)
        return mixed, None
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    root = scale**0.5
    scores = tc.matmul(query * root, (key * root).transpose(-1, -2))
    capped = tc.tanh(scores / softcap) * softcap if softcap else scores
    biased = capped if bias is None else capped + bias
    weights = tc.softmax(biased.to(DTYPES.get(node.get("softmax_precision", 0), scores.dtype)), -1).to(query.dtype)
    if bias is not None:
        # Who may look at nothing gets nothing.
        weights = tc.where((biased == -tc.inf).all(-1, keepdim=True), tc.zeros_like(weights), weights)
    kept = scores, capped, biased, weights
    return tc.matmul(weights, value), kept[node.get("qk_matmul_output_mode", 0)]


def _bias(node: Node, mask: Any, lengths: Any, before: Any, query: Any, key: Any) -> Any:
    """What is added to the scores, or None: -inf where one may not look."""
    element, steps, reach = query.dtype, query.shape[2], key.shape[2]
    zero, never = tc.zeros((), dtype=element), tc.full((), -tc.inf, dtype=element)
    if mask is not None:
        mask = tc.where(mask, zero, never) if mask.dtype == tc.bool else mask
        short = reach - mask.shape[-1]
        mask = F.pad(mask, [0, short], value=-tc.inf) if short > 0 else mask
    hidden = []
    left, right = node.get("left_window_size", -1), node.get("right_window_size", -1)
    if node.get("is_causal", 0) or left >= 0 or right >= 0:
        ahead = tc.arange(reach) - (tc.arange(steps).unsqueeze(1) + before)
        hidden += [ahead > 0] if node.get("is_causal", 0) else []
        hidden += [ahead < -left] if left >= 0 else []
        hidden += [ahead > right] if right >= 0 else []
    if lengths is not None:
        hidden.append(tc.arange(reach) >= lengths.reshape(-1, 1, 1, 1))
    for places in hidden:
        mask = tc.where(places, never, zero if mask is None else mask)
    return mask


@operator("RotaryEmbedding", attributes="interleaved num_heads rotary_embedding_dim")
def _rotary_embedding(node: Node, x: Any, cosines: Any, sines: Any, positions: Any = None) -> Any:
    is_flat = x.ndim == 3
    whole = x
    x = x.reshape(*x.shape[:2], node.get("num_heads"), -1) if is_flat else x.transpose(1, 2)
    if positions is not None:
        cosines, sines = cosines[positions], sines[positions]
    size = node.get("rotary_embedding_dim", 0) or x.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    cosines, sines = (table[..., : size // 2].unsqueeze(2) for table in (cosines, sines))
    if node.get("interleaved", 0):
        one, other = turned[..., 0::2], turned[..., 1::2]
    else:
        one, other = turned.chunk(2, -1)
    pair = [cosines * one - sines * other, sines * one + cosines * other]
    made = tc.stack(pair, -1).flatten(-2) if node.get("interleaved", 0) else tc.cat(pair, -1)
    made = tc.cat([made, rest], -1)
    return made.reshape(whole.shape) if is_flat else made.transpose(1, 2)
