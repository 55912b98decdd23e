"""Sets that parameters and values of distributions lie in.

A constraint looks at tensors where they are: `check` gives a tensor of bools, one for each event, and does not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tclient
from tclient._tensor import Tensor

__all__ = [
    "Constraint",
    "MixtureSameFamilyConstraint",
    "boolean",
    "cat",
    "corr_cholesky",
    "dependent",
    "dependent_property",
    "greater_than",
    "greater_than_eq",
    "half_open_interval",
    "independent",
    "integer_interval",
    "interval",
    "is_dependent",
    "less_than",
    "lower_cholesky",
    "lower_triangular",
    "multinomial",
    "nonnegative",
    "nonnegative_integer",
    "one_hot",
    "positive",
    "positive_definite",
    "positive_integer",
    "positive_semidefinite",
    "real",
    "real_vector",
    "simplex",
    "square",
    "stack",
    "symmetric",
    "unit_interval",
]


class Constraint:
    """A set of values. `event_dim` dimensions on the right make one value; `is_discrete` sets are countable."""

    is_discrete: Any = False
    event_dim: Any = 0

    def check(self, value: Any) -> Any:
        """Whether each event of the tensor lies in the set; a tensor of bools."""
        raise NotImplementedError

    def _holds(self, value: Any) -> Any:
        """As check, for a value of enough dimensions: they are not looked at, which could wait for them."""
        return self.check(value)

    def __repr__(self) -> str:
        return type(self).__name__[1:] + "()"


class _Dependent(Constraint):
    """A set that depends on other values: on the parameters of the distribution, say."""

    def __init__(self, *, is_discrete: Any = NotImplemented, event_dim: Any = NotImplemented) -> None:
        self._is_discrete = is_discrete
        self._event_dim = event_dim
        super().__init__()

    @property
    def is_discrete(self) -> bool:
        """Whether the set is countable. Raises: NotImplementedError where that depends, too."""
        if self._is_discrete is NotImplemented:
            raise NotImplementedError(".is_discrete cannot be determined statically")
        return bool(self._is_discrete)

    @property
    def event_dim(self) -> int:
        """How many dimensions make one value. Raises: NotImplementedError where that depends, too."""
        if self._event_dim is NotImplemented:
            raise NotImplementedError(".event_dim cannot be determined statically")
        return int(self._event_dim)

    def __call__(self, *, is_discrete: Any = NotImplemented, event_dim: Any = NotImplemented) -> _Dependent:
        """The same, with more said about it."""
        if is_discrete is NotImplemented:
            is_discrete = self._is_discrete
        if event_dim is NotImplemented:
            event_dim = self._event_dim
        return _Dependent(is_discrete=is_discrete, event_dim=event_dim)

    def check(self, x: Any) -> Any:
        """Cannot be told."""
        raise ValueError("Cannot determine validity of dependent constraint")


def is_dependent(constraint: Any) -> bool:
    """Whether a constraint depends on other values."""
    return isinstance(constraint, _Dependent)


class _DependentProperty(property, _Dependent):
    """A property that gives the constraint of an object; of the class it is a dependent constraint."""

    def __init__(
        self,
        fn: Callable[[Any], Any] | None = None,
        *,
        is_discrete: Any = NotImplemented,
        event_dim: Any = NotImplemented,
    ) -> None:
        super().__init__(fn)
        self._is_discrete = is_discrete
        self._event_dim = event_dim

    def __call__(self, fn: Callable[[Any], Any]) -> _DependentProperty:  # type: ignore[override]
        """Decorates the function that gives the constraint."""
        return _DependentProperty(fn, is_discrete=self._is_discrete, event_dim=self._event_dim)


class _IndependentConstraint(Constraint):
    """Of events that are blocks of a base constraint's; all of a block must lie in the set."""

    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: int) -> None:
        if not isinstance(base_constraint, Constraint):
            raise AssertionError(f"Expected base_constraint to be a Constraint, but got {type(base_constraint)}")
        if not isinstance(reinterpreted_batch_ndims, int):
            raise AssertionError(
                f"Expected reinterpreted_batch_ndims to be an int, but got {type(reinterpreted_batch_ndims)}"
            )
        if reinterpreted_batch_ndims < 0:
            raise AssertionError(
                f"Expected reinterpreted_batch_ndims to be non-negative, but got {reinterpreted_batch_ndims}"
            )
        self.base_constraint = base_constraint
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        super().__init__()

    @property
    def is_discrete(self) -> bool:
        """As of the base."""
        return bool(self.base_constraint.is_discrete)

    @property
    def event_dim(self) -> int:
        """The base's and those of the block."""
        return int(self.base_constraint.event_dim) + self.reinterpreted_batch_ndims

    def check(self, value: Any) -> Any:
        """Whether all of each block lies in the set."""
        if value.dim() < self.event_dim:
            raise ValueError(f"Expected value.dim() >= {self.event_dim} but got {value.dim()}")
        return self._holds(value)

    def _holds(self, value: Any) -> Any:
        return _all_of_last(self.base_constraint._holds(value), self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"{type(self).__name__[1:]}({self.base_constraint!r}, {self.reinterpreted_batch_ndims})"


def _all_of_last(result: Any, ndims: int) -> Any:
    if ndims == 0:
        return result
    if ndims == 1:
        return result.all(-1)
    return result.flatten(-ndims).all(-1)


class MixtureSameFamilyConstraint(Constraint):
    """Of the values of a mixture: the set of the components, which stand in one more dimension."""

    def __init__(self, base_constraint: Constraint) -> None:
        if not isinstance(base_constraint, Constraint):
            raise AssertionError(f"Expected base_constraint to be a Constraint, but got {type(base_constraint)}")
        self.base_constraint = base_constraint
        super().__init__()

    @property
    def is_discrete(self) -> bool:
        """As of the base."""
        return bool(self.base_constraint.is_discrete)

    @property
    def event_dim(self) -> int:
        """As of the base."""
        return int(self.base_constraint.event_dim)

    def check(self, value: Any) -> Any:
        """Whether each value lies in the sets of all components."""
        result = self.base_constraint.check(value.unsqueeze(-1 - self.event_dim))
        if value.dim() < self.event_dim:
            raise ValueError(f"Expected value.dim() >= {self.event_dim} but got {value.dim()}")
        return _all_of_last(result, result.dim() - (value.dim() - self.event_dim))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_constraint!r})"


class _Boolean(Constraint):
    """0 and 1."""

    is_discrete = True

    def check(self, value: Any) -> Any:
        """Whether each is 0 or 1."""
        return (value == 0) | (value == 1)


class _OneHot(Constraint):
    """Vectors of one 1, else 0."""

    is_discrete = True
    event_dim = 1

    def check(self, value: Any) -> Any:
        """Whether each vector has one 1, and else 0."""
        is_boolean = (value == 0) | (value == 1)
        return is_boolean.all(-1) & value.sum(-1).eq(1)


class _Bounded(Constraint):
    """With bounds that its text names."""

    _bounds: tuple[str, ...] = ()

    def __repr__(self) -> str:
        bounds = ", ".join(f"{name}={getattr(self, name)}" for name in self._bounds)
        return f"{type(self).__name__[1:]}({bounds})"


class _WithLower(_Bounded):
    _bounds = ("lower_bound",)

    def __init__(self, lower_bound: Any) -> None:
        self.lower_bound = lower_bound
        super().__init__()


class _WithBoth(_Bounded):
    _bounds = ("lower_bound", "upper_bound")

    def __init__(self, lower_bound: Any, upper_bound: Any) -> None:
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound
        super().__init__()


class _IntegerInterval(_WithBoth):
    """Whole numbers between bounds, which belong to it."""

    is_discrete = True

    def check(self, value: Any) -> Any:
        """Whether each is whole and between the bounds."""
        return (value % 1 == 0) & (self.lower_bound <= value) & (value <= self.upper_bound)


class _IntegerLessThan(_Bounded):
    """Whole numbers up to a bound."""

    is_discrete = True
    _bounds = ("upper_bound",)

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound
        super().__init__()

    def check(self, value: Any) -> Any:
        """Whether each is whole and not above the bound."""
        return (value % 1 == 0) & (value <= self.upper_bound)


class _IntegerGreaterThan(_WithLower):
    """Whole numbers from a bound on."""

    is_discrete = True

    def check(self, value: Any) -> Any:
        """Whether each is whole and not below the bound."""
        return (value % 1 == 0) & (value >= self.lower_bound)


class _Real(Constraint):
    """All numbers but nan."""

    def check(self, value: Any) -> Any:
        """Whether each is a number."""
        return value == value  # noqa: PLR0124


class _GreaterThan(_WithLower):
    """Above a bound."""

    def check(self, value: Any) -> Any:
        """Whether each is above the bound."""
        return self.lower_bound < value


class _GreaterThanEq(_WithLower):
    """Not below a bound."""

    def check(self, value: Any) -> Any:
        """Whether each is at or above the bound."""
        return self.lower_bound <= value


class _LessThan(_Bounded):
    """Below a bound."""

    _bounds = ("upper_bound",)

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound
        super().__init__()

    def check(self, value: Any) -> Any:
        """Whether each is below the bound."""
        return value < self.upper_bound


class _Interval(_WithBoth):
    """Between bounds, which belong to it."""

    def check(self, value: Any) -> Any:
        """Whether each is between the bounds."""
        return (self.lower_bound <= value) & (value <= self.upper_bound)


class _HalfOpenInterval(_WithBoth):
    """Between bounds, the lower of which belongs to it."""

    def check(self, value: Any) -> Any:
        """Whether each is between the bounds, and not the upper one."""
        return (self.lower_bound <= value) & (value < self.upper_bound)


class _Simplex(Constraint):
    """Vectors of numbers from 0 that sum up to 1, by a millionth."""

    event_dim = 1

    def check(self, value: Any) -> Any:
        """Whether each vector is one of probabilities."""
        return (value >= 0).all(dim=-1) & ((value.sum(-1) - 1).abs() < 1e-6)


class _Multinomial(Constraint):
    """Vectors of counts that sum up to a bound."""

    is_discrete = True
    event_dim = 1

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound

    def check(self, x: Any) -> Any:
        """Whether each vector is one of counts with that sum."""
        return (x >= 0).all(dim=-1) & (x.sum(dim=-1) <= self.upper_bound)


class _LowerTriangular(Constraint):
    """Matrices with zeros above the diagonal."""

    event_dim = 2

    def check(self, value: Any) -> Any:
        """Whether each matrix is lower triangular."""
        return (value.tril() == value).flatten(-2).all(-1)


class _LowerCholesky(Constraint):
    """Lower triangular matrices with a positive diagonal."""

    event_dim = 2

    def check(self, value: Any) -> Any:
        """Whether each matrix is such a factor."""
        lower = (value.tril() == value).flatten(-2).all(-1)
        return lower & (value.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


class _CorrCholesky(Constraint):
    """Lower triangular matrices with a positive diagonal and rows of length 1."""

    event_dim = 2

    def check(self, value: Any) -> Any:
        """Whether each matrix is the factor of a correlation matrix."""
        # Ten roundings for each number of a row are let pass.
        tolerance = tclient.finfo(value.dtype).eps * value.size(-1) * 10
        lengths = tclient.linalg.norm(value.detach(), dim=-1)
        return _LowerCholesky().check(value) & (lengths - 1).abs().le(tolerance).all(dim=-1)


class _Square(Constraint):
    """Matrices of as many rows as columns."""

    event_dim = 2

    def check(self, value: Any) -> Any:
        """Whether each matrix is square."""
        return tclient.full(
            size=value.shape[:-2],
            fill_value=value.shape[-2] == value.shape[-1],
            dtype=tclient.bool,
            device=value.device,
        )


class _Symmetric(_Square):
    """Square matrices that are, by a millionth, what they are transposed."""

    def check(self, value: Any) -> Any:
        """Whether each matrix is symmetric."""
        square = super().check(value)
        if value.shape[-2] != value.shape[-1]:
            return square
        return tclient.isclose(value, value.mT, atol=1e-6).all(-2).all(-1)


class _PositiveSemidefinite(_Symmetric):
    """Symmetric matrices without negative eigenvalues."""

    def check(self, value: Any) -> Any:
        """Whether each matrix is positive semidefinite."""
        return super().check(value) & tclient.linalg.eigvalsh(value).ge(0).all(-1)


class _PositiveDefinite(_Symmetric):
    """Symmetric matrices with positive eigenvalues only."""

    def check(self, value: Any) -> Any:
        """Whether each matrix is positive definite."""
        return super().check(value) & tclient.linalg.cholesky_ex(value).info.eq(0)


class _Several(Constraint):
    """Of parts of a tensor, each with a constraint of its own."""

    def __init__(self, cseq: Sequence[Constraint], dim: int) -> None:
        if not all(isinstance(each, Constraint) for each in cseq):
            raise AssertionError("Expected all elements of cseq to be Constraint instances")
        self.cseq = list(cseq)
        self.dim = dim
        super().__init__()

    @property
    def is_discrete(self) -> bool:
        """Whether any of them is."""
        return any(each.is_discrete for each in self.cseq)


class _Cat(_Several):
    """Of parts that are joined along a dimension."""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0, lengths: Sequence[int] | None = None) -> None:
        super().__init__(cseq, dim)
        if lengths is None:
            lengths = [1] * len(self.cseq)
        self.lengths = list(lengths)
        if len(self.lengths) != len(self.cseq):
            raise AssertionError(f"Expected lengths ({len(self.lengths)}) to match cseq ({len(self.cseq)})")

    @property
    def event_dim(self) -> int:
        """The most of them."""
        return max(int(each.event_dim) for each in self.cseq)

    def check(self, value: Any) -> Any:
        """Whether each part lies in its set."""
        if not -value.dim() <= self.dim < value.dim():
            raise AssertionError(f"Expected -value.dim() <= dim < value.dim(), but got dim={self.dim}")
        checks = []
        start = 0
        for constraint, length in zip(self.cseq, self.lengths, strict=True):
            checks.append(constraint.check(value.narrow(self.dim, start, length)))
            start = start + length
        return tclient.cat(checks, self.dim)


class _Stack(_Several):
    """Of parts that are stacked along a dimension."""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0) -> None:
        super().__init__(cseq, dim)

    @property
    def event_dim(self) -> int:
        """The most of them, and one more where the parts are within an event."""
        most = max(int(each.event_dim) for each in self.cseq)
        return most + 1 if self.dim + most < 0 else most

    def check(self, value: Any) -> Any:
        """Whether each part lies in its set."""
        if not -value.dim() <= self.dim < value.dim():
            raise AssertionError(f"Expected -value.dim() <= dim < value.dim(), but got dim={self.dim}")
        parts: list[Tensor] = [value.select(self.dim, index) for index in range(value.size(self.dim))]
        checks = [constraint.check(part) for part, constraint in zip(parts, self.cseq, strict=True)]
        return tclient.stack(checks, self.dim)


dependent = _Dependent()
dependent_property = _DependentProperty
independent = _IndependentConstraint
boolean = _Boolean()
one_hot = _OneHot()
nonnegative_integer = _IntegerGreaterThan(0)
positive_integer = _IntegerGreaterThan(1)
integer_interval = _IntegerInterval
real = _Real()
real_vector = independent(real, 1)
positive = _GreaterThan(0.0)
nonnegative = _GreaterThanEq(0.0)
greater_than = _GreaterThan
greater_than_eq = _GreaterThanEq
less_than = _LessThan
multinomial = _Multinomial
unit_interval = _Interval(0.0, 1.0)
interval = _Interval
half_open_interval = _HalfOpenInterval
simplex = _Simplex()
lower_triangular = _LowerTriangular()
lower_cholesky = _LowerCholesky()
corr_cholesky = _CorrCholesky()
square = _Square()
symmetric = _Symmetric()
positive_semidefinite = _PositiveSemidefinite()
positive_definite = _PositiveDefinite()
cat = _Cat
stack = _Stack
