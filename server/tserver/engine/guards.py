"""Arguments that torch itself does not check and that would end or block the process: refused before the call.

Knows torch and the names of operations. Found by running every operation of the table on damaged arguments in children
whose memory ends at a forbidden page (tests/fuzz). Calls that torch refuses itself are left to torch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor

from tserver.engine.extents import misfit, misfit_of_sizes, needed_bytes, tensors_in

# Says why a call is refused, or None.
Guard = Callable[..., str | None]

# torch's argument parser also takes numpy's names.
_NUMPY_NAMES = {"axis": "dim", "x": "input", "a": "input", "x1": "input", "x2": "other"}
_MAX_DEGREE = 1_000_000
# Numbers that an error names one by one.
_FEW = 16
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
_LSTM_GATES = 4


def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a name of the table, with its guard before it if it needs one."""
    if name in _PRODUCTS:
        function = _apart(function)
    guard = GUARDS.get(name)
    if guard is None:
        return function

    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            reason = guard(*args, **{_NUMPY_NAMES.get(key, key): value for key, value in kwargs.items()})
        except NotImplementedError as error:
            # A dtype that cannot be compared; the function itself may well take it, and trust it.
            reason = f"{name}: an argument cannot be checked ({error}); convert it to another dtype"
        except Exception:
            reason = None  # arguments that the function does not take: torch says so itself, in its own words
        if reason is not None:
            raise RuntimeError(reason)
        return function(*args, **kwargs)

    return checked


# Products do not check whether `out` is one of their factors. Where it has to grow, torch then returns memory that
# nobody has written, which on a shared server is that of others.
_PRODUCTS = frozenset(
    {
        "addbmm",
        "addmm",
        "addmv",
        "baddbmm",
        "bmm",
        "chain_matmul",
        "dot",
        "inner",
        "linalg.matmul",
        "linalg.multi_dot",
        "linalg.vecdot",
        "matmul",
        "mm",
        "mv",
        "tensordot",
        "vdot",
    }
)


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, reading from a copy what it is told to write."""

    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def product(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out")
        if not _is_strided(out):
            return function(*args, **kwargs)
        written = out.untyped_storage().data_ptr()

        def read(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(map(read, value)) if type(value) in (list, tuple) else value
            shared = _is_strided(value) and value.untyped_storage().data_ptr() == written
            return value.clone() if shared else value

        others = {name: value if name == "out" else read(value) for name, value in kwargs.items()}
        return function(*map(read, args), **others)

    return product


def _is_strided(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.layout is torch.strided


def _eigenvalues_exist(input: Tensor, **_: Any) -> str | None:
    # linalg.eig checks this, linalg.eigvals leaves it to LAPACK, whose xGEBAL then writes outside its workspace.
    if not bool(torch.isfinite(input).all()):
        return "torch.linalg.eigvals: input tensor should not contain infs or NaNs."
    return None


def _distances_have_gradients(input: Tensor, *_: Any, **__: Any) -> str | None:
    if input.dim() == 2 and input.shape[0] == 0 and input.requires_grad and torch.is_grad_enabled():
        return "pdist: no gradient without rows; the input has shape " + str(list(input.shape))
    return None


def _targets_are_classes(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, *_: Any, **__: Any
) -> str | None:
    classes = log_probs.shape[-1]
    # As torch itself takes them, whatever they are.
    targets = targets.long()
    if targets.dim() == 2:
        lengths = torch.as_tensor(target_lengths, device=targets.device).reshape(-1, 1)
        used = targets[torch.arange(targets.shape[1], device=targets.device) < lengths]
    else:
        used = targets
    outside = used[(used < 0) | (used >= classes)]
    if outside.numel():
        return f"ctc_loss: targets must be classes of log_probs, from 0 to {classes - 1}; got {int(outside[0])}"
    return None


def _quotient_fits(input: Tensor, other: Any, *_: Any, rounding_mode: str | None = None, **__: Any) -> str | None:
    if rounding_mode != "trunc" or input.is_cuda:
        # A division on a GPU does not trap, and a look there would wait for it.
        return None
    dtype = torch.result_type(input, other)
    if dtype in (torch.int32, torch.int64):
        smallest = torch.iinfo(dtype).min
        if bool(((input == smallest) & (torch.as_tensor(other, device=input.device) == -1)).any()):
            return f"div: {smallest} / -1 does not fit {dtype}"
    return None


def _multiple_exists(input: Tensor, other: Tensor, **_: Any) -> str | None:
    for factor in (input, other):
        if factor.dtype in (torch.int32, torch.int64):
            smallest = torch.iinfo(factor.dtype).min
            if bool((factor == smallest).any()):
                return f"lcm: {smallest} has no absolute value in {factor.dtype}"
    return None


def _power_has_an_opposite(input: Tensor, n: int, **_: Any) -> str | None:
    if n <= -(2**63):
        return f"matrix_power: n must be above -2^63; got {n}"
    return None


def _degree_is_bounded(input: Any, n: Any, **_: Any) -> str | None:
    # torch adds up the recurrence, one step for each degree, and cannot be interrupted.
    highest = (float(n.max()) if n.numel() else 0.0) if isinstance(n, Tensor) else n
    if highest > _MAX_DEGREE:
        return f"the degree n of a polynomial must be at most {_MAX_DEGREE}; got {highest}"
    return None


def _pivots_fit(LU_data: Tensor, LU_pivots: Tensor, *_: Any, **__: Any) -> str | None:
    if LU_data.dim() < 2:
        return None
    expected = (*LU_data.shape[:-2], min(LU_data.shape[-2:]))
    if tuple(LU_pivots.shape) != expected:
        return (
            f"lu_unpack: LU_data of shape {list(LU_data.shape)} needs LU_pivots of shape {list(expected)}; "
            f"got {list(LU_pivots.shape)}"
        )
    return None


def _interchanges_exist(LD: Tensor, pivots: Tensor, B: Tensor, **_: Any) -> str | None:
    rows = LD.shape[-1]
    batch = torch.broadcast_shapes(LD.shape[:-2], B.shape[:-2])
    if pivots.numel() < batch.numel() * rows:
        # torch broadcasts LD and B to each other, and reads as many pivots without broadcasting them.
        return f"linalg.ldl_solve: pivots of shape {list(pivots.shape)} are too few for a batch of {list(batch)}"
    if pivots.numel() and not bool(((pivots != 0) & (pivots.abs() <= rows)).all()):
        return f"linalg.ldl_solve: pivots must be in [1, {rows}], or negative for a block of two rows"
    for row in pivots.reshape(-1, max(1, pivots.shape[-1])).tolist():
        position = 0
        while position < len(row):
            step = 1 if row[position] > 0 else 2
            if step == 2 and (position + 1 == len(row) or row[position + 1] > 0):
                return f"linalg.ldl_solve: pivots {row} have a negative number without its pair"
            position += step
    return None


def _equations_have_sides(input: Tensor, b: Tensor, *_: Any, driver: str | None = None, **__: Any) -> str | None:
    if driver == "gelss" and b.numel() == 0:
        return f"linalg.lstsq: driver 'gelss' needs a right-hand side with elements; b has shape {list(b.shape)}"
    return None


def _counts_are_numbers(count: Tensor, prob: Tensor, *_: Any, **__: Any) -> str | None:
    if not bool(torch.isfinite(count).all()) or not bool(torch.isfinite(prob).all()):
        return "binomial: count and prob must be finite numbers"
    return None


def _window_is_bounded(input: Tensor, *sizes: Any, **named: Any) -> str | None:
    for size in (*sizes, *named.values()):
        for number in size if isinstance(size, Sequence) else (size,):
            if isinstance(number, int) and abs(number) > _INT32_MAX:
                return f"the sizes of a pooling window must be below 2^31; got {number}"
    return None


def _window_has_elements(input: Tensor, kernel_size: Any, *_: Any, **__: Any) -> str | None:
    if min(kernel_size if isinstance(kernel_size, Sequence) else (kernel_size,)) < 1:
        return f"fractional_max_pool: kernel_size must be positive; got {kernel_size}"
    return None


def _bags_lie_within(place: int) -> Guard:
    """Guard of an operation on bags, whose argument `include_last_offset` stands there."""

    def check(*args: Any, offsets: Tensor | None = None, **named: Any) -> str | None:
        # Torch has it as (weight, indices) and as (input, weight), and takes the latter in either order.
        two = [*args[:2], *(named[name] for name in ("input", "weight", "indices") if name in named)]
        indices = next(tensor for tensor in two if not tensor.is_floating_point())
        offsets = args[2] if len(args) > 2 else offsets
        if indices.dim() != 1 or offsets is None:
            return None
        count = indices.numel()
        if offsets.numel() == 0:
            return "embedding_bag: offsets must begin with 0 for the first bag; got none" if count else None
        # Torch looks at the first and the last one only; the kernels take all of them for places in the indices, and
        # an index behind the last bag for one of a bag that is not there.
        wide = offsets.to(torch.int64)
        given = wide.tolist() if wide.numel() <= _FEW else f"others among {wide.numel()}"
        if bool(wide.min() < 0) or bool(wide.max() > count) or bool((wide[1:] < wide[:-1]).any()):
            return f"embedding_bag: offsets must not fall, and be places in the {count} indices; got {given}"
        if named.get("include_last_offset", len(args) > place and args[place]) and int(wide[-1]) != count:
            return f"embedding_bag: the last offset must be the end of the {count} indices; got {given}"
        return None

    return check


def _lies_within(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> str | None:
    """For `as_strided_`, which computes the extent in 64 bits, where it wraps."""
    if reason := misfit_of_sizes(size):
        return reason
    if min(*size, *stride, storage_offset or 0, 0) < 0 or len(size) != len(stride):
        return None
    offset = int(input.storage_offset()) if storage_offset is None else storage_offset
    if needed_bytes(size, stride, offset, input.itemsize) <= _INT64_MAX:
        return None
    return misfit(size, stride, offset, input.itemsize, input.untyped_storage().nbytes())


def _sizes_exist(input: Tensor, *sizes: Any, size: Any = None, **_: Any) -> str | None:
    return misfit_of_sizes(size if size is not None else sizes[0] if isinstance(sizes[0], Sequence) else sizes)


def _part_lies_within(input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: Any = None) -> str | None:
    return _view_lies_within(input, size, stride, storage_offset)


def _view_lies_within(input: Tensor, size: Any, stride: Any, storage_offset: Any = None) -> str | None:
    torch.as_strided(input.detach(), size, stride, storage_offset)  # may refuse it, which leaves it to the call
    return _lies_within(input, size, stride, storage_offset)


def _gradient_is_dense(name: str, place: int | None = None) -> Guard:
    """Guard of an operation whose gradient is sparse where the parameter of that name is true."""

    def check(*args: Any, **named: Any) -> str | None:
        is_sparse = named.get(name, place is not None and len(args) > place and args[place])
        if is_sparse and torch.is_grad_enabled() and any(t.requires_grad for t in tensors_in([args, named])):
            return f"{name}=True gives a sparse gradient, which the server does not hold; use {name}=False"
        return None

    return check


def _each(*guards: Guard) -> Guard:
    def check(*args: Any, **named: Any) -> str | None:
        for guard in guards:
            with contextlib.suppress(Exception):
                reason = guard(*args, **named)
                if reason is not None:
                    return reason
        return None

    return check


def _samples_by_a_known_mode(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, *_: Any, **__: Any
) -> str | None:
    # For a mode that torch does not know it returns memory that nobody has written.
    if not 0 <= interpolation_mode <= 2 or not 0 <= padding_mode <= 2:
        return (
            "grid_sampler: interpolation_mode is 0 (bilinear), 1 (nearest) or 2 (bicubic), padding_mode is 0 (zeros), "
            f"1 (border) or 2 (reflection); got {interpolation_mode} and {padding_mode}"
        )
    return None


def _wraps_once(input: Tensor, pad: Sequence[int], mode: str = "constant", *_: Any, **__: Any) -> str | None:
    # Torch compares with the size before it crops, and then repeats elements that nobody has written.
    if mode == "circular":
        for size, before, after in zip(reversed(input.shape), pad[::2], pad[1::2], strict=False):
            if max(before, after) > size + min(before, 0) + min(after, 0):
                return "Padding value causes wrapping around more than once."
    return None


def _recurrent(gates: int) -> Guard:
    """Guard of a whole recurrent network: oneDNN takes the sizes of all from the first weight, unchecked."""

    options = ("has_biases", "num_layers", "dropout", "train", "bidirectional")

    def check(*args: Any, **named: Any) -> str | None:
        # A packed sequence comes as its data and its batch sizes; torch tells the two forms apart by the types, too.
        place = 1 if gates == _LSTM_GATES else 2
        packed = "batch_sizes" in named or ("hx" in named and len(args) > 1)
        packed = packed or (len(args) > place and isinstance(args[place], Tensor))
        names = ("data", "batch_sizes", "hx", "params", *options)
        if not packed:
            names = ("input", "hx", "params", *options, "batch_first")
        call = {**dict(zip(names, args, strict=False)), **named}
        data = call["data" if packed else "input"]
        batch = int(call["batch_sizes"].max()) if packed else data.shape[0 if call["batch_first"] else 1]
        hidden = call["hx"]
        directions = 2 if call["bidirectional"] else 1
        return _misfit_of_recurrent(
            gates,
            data.shape[-1],
            batch,
            list(hidden) if isinstance(hidden, (list, tuple)) else [hidden],
            call["params"],
            bool(call["has_biases"]),
            int(call["num_layers"]) * directions,
            directions,
        )

    return check


def _misfit_of_recurrent(
    gates: int,
    features: int,
    batch: int,
    hidden: list[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    stacks: int,
    directions: int,
) -> str | None:
    size = hidden[-1].shape[-1]  # of the cell; the projected state of an LSTM is smaller
    state = hidden[0].shape[-1]
    per_stack = (4 if has_biases else 2) + (state != size)
    if len(params) != stacks * per_stack:
        return f"a recurrent network of this form has {stacks * per_stack} weights and biases; got {len(params)}"
    for one, width in zip(hidden, (state, size) if len(hidden) == 2 else (state,), strict=True):
        if tuple(one.shape) != (stacks, batch, width):
            return f"Expected hidden size {(stacks, batch, width)}, got {list(one.shape)}"
    for stack in range(stacks):
        inputs = features if stack < directions else state * directions
        expected: list[tuple[int, ...]] = [(gates * size, inputs), (gates * size, state)]
        expected += [(gates * size,)] * 2 if has_biases else []
        expected += [(state, size)] if state != size else []
        given = params[stack * per_stack : (stack + 1) * per_stack]
        for weight, shape in zip(given, expected, strict=True):
            if tuple(weight.shape) != shape:
                return f"a weight of layer {stack // directions} must have shape {shape}, got {list(weight.shape)}"
    return None


def _with_method(name: str) -> tuple[str, ...]:
    return name, f"Tensor.{name}", f"Tensor.{name}_"


GUARDS: dict[str, Guard] = {
    "linalg.eigvals": _eigenvalues_exist,
    "pdist": _distances_have_gradients,
    "nn.functional.pdist": _distances_have_gradients,
    "ctc_loss": _targets_are_classes,
    "nn.functional.ctc_loss": _targets_are_classes,
    **dict.fromkeys((*_with_method("div"), *_with_method("divide")), _quotient_fits),
    **dict.fromkeys((*_with_method("lcm"), "lcm_"), _multiple_exists),
    **dict.fromkeys(("matrix_power", "Tensor.matrix_power", "linalg.matrix_power"), _power_has_an_opposite),
    **{
        f"special.{name}": _degree_is_bounded
        for name in (
            *(f"{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"),
            "hermite_polynomial_h",
            "hermite_polynomial_he",
            "laguerre_polynomial_l",
            "legendre_polynomial_p",
        )
    },
    "lu_unpack": _pivots_fit,
    "linalg.ldl_solve": _interchanges_exist,
    "linalg.lstsq": _equations_have_sides,
    "binomial": _counts_are_numbers,
    **dict.fromkeys(("max_pool1d", "max_pool1d_with_indices"), _window_is_bounded),
    **{
        f"nn.functional.{kind}_pool{dims}d{suffix}": _window_is_bounded
        for dims in (1, 2, 3)
        for kind, suffix in (("max", ""), ("max", "_with_indices"), ("lp", ""), ("avg", ""))
    },
    "Tensor.resize_": _sizes_exist,
    "as_strided_copy": _view_lies_within,
    **dict.fromkeys(("as_strided_scatter", "Tensor.as_strided_scatter"), _part_lies_within),
    **dict.fromkeys(("as_strided_", "Tensor.as_strided_"), _lies_within),
    "embedding": _gradient_is_dense("sparse", 4),
    "nn.functional.embedding": _gradient_is_dense("sparse", 6),
    "embedding_bag": _each(_bags_lie_within(7), _gradient_is_dense("sparse", 5)),
    "nn.functional.embedding_bag": _each(_bags_lie_within(9), _gradient_is_dense("sparse", 7)),
    **dict.fromkeys(("gather", "Tensor.gather"), _gradient_is_dense("sparse_grad")),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), _samples_by_a_known_mode),
    "nn.functional.pad": _wraps_once,
    **{
        f"nn.functional.fractional_max_pool{dims}d{suffix}": _window_has_elements
        for dims in (2, 3)
        for suffix in ("", "_with_indices")
    },
    "lstm": _recurrent(_LSTM_GATES),
    "gru": _recurrent(3),
    "rnn_tanh": _recurrent(1),
    "rnn_relu": _recurrent(1),
}
