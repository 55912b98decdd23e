"""LSTM, GRU and RNN: by torch's own where it has the same, and else step by step.

Gates stand in another order than torch's, and weights of both directions are one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tclient as tc
from tclient._onnx.operators import operator
from tclient._onnx.reading import Node
from tclient.nn import functional as F

# The places of torch's gates among those of ONNX.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
# Activations, and what their alpha and beta are where the node does not say.
_ACTIVATIONS: dict[str, tuple[Callable[[Any, float, float], Any], float, float]] = {
    "affine": (lambda x, alpha, beta: x * alpha + beta, 1.0, 0.0),
    "elu": (lambda x, alpha, beta: F.elu(x, alpha), 1.0, 0.0),
    "hardsigmoid": (lambda x, alpha, beta: tc.clamp(x * alpha + beta, 0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, alpha, beta: F.leaky_relu(x, alpha), 0.01, 0.0),
    "relu": (lambda x, alpha, beta: tc.relu(x), 0.0, 0.0),
    "scaledtanh": (lambda x, alpha, beta: tc.tanh(x * beta) * alpha, 1.0, 1.0),
    "sigmoid": (lambda x, alpha, beta: tc.sigmoid(x), 0.0, 0.0),
    "softplus": (lambda x, alpha, beta: F.softplus(x), 0.0, 0.0),
    "softsign": (lambda x, alpha, beta: F.softsign(x), 0.0, 0.0),
    "tanh": (lambda x, alpha, beta: tc.tanh(x), 0.0, 0.0),
    "thresholdedrelu": (lambda x, alpha, beta: F.threshold(x, alpha, 0.0), 1.0, 0.0),
}
_SETTINGS = "activation_alpha activation_beta activations clip direction hidden_size layout"


def _directions(node: Node) -> int:
    return 2 if node.get("direction", "forward") == "bidirectional" else 1


def _activations(node: Node) -> list[str]:
    return node.get("activations") or _USUAL[node.kind] * _directions(node)


def _complaint(node: Node) -> str | None:
    names = _activations(node)
    unknown = [name for name in names if name.lower() not in _ACTIVATIONS]
    if unknown:
        return f"there are no activations called {', '.join(unknown)}"
    if len(names) != len(_USUAL[node.kind]) * _directions(node):
        return f"{len(names)} activations are too many or too few"
    return None


@operator("LSTM", attributes=f"{_SETTINGS} input_forget", complaint=_complaint)
@operator("GRU", attributes=f"{_SETTINGS} linear_before_reset", complaint=_complaint)
@operator("RNN", attributes=_SETTINGS, complaint=_complaint)
def _recurrent(
    node: Node,
    x: Any,
    w: Any,
    r: Any,
    bias: Any = None,
    lengths: Any = None,
    state: Any = None,
    cell: Any = None,
    peepholes: Any = None,
) -> Any:
    directions, size = _directions(node), r.shape[-1]
    by_batch = bool(node.get("layout", 0))
    if by_batch:
        x = x.transpose(0, 1)
        state, cell = (None if found is None else found.transpose(0, 1) for found in (state, cell))
    batch = x.shape[1]
    none = tc.zeros(directions, batch, size, dtype=x.dtype)
    state, cell = none if state is None else state, none if cell is None else cell
    if lengths is None and peepholes is None and _is_torchs(node):
        made = _by_torch(node, x, w, r, bias, state, cell)
    else:
        made = _by_steps(node, x, w, r, bias, lengths, state, cell, peepholes)
    if by_batch:
        return (made[0].permute(2, 0, 1, 3), *(found.transpose(0, 1) for found in made[1:]))
    return made


def _is_torchs(node: Node) -> bool:
    """Whether torch's own function means what the node says."""
    names = _activations(node)
    usual = [_USUAL[node.kind] * _directions(node)]
    if node.kind == "RNN":
        usual.append(["Relu"] * _directions(node))
    if node.kind == "GRU" and not node.get("linear_before_reset", 0):
        return False
    is_forward = node.get("direction", "forward") != "reverse"
    return names in usual and is_forward and not node.get("clip") and not node.get("input_forget", 0)


def _by_torch(node: Node, x: Any, w: Any, r: Any, bias: Any, state: Any, cell: Any) -> tuple[Any, ...]:
    directions = w.shape[0]
    flat: list[Any] = []
    for at in range(directions):
        flat += [_ordered(node.kind, w[at]), _ordered(node.kind, r[at])]
        if bias is not None:
            flat += [_ordered(node.kind, part) for part in bias[at].chunk(2)]
    settings = bias is not None, 1, 0.0, False, directions == 2, False
    if node.kind == "LSTM":
        made, *states = tc.lstm(x, (state, cell), flat, *settings)
    else:
        run = tc.gru if node.kind == "GRU" else tc.rnn_relu if "Relu" in _activations(node) else tc.rnn_tanh
        made, *states = run(x, state, flat, *settings)
    steps, batch, _ = x.shape
    return made.reshape(steps, batch, directions, -1).permute(0, 2, 1, 3), *states


def _ordered(kind: str, weights: Any) -> Any:
    """Weights with the gates as torch has them."""
    gates = _GATES[kind]
    if len(gates) == 1:
        return weights
    parts = weights.chunk(len(gates))
    return tc.cat([parts[at] for at in gates])


def _by_steps(
    node: Node, x: Any, w: Any, r: Any, bias: Any, lengths: Any, state: Any, cell: Any, peepholes: Any
) -> tuple[Any, ...]:
    made: list[Any] = []
    is_backwards = [node.get("direction", "forward") == "reverse", True]
    for at, backwards in zip(range(w.shape[0]), is_backwards, strict=False):
        holes = None if peepholes is None else peepholes[at].chunk(3)
        biases = (0, 0) if bias is None else bias[at].chunk(2)
        weights = w[at].t(), r[at].t(), *biases
        made.append(_one_way(node, at, x, weights, lengths, state[at], cell[at], holes, backwards=backwards))
    return tuple(tc.stack(each, 1 if number == 0 else 0) for number, each in enumerate(zip(*made, strict=True)))


def _one_way(
    node: Node,
    at: int,
    x: Any,
    weights: Sequence[Any],
    lengths: Any,
    state: Any,
    cell: Any,
    holes: Any,
    *,
    backwards: bool,
) -> tuple[Any, ...]:
    """All steps of one direction: the states, (steps, batch, size), and the last ones."""
    functions = _functions(node, at)
    step_of = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}[node.kind]
    steps = x.shape[0]
    states: list[Any] = [None] * steps
    for step in range(steps - 1, -1, -1) if backwards else range(steps):
        new, new_cell = step_of(node, functions, x[step], weights, state, cell, holes)
        if lengths is not None:
            # Behind the end of a row its states stay, and what is given is 0.
            lasts = (lengths > step).unsqueeze(1)
            states[step] = tc.where(lasts, new, tc.zeros_like(new))
            new, new_cell = tc.where(lasts, new, state), tc.where(lasts, new_cell, cell)
        else:
            states[step] = new
        state, cell = new, new_cell
    lasting = (state, cell) if node.kind == "LSTM" else (state,)
    return tc.stack(states), *lasting


def _functions(node: Node, at: int) -> list[Callable[[Any], Any]]:
    """The activations of a direction, with their parameters, behind the clip."""
    names = _activations(node)
    given = {"alpha": list(node.get("activation_alpha", [])), "beta": list(node.get("activation_beta", []))}
    made = []
    for name in names:
        function, alpha, beta = _ACTIVATIONS[name.lower()]
        # Only those that have one take the next of what is given.
        if name.lower() in ("affine", "elu", "hardsigmoid", "leakyrelu", "scaledtanh", "thresholdedrelu"):
            alpha = given["alpha"].pop(0) if given["alpha"] else alpha
        if name.lower() in ("affine", "hardsigmoid", "scaledtanh"):
            beta = given["beta"].pop(0) if given["beta"] else beta
        made.append(_clipped(function, alpha, beta, node.get("clip", 0.0)))
    count = len(_USUAL[node.kind])
    return made[at * count : (at + 1) * count]


def _clipped(
    function: Callable[[Any, float, float], Any], alpha: float, beta: float, clip: float
) -> Callable[[Any], Any]:
    return lambda x: function(tc.clamp(x, -clip, clip) if clip else x, alpha, beta)


def _lstm_step(node: Node, functions: Any, x: Any, weights: Any, state: Any, cell: Any, holes: Any) -> tuple[Any, Any]:
    f, g, h = functions
    w, r, w_bias, r_bias = weights
    i, o, forget, c = (x @ w + state @ r + w_bias + r_bias).chunk(4, -1)
    p_i, p_o, p_f = holes if holes is not None else (0, 0, 0)
    i = f(i + p_i * cell)
    forget = 1 - i if node.get("input_forget", 0) else f(forget + p_f * cell)
    new = forget * cell + i * g(c)
    return f(o + p_o * new) * h(new), new


def _gru_step(node: Node, functions: Any, x: Any, weights: Any, state: Any, cell: Any, holes: Any) -> tuple[Any, Any]:
    f, g = functions
    w, r, w_bias, r_bias = weights
    size = state.shape[-1]
    x_z, x_r, x_h = (x @ w + w_bias).chunk(3, -1)
    r_zr, r_h = r.split([2 * size, size], 1)
    b_zr, b_h = (0, 0) if isinstance(r_bias, int) else r_bias.split([2 * size, size])
    h_z, h_r = (state @ r_zr + b_zr).chunk(2, -1)
    z, reset = f(x_z + h_z), f(x_r + h_r)
    if node.get("linear_before_reset", 0):
        new = g(x_h + reset * (state @ r_h + b_h))
    else:
        new = g(x_h + (reset * state) @ r_h + b_h)
    return (1 - z) * new + z * state, cell


def _rnn_step(node: Node, functions: Any, x: Any, weights: Any, state: Any, cell: Any, holes: Any) -> tuple[Any, Any]:
    w, r, w_bias, r_bias = weights
    return functions[0](x @ w + state @ r + w_bias + r_bias), cell
