"""What is known of a result before it is answered: which operations have results of a kind, and which of which.

Of those listed here, shape, dtype and device of the results follow from those of the tensors, and from the other
arguments. What is not listed is asked for. A tensor in the place of a number has a value that is not known: then the
result is not, either. Knows arguments; does not know how calls travel.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from tclient._codec.device import device
from tclient._codec.dtypes import DTYPES, dtype, layout, memory_format
from tclient._codec.operations import TABLE, Operation
from tclient._codec.size import Size
from tclient._factories import DATA, FACTORIES, made
from tclient._session.handles import Handle, RemoteObject
from tclient._session.kinds import Kind
from tclient._session.modes import MODES
from tclient._session.session import Session

# Of a long list of tensors the kind costs more than it may save.
_LONG = 64


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Of a tensor with elements of floating point they have as many, of the same dtype.
_UNARY = _words(
    """neg negative positive exp log sqrt rsqrt square reciprocal sin cos tan tanh sigmoid relu gelu
    silu elu leaky_relu softplus floor ceil round trunc log1p log2 expm1 erf __neg__ __pos__ relu6
    logsigmoid"""
)
_ARITHMETIC = _words(
    """add sub mul div true_divide __add__ __sub__ __mul__ __truediv__ __radd__ __rsub__ __rmul__
    __rtruediv__ maximum minimum"""
)
# It is what it was, in all that a kind tells.
_SAME = frozenset(("detach", "data.__get__", "clone", "contiguous"))
_DUNDERS = """add sub mul div truediv floordiv mod pow and or xor lshift rshift radd rsub rmul rtruediv rfloordiv rmod
    rpow matmul rmatmul eq ne lt le gt ge"""
# How many arguments, from the first on, may be tensors. The others are plain, or there is no saying what comes.
_COUNTS: dict[int, str] = {
    1: """abs absolute neg negative positive sign exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin
        cos tan sinh cosh tanh asin acos atan sigmoid relu relu6 elu selu celu gelu silu mish leaky_relu softplus
        softsign hardtanh hardswish hardsigmoid logsigmoid tanhshrink threshold glu softmax log_softmax softmin erf erfc
        erfinv floor ceil round trunc frac clamp clamp_min clamp_max clip isnan isinf isfinite logical_not bitwise_not
        nan_to_num angle lgamma digamma logit dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout
        max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
        adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d normalize pad pixel_shuffle pixel_unshuffle unfold
        sum mean prod std var norm amax amin max min argmax argmin all any logsumexp cumsum cumprod median mode sort
        argsort topk kthvalue count_nonzero nansum nanmean view reshape flatten unflatten squeeze unsqueeze permute
        transpose t swapaxes swapdims movedim moveaxis expand broadcast_to repeat tile contiguous clone detach narrow
        select diagonal diag diag_embed tril triu flip fliplr flipud roll rot90 trace float double half bfloat16 long
        int short bool byte char to cpu cuda zeros_like ones_like empty_like full_like rand_like randn_like new_zeros
        new_ones new_empty new_full bernoulli multinomial split chunk unbind split_with_sizes tensor_split unsafe_split
        unsafe_chunk __neg__ __pos__ __abs__ __invert__ __getitem__ data.__get__ T.__get__ mT.__get__ real.__get__
        imag.__get__""",
    2: """add sub subtract mul multiply div divide true_divide floor_divide remainder fmod pow float_power maximum
        minimum fmax fmin eq ne lt le gt ge not_equal less less_equal greater greater_equal logical_and logical_or
        logical_xor bitwise_and bitwise_or bitwise_xor atan2 hypot copysign xlogy logaddexp isclose rsub matmul mm bmm
        mv dot inner outer expand_as view_as reshape_as type_as mse_loss l1_loss smooth_l1_loss huber_loss kl_div
        embedding cosine_similarity pairwise_distance cdist prelu cat concat concatenate stack hstack vstack
        broadcast_tensors tc.forward """
    + " ".join(f"__{name}__" for name in _DUNDERS.split()),
    3: """lerp addcmul addcdiv addmm addmv addr baddbmm linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d
        conv_transpose3d cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits where masked_fill
        rms_norm lstm gru rnn_tanh rnn_relu""",
    4: "scaled_dot_product_attention bilinear layer_norm group_norm",
    5: "batch_norm instance_norm",
    6: "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
    30: "einsum multi_head_attention_forward",
}
_PLACES = {name: (1 << count) - 1 for count, names in _COUNTS.items() for name in names.split()}
# In between stands the dimension.
_PLACES |= {"index_select": 0b101, "gather": 0b101, "scatter": 0b1101, "scatter_add": 0b1101, "index_add": 0b1101}
_FAMILIES = ("Tensor.", "nn.functional.")
# In the place of places: it takes no tensors, and what it makes is told by _factories.
_FACTORY = -1
_NAMED_TENSORS = frozenset(("input", "other", "weight", "bias", "target", "running_mean", "running_var", "attn_mask"))
_PLAIN = frozenset((int, str, bool, type(None), dtype, device, layout, memory_format))
_SEQUENCES = frozenset((tuple, list, Size))
_INTEGERS = frozenset(DTYPES[name] for name in ("int64", "int32", "int16", "int8"))


def _short(name: str) -> str:
    for family in _FAMILIES:
        if name.startswith(family):
            return name[len(family) :]
    return name


def places_of(name: str) -> int:
    """A bit for each argument of the operation that may be a tensor; 0 if its results are of no kind."""
    if name in FACTORIES:
        return _FACTORY
    return _PLACES.get(_short(name), 0)


def kind_of(session: Session, operation: Operation, args: Sequence[Any], kwargs: dict[str, Any] | None) -> Kind | None:
    """What such a call returns; None if there is no saying."""
    kinds = session.kinds
    epoch = session.queue.meta_epoch
    rule = operation.shape_rule
    if rule and args and not kwargs and isinstance(args[0], Handle):
        ref = args[0]._ref
        kind = ref.kind
        if kind is None or ref.since < epoch:
            kind = kinds.of_ref(ref, epoch)
            if kind is None:
                return None
        if rule == "arithmetic":
            if kind.floats and len(args) == 2 and not MODES.state.autocasts:
                other = args[1]
                cls = other.__class__
                if cls is float or cls is int:
                    return kind
                if isinstance(other, Handle):
                    ref = other._ref
                    same = ref.kind
                    if same is None or ref.since < epoch:
                        same = kinds.of_ref(ref, epoch)
                    if same is kind:
                        return kind
        elif len(args) == 1 and (rule == "same" or (kind.floats and not MODES.state.autocasts)):
            return kind
    return by_key(session, operation, args, kwargs)


def by_key(session: Session, operation: Operation, args: Sequence[Any], kwargs: dict[str, Any] | None) -> Kind | None:
    """What calls with such arguments return."""
    places = operation.tensors
    name = operation.name
    key: list[Hashable] = [operation, MODES.state.stamp]
    if name == "Tensor.__getitem__":
        return _item(session, key, args)
    if len(args) < 3 and name.endswith("where"):
        return None  # where(condition): as many as there are
    if name in DATA:
        meta = made(session, name, args, kwargs or {})
        return None if meta is None else session.kinds.of_meta(meta)
    is_factory = places == _FACTORY
    if is_factory:
        places = 0
    for value in args:
        if not _put(key, value, session, places & 1):
            return None
        places >>= 1
    if kwargs:
        for name, value in kwargs.items():
            key.append(name)
            if not _put(key, value, session, name in _NAMED_TENSORS):
                return None
    if is_factory:
        return session.kinds.of_factory(tuple(key), lambda: made(session, operation.name, args, kwargs or {}))
    return session.kinds.of_call(tuple(key))


def _put(key: list[Hashable], value: Any, session: Session, may_be_tensor: int) -> bool:
    """Puts into the key what a result's shape may follow from; whether that is all that it can follow from."""
    cls = value.__class__
    if cls in _PLAIN:
        key += (cls, value)
        return True
    if cls is float:
        key.append(float)
        return True
    if isinstance(value, Handle):
        if not may_be_tensor:
            return False
        ref = value._ref
        if isinstance(value, RemoteObject):
            key.append(ref.name)
            return True
        kind = session.kinds.of_ref(ref, session.queue.meta_epoch)
        key.append(kind)
        return kind is not None
    if cls in _SEQUENCES and len(value) <= _LONG:
        key += (cls, len(value))
        return all(_put(key, item, session, may_be_tensor) for item in value)
    return False


def _item(session: Session, key: list[Hashable], args: Sequence[Any]) -> Kind | None:
    """Of x[index]. The numbers of an index do not matter, nor where a piece of the first dimension begins."""
    kinds, epoch = session.kinds, session.queue.meta_epoch
    tensor, index = args
    kind = kinds.of_ref(tensor._ref, epoch)
    if kind is None:
        return None
    key.append(kind)
    if index.__class__ is slice and kind.meta is not None and kind.meta.shape and _is_plain(index):
        if index.step is None or (index.step.__class__ is int and index.step > 0):
            key += (range, len(range(*index.indices(kind.meta.shape[0]))))
            return kinds.of_call(tuple(key))
        return None
    for each in index if index.__class__ is tuple else (index,):
        cls = each.__class__
        if cls is slice:
            if not _is_plain(each):
                return None
            key += (slice, each.start, each.stop, each.step)
        elif cls is list:
            if len(each) > _LONG or not all(item.__class__ is int for item in each):
                return None
            key += (list, len(each))
        elif cls is np.ndarray:
            if each.dtype.kind != "i":
                return None
            key += (np.ndarray, each.shape)
        elif isinstance(each, Handle):
            other = kinds.of_ref(each._ref, epoch)
            if other is None or other.meta is None or other.meta.dtype not in _INTEGERS:
                return None  # of a mask the elements tell how many there are
            key.append(other)
        elif cls is int or each is None or each is ...:
            key.append(cls)
        else:
            return None
    return kinds.of_call(tuple(key))


def _is_plain(index: slice) -> bool:
    return all(each is None or each.__class__ is int for each in (index.start, index.stop, index.step))


def is_replaced_by_its_like(session: Session, args: Sequence[Any]) -> bool:
    """Whether `x.data = y` changes nothing that a kind tells."""
    epoch = session.queue.meta_epoch
    if not all(isinstance(each, Handle) for each in args):
        return False
    old, new = (session.kinds.of_ref(each._ref, epoch) for each in args)
    if old is None or new is None or old.meta is None or new.meta is None:
        return old is not None and old is new
    return session.kinds.of_meta(old.meta) is session.kinds.of_meta(new.meta)


_RULES = {"same": _SAME, "unary": _UNARY, "arithmetic": _ARITHMETIC}
for _operation in TABLE.values():
    _operation.tensors = places_of(_operation.name)
    if _operation.tensors > 0:
        _operation.shape_rule = next((rule for rule, names in _RULES.items() if _short(_operation.name) in names), "")
        _operation.has_plain_key = not (
            _operation.name == "Tensor.__getitem__" or _operation.name.endswith("where") or _operation.name in DATA
        )
