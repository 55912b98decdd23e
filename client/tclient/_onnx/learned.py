"""Operators of ai.onnx.ml: what scikit-learn's linear models, networks and scalers become."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tclient as tc
from tclient._onnx.operators import operator
from tclient._onnx.reading import Node
from tclient.nn import functional as F

_DOMAIN = "ai.onnx.ml"
_TEXTS = "tensors have no texts: give the classes integers for labels"


def _after(scores: Any, transform: str) -> Any:
    """What a model makes of its scores at the end."""
    if transform == "SOFTMAX":
        return tc.softmax(scores, -1)
    if transform == "LOGISTIC":
        return tc.sigmoid(scores)
    if transform == "SOFTMAX_ZERO":
        # A score of 0 stays 0, and the others share.
        return tc.where(scores == 0, scores, tc.softmax(tc.where(scores == 0, -tc.inf, scores), -1))
    if transform == "PROBIT":
        return tc.erfinv(2 * scores - 1) * 2**0.5
    return scores


@operator("Scaler", tensors="offset scale", domain=_DOMAIN)
def _scaler(node: Node, x: Any, offset: Any = None, scale: Any = None) -> Any:
    x = x.float()
    x = x if offset is None else x - offset
    return x if scale is None else x * scale


@operator("LinearRegressor", attributes="post_transform targets", tensors="coefficients intercepts", domain=_DOMAIN)
def _linear_regressor(node: Node, x: Any, coefficients: Any, intercepts: Any = None) -> Any:
    targets = node.get("targets", 1)
    made = F.linear(x.float(), coefficients.reshape(targets, -1), intercepts)
    return _after(made, node.get("post_transform", "NONE"))


def _classes_are_texts(node: Node) -> str | None:
    return f"its classes are texts (classlabels_strings); {_TEXTS}" if node.get("classlabels_strings") else None


@operator(
    "LinearClassifier",
    attributes="classlabels_strings multi_class post_transform",
    tensors="classlabels_ints coefficients intercepts",
    domain=_DOMAIN,
    complaint=_classes_are_texts,
)
def _linear_classifier(node: Node, x: Any, classlabels_ints: Any, coefficients: Any, intercepts: Any = None) -> Any:
    labels = len(node.get("classlabels_ints"))
    rows = len(node.get("intercepts", [])) or labels
    scores = F.linear(x.float(), coefficients.reshape(rows, -1), intercepts)
    transform = node.get("post_transform", "NONE")
    if rows == 1 and labels == 2:
        # One score for two classes: above the middle it is the second.
        one = _after(scores, transform)
        other = 1 - one if transform == "LOGISTIC" else -one
        return classlabels_ints[(scores > 0).reshape(-1).long()], tc.cat([other, one], 1)
    return classlabels_ints[scores.argmax(1)], _after(scores, transform)


@operator("Normalizer", attributes="norm", domain=_DOMAIN)
def _normalizer(node: Node, x: Any) -> Any:
    x = x.float()
    kind = node.get("norm", "MAX")
    if kind == "MAX":
        size = x.amax(-1, keepdim=True)
    else:
        size = tc.linalg.vector_norm(x, 1 if kind == "L1" else 2, dim=-1, keepdim=True)
    return x / tc.where(size == 0, tc.ones_like(size), size)


@operator("ArrayFeatureExtractor", domain=_DOMAIN)
def _array_feature_extractor(node: Node, x: Any, indices: Any) -> Any:
    made = x.index_select(-1, indices.reshape(-1))
    return made.unsqueeze(0) if x.ndim == 1 else made


def _is_no_tensor(node: Node) -> str | None:
    return "it makes dictionaries, and not tensors: convert with options={'zipmap': False}"


@operator("ZipMap", attributes="classlabels_int64s classlabels_strings", domain=_DOMAIN, complaint=_is_no_tensor)
def _zip_map(node: Node, x: Any) -> Any:
    raise NotImplementedError


@operator("Binarizer", attributes="threshold", domain=_DOMAIN)
def _binarizer(node: Node, x: Any) -> Any:
    return (x > node.get("threshold", 0.0)).to(x.dtype)


@operator(
    "Imputer",
    attributes="replaced_value_float replaced_value_int64",
    tensors="imputed_value_floats imputed_value_int64s",
    domain=_DOMAIN,
)
def _imputer(node: Node, x: Any, imputed_value_floats: Any = None, imputed_value_int64s: Any = None) -> Any:
    if x.dtype.is_floating_point:
        values, missing = imputed_value_floats, node.get("replaced_value_float", 0.0)
    else:
        values, missing = imputed_value_int64s, node.get("replaced_value_int64", 0)
    is_missing = tc.isnan(x) if math.isnan(missing) else x == missing
    return tc.where(is_missing, values.to(x.dtype), x)


_LABELS = "keys_int64s keys_floats keys_tensor values_int64s values_floats values_tensor default_int64 default_float"


def _labels_are_texts(node: Node) -> str | None:
    texts = [name for name in node.attributes if "string" in name]
    if texts:
        return f"its labels are texts ({', '.join(texts)}); {_TEXTS}"
    return None


@operator(
    "LabelEncoder",
    attributes=f"{_LABELS} default_tensor keys_strings values_strings classes_strings default_string",
    domain=_DOMAIN,
    complaint=_labels_are_texts,
)
def _label_encoder(node: Node, x: Any) -> Any:
    keys = _first(node, "keys_int64s", "keys_floats", "keys_tensor")
    values = _first(node, "values_int64s", "values_floats", "values_tensor")
    is_float = np.asarray(values).dtype.kind == "f"
    default = node.get("default_tensor")
    if default is None:
        default = node.get("default_float", 0.0) if is_float else node.get("default_int64", -1)
    element = tc.float32 if is_float else tc.int64
    made = tc.full_like(x, float(default) if is_float else int(default), dtype=element)
    for key, value in zip(np.asarray(keys).tolist(), np.asarray(values).tolist(), strict=True):
        made = tc.where(tc.isnan(x) if math.isnan(key) else x == key, value, made)
    return made


def _first(node: Node, *names: str) -> Any:
    return next((node.get(name) for name in names if node.get(name) is not None), [])
