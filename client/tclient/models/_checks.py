"""A program that was made of recordings, tried against the network itself before it is served.

Knows how a session runs programs; does not know how they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tclient._codec.dtypes import dtype
from tclient._codec.operations import Operation
from tclient._issue import call_builtin, dispatch
from tclient._recording import ProgramMessage
from tclient._tensor import Tensor
from tclient.models._inputs import Dimension, Sizes, TensorInfo
from tclient.models._network import is_refusal, not_servable
from tclient.models._recorder import Output, Sample, record
from tclient.models._template import Template, sizes_text
from tclient.models._trials import Trials
from tclient.testing import assert_close

# Rows that are run together differ from those alone by rounding, and by no more than this of the largest number.
_ROUNDING = {"float64": 1e-8, "complex128": 1e-8, "float16": 3e-2, "bfloat16": 1e-1}
_OTHER_ROUNDING = 1e-3
_ROWS = 3


@dataclass(frozen=True)
class Programmed:
    """A network as calls for all sizes."""

    template: Template
    outputs: list[TensorInfo]
    is_batched: bool
    sizes: Sizes


class _Kept:
    """The program, kept in the session."""

    def __init__(self, template: Template, count: int) -> None:
        self._template = template
        self._program = call_builtin("tc.program", ProgramMessage(template.program))
        self._run = Operation({"name": "tc.run", "returns": "tensor" if count == 1 else {"count": count}})

    def run(self, inputs: Sequence[Tensor], sizes: Sizes) -> list[Tensor]:
        """The outputs. Raises: what its calls raise."""
        numbers = [formula.at(sizes) for formula in self._template.formulas]
        made: Any = dispatch(self._run, (self._program, *inputs, *self._template.weights, *numbers), None)
        outputs = [made] if isinstance(made, Tensor) else list(made)
        for output in outputs:
            output._meta()
        return outputs


def verified(trials: Trials, samples: list[Sample], template: Template, sizes: Sequence[Sizes]) -> Programmed:
    """What is to be served. Raises: an error of `not_servable` where program and network differ at some sizes."""
    kept = _Kept(template, len(samples[0].outputs))
    for at in sizes:
        sample, inputs = _run_anew(trials, at)
        if sample is not None:
            _compare(trials, kept, sample, inputs)
            samples.append(sample)
    outputs = _described(trials, samples)
    base = samples[0].sizes
    # The batch is the first dimension of all, and only that.
    shapes = [*(each.shape for each in outputs), *(spec.shape for spec in trials.specs)]
    is_batched = trials.rows is not None and all(
        shape[:1] == (trials.rows,) and trials.rows not in shape[1:] for shape in shapes
    )
    return Programmed(template, outputs, is_batched and _has_independent_rows(trials, kept, base), base)


def _run_anew(trials: Trials, sizes: Sizes) -> tuple[Sample | None, list[Tensor]]:
    """The network at these sizes, on other inputs; None where it does not run."""
    for fresh in (True, False):
        inputs = trials.draw(sizes, fresh=fresh)
        try:
            return record(trials.network, trials.session, sizes, inputs, trials.keywords), inputs
        except Exception as error:
            if is_refusal(error):
                raise
    return None, []


def _compare(trials: Trials, kept: _Kept, sample: Sample, inputs: Sequence[Tensor]) -> None:
    where = f" at {sizes_text(sample.sizes)}" if sample.sizes else ""
    label = f"{trials.network.label} cannot be served: what was recorded of it"
    try:
        outputs = kept.run(inputs, sample.sizes)
    except Exception as error:
        raise not_servable(f"{label} does not run{where}: {error}") from error
    for output, expected in zip(outputs, sample.outputs, strict=True):
        try:
            assert_close(output, expected.tensor, equal_nan=True)
        except AssertionError as error:
            raise not_servable(
                f"{label} gives another {expected.name} than the network itself{where}. {error}"
            ) from None


def _described(trials: Trials, samples: Sequence[Sample]) -> list[TensorInfo]:
    """The outputs, as far as they are alike at all sizes. Raises: an error of `not_servable`."""
    found = []
    for seen in zip(*(sample.outputs for sample in samples), strict=True):
        if len({(each.name, each.dtype, len(each.shape)) for each in seen}) > 1:
            one, other = _two_of(seen, samples)
            raise not_servable(
                f"{trials.network.label} cannot be served with dimensions that vary: {one}, but {other}. Where "
                "squeeze() takes away a dimension of 1, squeeze(dim) takes away the same one always"
            )
        shape = tuple(
            _dimension(trials, samples, [each.shape[axis] for each in seen]) for axis in range(len(seen[0].shape))
        )
        found.append(TensorInfo(seen[0].name, seen[0].dtype, shape))
    return found


def _two_of(seen: Sequence[Output], samples: Sequence[Sample]) -> tuple[str, str]:
    """Two outputs that are not alike, in words."""
    first = seen[0]
    other = next(
        position
        for position, each in enumerate(seen)
        if (each.name, each.dtype, len(each.shape)) != (first.name, first.dtype, len(first.shape))
    )
    texts = [
        f"{output.name} is {output.dtype} of shape {output.shape} at {sizes_text(sample.sizes)}"
        for output, sample in ((first, samples[0]), (seen[other], samples[other]))
    ]
    return texts[0], texts[1]


def _dimension(trials: Trials, samples: Sequence[Sample], seen: Sequence[int]) -> Dimension:
    if len(set(seen)) == 1:
        return seen[0]
    for name in trials.names:
        if all(sample.sizes[name] == size for sample, size in zip(samples, seen, strict=True)):
            return name
    return None


def _has_independent_rows(trials: Trials, kept: _Kept, base: Sizes) -> bool:
    """Whether rows that are run together give what each gives alone."""
    assert trials.rows is not None
    sizes = {**base, trials.rows: _ROWS}
    sample, inputs = _run_anew(trials, sizes)
    if sample is None:
        return False
    together = kept.run(inputs, sizes)
    try:
        alone = [kept.run([each[row : row + 1] for each in inputs], {**sizes, trials.rows: 1}) for row in range(_ROWS)]
    except Exception:
        return False
    return all(
        len(whole) == _ROWS and _is_close(whole, [row[position] for row in alone])
        for position, whole in enumerate(together)
    )


def _is_close(whole: Tensor, rows: Sequence[Tensor]) -> bool:
    kind = whole.dtype
    wanted = _numbers(whole, kind)
    if any(tuple(row.shape) != (1, *whole.shape[1:]) for row in rows):
        return False
    found = np.concatenate([_numbers(row, kind) for row in rows])
    if not (kind.is_floating_point or kind.is_complex):
        return np.array_equal(found, wanted)
    finite = np.abs(wanted[np.isfinite(wanted)])
    allowed = _ROUNDING.get(kind._name, _OTHER_ROUNDING)
    most = float(finite.max()) if finite.size else 0.0
    return np.allclose(found, wanted, rtol=allowed, atol=allowed * most, equal_nan=True)


def _numbers(tensor: Tensor, kind: dtype) -> np.ndarray[Any, Any]:
    """The elements as numpy has them."""
    found: np.ndarray[Any, Any] = (tensor if kind.numpy is not None else tensor.float()).numpy()
    return found
