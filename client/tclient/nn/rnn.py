"""Recurrent layers and their cells.

Knows names and shapes of the weights; a whole sequence through all layers is one call on the server.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import tclient
from tclient.nn._core import Tensor
from tclient.nn.module import Module
from tclient.nn.parameter import Parameter, parameter_from
from tclient.nn.utils.rnn import PackedSequence

_LSTM_GATES = 4


class RNNBase(Module):
    """What RNN, LSTM and GRU have in common.

    Shapes: (L, N, input_size), or (N, L, input_size) with batch_first, or (L, input_size).
    """

    _gates: ClassVar[int] = 1
    _what: ClassVar[str] = ""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        _check_sizes(hidden_size, num_layers, dropout, proj_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._weight_names: list[str] = []
        for name, shape in self._shapes():
            self._weight_names.append(name)
            setattr(self, name, parameter_from(tclient.empty, shape, device, dtype))
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        rows = self._gates * self.hidden_size
        output = self.proj_size or self.hidden_size
        for layer in range(self.num_layers):
            for suffix in ("", "_reverse")[: self._directions]:
                columns = self.input_size if layer == 0 else output * self._directions
                yield f"weight_ih_l{layer}{suffix}", (rows, columns)
                yield f"weight_hh_l{layer}{suffix}", (rows, output)
                if self.bias:
                    yield f"bias_ih_l{layer}{suffix}", (rows,)
                    yield f"bias_hh_l{layer}{suffix}", (rows,)
                if self.proj_size:
                    yield f"weight_hr_l{layer}{suffix}", (self.proj_size, self.hidden_size)

    def reset_parameters(self) -> None:
        """Draws all weights between ±1/sqrt(hidden_size), as torch does."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        with tclient.no_grad():
            for name in self._weight_names:
                self._parameter(name).uniform_(-bound, bound)

    def _parameter(self, name: str) -> Parameter:
        parameter = self._parameters[name]
        assert parameter is not None
        return parameter

    def flatten_parameters(self) -> None:
        """Does nothing: the server's torch lays weights out as it needs them."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights of each layer and direction."""
        each = len(self._weight_names) // (self.num_layers * self._directions)
        flat = self._flat_weights()
        return [flat[start : start + each] for start in range(0, len(flat), each)]

    def _flat_weights(self) -> list[Parameter]:
        return [self._parameter(name) for name in self._weight_names]

    def _enter(self, input: Tensor) -> tuple[Tensor, bool]:
        """Input as a batch, and whether it was one."""
        shape = tuple(input.shape)
        dims = len(shape)
        if dims not in (2, 3):
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {dims}D{self._what} instead")
        self._check_features(shape)
        batched = dims == 3
        return input if batched else input.unsqueeze(0 if self.batch_first else 1), batched

    def _check_features(self, shape: tuple[int, ...]) -> None:
        if shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {shape[-1]}"
            )

    def _zeros(self, input: Tensor, size: int) -> Tensor:
        batch = input.size(0 if self.batch_first else 1)
        return tclient.zeros(self.num_layers * self._directions, batch, size, dtype=input.dtype, device=input.device)

    def _states(self, states: list[Tensor], batch: Tensor, batched: bool) -> list[Tensor]:
        """The states as batches, if they fit the input."""
        shapes = [tuple(state.shape) for state in states]
        wanted_dims = 3 if batched else 2
        if any(len(shape) != wanted_dims for shape in shapes):
            kind = "batched 3-D" if batched else "unbatched 2-D"
            got = ", ".join(f"{len(shape)}-D" for shape in shapes)
            names, found = ("hx", f"{got} tensor") if len(states) == 1 else ("hx and cx", f"({got}) tensors")
            raise RuntimeError(f"For {kind} input, {names} should also be {wanted_dims}-D but got {found}")
        rows = self.num_layers * self._directions
        count = int(batch.shape[0 if self.batch_first else 1])
        self._check_states([shape if batched else (shape[0], 1, shape[1]) for shape in shapes], (rows, count))
        return states if batched else [state.unsqueeze(1) for state in states]

    def _check_states(self, shapes: list[tuple[int, ...]], wanted: tuple[int, int]) -> None:
        for index, shape in enumerate(shapes):
            size = self.proj_size if index == 0 and self.proj_size else self.hidden_size
            if shape != (*wanted, size):
                name = "hidden" if len(shapes) == 1 else f"hidden[{index}]"
                raise RuntimeError(f"Expected {name} size {(*wanted, size)}, got {list(shape)}")

    def _settings(self) -> tuple[bool, int, float, bool, bool, bool]:
        return (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional, self.batch_first)

    def _leave(self, output: Tensor, batched: bool) -> Tensor:
        return output if batched else output.squeeze(0 if self.batch_first else 1)

    def _run_packed(
        self, run: Callable[..., Any], input: PackedSequence, states: list[Tensor] | None
    ) -> tuple[PackedSequence, list[Tensor]]:
        """The output of packed sequences, and the last states in the order in which the sequences were given."""
        data, batch_sizes, sorted_indices, unsorted_indices = input
        shape = tuple(data.shape)
        if len(shape) != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {len(shape)}")
        self._check_features(shape)
        rows, count = self.num_layers * self._directions, input._sizes()[0]
        sizes = [self.proj_size or self.hidden_size, self.hidden_size]
        if states is None:
            wanted = sizes if self._gates == _LSTM_GATES else sizes[:1]
            where, kind = data.device, data.dtype
            states = [tclient.zeros(rows, count, size, dtype=kind, device=where) for size in wanted]
        else:
            self._check_states([tuple(state.shape) for state in states], (rows, count))
            states = [_chosen(state, sorted_indices) for state in states]
        hx = states if self._gates == _LSTM_GATES else states[0]
        # The settings without the last one: packed sequences have no batch_first.
        output, *last = run(data, batch_sizes, hx, self._flat_weights(), *self._settings()[:-1])
        return input._with(output), [_chosen(state, unsorted_indices) for state in last]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size != 0:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.batch_first is not False:
            text += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            text += f", dropout={self.dropout}"
        if self.bidirectional is not False:
            text += f", bidirectional={self.bidirectional}"
        return text


def _apply_permutation(tensor: Tensor, permutation: Tensor, dim: int = 1) -> Tensor:
    return tensor.index_select(dim, permutation)


def apply_permutation(tensor: Tensor, permutation: Tensor, dim: int = 1) -> Tensor:
    """The old name of `index_select`."""
    warnings.warn(
        "`apply_permutation` is deprecated, please use `tensor.index_select(dim, permutation)` instead",
        FutureWarning,
        stacklevel=2,
    )
    return _apply_permutation(tensor, permutation, dim)


def _chosen(state: Tensor, indices: Tensor | None) -> Tensor:
    return state if indices is None else state.index_select(1, indices)


def _check_sizes(hidden_size: Any, num_layers: int, dropout: Any, proj_size: int) -> None:
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
        )
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers "
            f"greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            stacklevel=4,
        )
    if not isinstance(hidden_size, int):
        raise TypeError(f"hidden_size should be of type int, got: {type(hidden_size).__name__}")
    if hidden_size <= 0:
        raise ValueError("hidden_size must be greater than zero")
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")


class RNN(RNNBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""

    _what = " tensor"

    def __init__(self, *args: Any, nonlinearity: str = "tanh", **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            # torch takes nonlinearity as the fourth positional argument.
            nonlinearity = args[3]
            args = args[:3] + args[4:]
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(*args, **kwargs)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """The output of the last layer at every step, packed as the input, and the last hidden state of every layer."""
        run = tclient.rnn_tanh if self.nonlinearity == "tanh" else tclient.rnn_relu
        if isinstance(input, PackedSequence):
            packed, states = self._run_packed(run, input, None if hx is None else [hx])
            return packed, states[0]
        batch, batched = self._enter(input)
        state = self._zeros(batch, self.hidden_size) if hx is None else self._states([hx], batch, batched)[0]
        output, last = run(batch, state, self._flat_weights(), *self._settings())
        return self._leave(output, batched), last if batched else last.squeeze(1)


class GRU(RNNBase):
    """Gated recurrent units. Source: Cho and others (2014)."""

    _gates = 3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__(*args, **kwargs)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """The output of the last layer at every step, packed as the input, and the last hidden state of every layer."""
        if isinstance(input, PackedSequence):
            packed, states = self._run_packed(tclient.gru, input, None if hx is None else [hx])
            return packed, states[0]
        batch, batched = self._enter(input)
        state = self._zeros(batch, self.hidden_size) if hx is None else self._states([hx], batch, batched)[0]
        output, last = tclient.gru(batch, state, self._flat_weights(), *self._settings())
        return self._leave(output, batched), last if batched else last.squeeze(1)


class LSTM(RNNBase):
    """Long short-term memory. Source: Hochreiter and Schmidhuber (1997)."""

    _gates = _LSTM_GATES

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        """The output of the last layer at every step, and the last hidden and cell state of every layer.

        The output is packed if the input is.
        """
        if isinstance(input, PackedSequence):
            packed, states = self._run_packed(tclient.lstm, input, None if hx is None else list(hx))
            return packed, (states[0], states[1])
        batch, batched = self._enter(input)
        if hx is None:
            state = [self._zeros(batch, self.proj_size or self.hidden_size), self._zeros(batch, self.hidden_size)]
        else:
            state = self._states(list(hx), batch, batched)
        output, hidden, cell = tclient.lstm(batch, state, self._flat_weights(), *self._settings())
        if not batched:
            hidden, cell = hidden.squeeze(1), cell.squeeze(1)
        return self._leave(output, batched), (hidden, cell)


class RNNCellBase(Module):
    """One step of a recurrent layer. Shapes: (N, input_size) or (input_size,)."""

    _gates: ClassVar[int] = 1
    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = self._gates * hidden_size
        where = {"device": device, "dtype": dtype}
        self.weight_ih = parameter_from(tclient.empty, (rows, input_size), **where)
        self.weight_hh = parameter_from(tclient.empty, (rows, hidden_size), **where)
        if bias:
            self.bias_ih = parameter_from(tclient.empty, rows, **where)
            self.bias_hh = parameter_from(tclient.empty, rows, **where)
        else:
            self.register_parameter("bias_ih", None)
            self.register_parameter("bias_hh", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all weights between ±1/sqrt(hidden_size), as torch does."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        with tclient.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound)

    def _enter(self, input: Tensor) -> tuple[Tensor, bool]:
        dims = input.dim()
        if dims not in (1, 2):
            raise ValueError(f"{self._get_name()}: Expected input to be 1D or 2D, got {dims}D instead")
        return (input, True) if dims == 2 else (input.unsqueeze(0), False)

    def _start(self, input: Tensor, state: Tensor | None, batched: bool) -> Tensor:
        if state is None:
            return tclient.zeros(input.size(0), self.hidden_size, dtype=input.dtype, device=input.device)
        return state if batched else state.unsqueeze(0)

    def _weights(self) -> tuple[Parameter, Parameter, Parameter | None, Parameter | None]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        return text if self.bias is True else f"{text}, bias={self.bias}"


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        batch, batched = self._enter(input)
        run = tclient.rnn_tanh_cell if self.nonlinearity == "tanh" else tclient.rnn_relu_cell
        output = run(batch, self._start(batch, hx, batched), *self._weights())
        return output if batched else output.squeeze(0)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"


class GRUCell(RNNCellBase):
    """One step of a GRU."""

    _gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state."""
        batch, batched = self._enter(input)
        output = tclient.gru_cell(batch, self._start(batch, hx, batched), *self._weights())
        return output if batched else output.squeeze(0)


class LSTMCell(RNNCellBase):
    """One step of an LSTM."""

    _gates = 4

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next hidden and cell state."""
        batch, batched = self._enter(input)
        if hx is None:
            zeros = self._start(batch, None, batched)
            state = [zeros, zeros]
        else:
            state = [self._start(batch, part, batched) for part in hx]
        hidden, cell = tclient.lstm_cell(batch, state, *self._weights())
        return (hidden, cell) if batched else (hidden.squeeze(0), cell.squeeze(0))
