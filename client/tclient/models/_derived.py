"""What a network takes, where its first layer says so.

Knows the layers of tclient.nn; does not run any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tclient import nn
from tclient._codec.dtypes import DTYPES
from tclient.models._inputs import BATCH, Input
from tclient.nn import Module

_INT64 = DTYPES["int64"]
_LENGTH = "length"
_SPACES = ((_LENGTH,), ("height", "width"), ("depth", "height", "width"))


def first_layer(module: Module) -> tuple[str, Module]:
    """The layer that an input comes to first, with its path; a module of another kind than Sequential is one."""
    path = ""
    while type(module) is nn.Sequential or (isinstance(module, nn.Sequential) and type(module) is nn.MLP):
        for name, child in module.named_children():
            if not isinstance(child, (nn.Identity, nn.Dropout)):
                path, module = f"{path}.{name}" if path else name, child
                break
        else:
            break
    return path, module


def derived_inputs(module: Module) -> Sequence[Input] | Mapping[str, Input] | None:
    """The inputs of a module; None where its first layer does not say them."""
    _, layer = first_layer(module)
    for kind, form in _FORMS:
        if type(layer) is kind or (isinstance(layer, kind) and type(layer).forward is kind.forward):
            found = form(layer)
            return found if layer is module or len(found) == 1 else None
    return None


def _like(layer: Module, *shape: Any) -> Input:
    """An input of the dtype of the layer's weights."""
    weight = next(layer.parameters(), None)
    return Input(shape, None if weight is None else weight.dtype)


def _convolution(spaces: tuple[str, ...]) -> Callable[[Any], list[Input]]:
    return lambda layer: [_like(layer, BATCH, layer.in_channels, *spaces)]


def _words(layer: Any) -> list[Input]:
    return [Input((BATCH, _LENGTH), _INT64, high=layer.num_embeddings)]


def _sequence(layer: Any, width: int, name: str = _LENGTH, *, batch_first: bool | None = None) -> Input:
    first = layer.batch_first if batch_first is None else batch_first
    return _like(layer, *((BATCH, name) if first else (name, BATCH)), width)


def _recurrent(layer: Any) -> list[Input]:
    return [_sequence(layer, layer.input_size)]


def _attention(layer: Any) -> list[Input]:
    return [
        _sequence(layer, layer.embed_dim),
        _sequence(layer, layer.kdim, "keys"),
        _sequence(layer, layer.vdim, "keys"),
    ]


def _encoder_layer(layer: Any) -> list[Input]:
    attention = layer.self_attn
    return [_sequence(layer, attention.embed_dim, batch_first=attention.batch_first)]


def _encoder(layer: Any) -> list[Input]:
    return _encoder_layer(layer.layers[0])


def _decoder_layer(layer: Any) -> list[Input]:
    attention = layer.self_attn
    return [
        _sequence(layer, attention.embed_dim, name, batch_first=attention.batch_first) for name in (_LENGTH, "source")
    ]


def _decoder(layer: Any) -> list[Input]:
    return _decoder_layer(layer.layers[0])


def _transformer(layer: Any) -> list[Input]:
    return [_sequence(layer, layer.d_model, name) for name in ("source", "target")]


_FORMS: list[tuple[Any, Callable[[Any], list[Input]]]] = [
    (nn.Linear, lambda layer: [_like(layer, BATCH, layer.in_features)]),
    (
        nn.Bilinear,
        lambda layer: [_like(layer, BATCH, layer.weight.shape[1]), _like(layer, BATCH, layer.weight.shape[2])],
    ),
    *zip((nn.Conv1d, nn.Conv2d, nn.Conv3d), map(_convolution, _SPACES), strict=True),
    *zip((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), map(_convolution, _SPACES), strict=True),
    (nn.Embedding, _words),
    (nn.EmbeddingBag, _words),
    *((kind, _recurrent) for kind in (nn.RNN, nn.LSTM, nn.GRU)),
    *((kind, lambda layer: [_like(layer, BATCH, layer.input_size)]) for kind in (nn.RNNCell, nn.LSTMCell, nn.GRUCell)),
    (nn.MultiheadAttention, _attention),
    (nn.TransformerEncoderLayer, _encoder_layer),
    (nn.TransformerEncoder, _encoder),
    (nn.TransformerDecoderLayer, _decoder_layer),
    (nn.TransformerDecoder, _decoder),
    (nn.Transformer, _transformer),
]
