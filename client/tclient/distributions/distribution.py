"""The base of all distributions: shapes, validation, and the methods that each of them may have.

Knows how arguments are looked at, with one wait for all of them; knows no distribution.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import tclient
from tclient._exceptions import TensorError
from tclient.distributions import constraints
from tclient.distributions._core import Size, Tensor, lazy_property, verify

__all__ = ["Distribution", "ExponentialFamily"]


class Distribution:
    """A distribution over tensors: `batch_shape` of them side by side, each over values of `event_shape`.

    Raises: ValueError when arguments do not satisfy their constraints, unless it is told not to look.
    """

    has_rsample: Any = False
    has_enumerate_support: Any = False
    _validate_args: bool = __debug__
    # The parameters, and how many of their dimensions belong to the event.
    _parameters: ClassVar[dict[str, int]]
    # What `expand` hands on as it is.
    _kept: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions look at their arguments when they are not told. Raises: ValueError for no bool."""
        if value not in [True, False]:
            raise ValueError
        Distribution._validate_args = value

    def __init__(
        self,
        batch_shape: Any = Size(),
        event_shape: Any = Size(),
        validate_args: bool | None = None,
    ) -> None:
        # A function gives the shape later: it may not be here yet, and will be after the one wait of the checks.
        self._batch_shape_of: Any = batch_shape
        self._event_shape = event_shape
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            verify(self._checks())
        super().__init__()

    @property
    def _batch_shape(self) -> Size:
        found = self._batch_shape_of
        if callable(found):
            found = self._batch_shape_of = found()
        return found  # type: ignore[no-any-return]

    @_batch_shape.setter
    def _batch_shape(self, value: Any) -> None:
        self._batch_shape_of = value

    def _checks(self) -> list[tuple[Any, Callable[[], Exception]]]:
        try:
            arg_constraints = self.arg_constraints
        except NotImplementedError:
            arg_constraints = {}
            warnings.warn(
                f"{self.__class__} does not define `arg_constraints`. "
                "Please set `arg_constraints = {}` or initialize the distribution "
                "with `validate_args=False` to turn off validation.",
                stacklevel=3,
            )
        found = []
        for name, constraint in arg_constraints.items():
            if constraints.is_dependent(constraint):
                continue
            if name not in self.__dict__ and isinstance(getattr(type(self), name), lazy_property):
                continue
            value = getattr(self, name)
            found.append((constraint._holds(value), self._refusal(name, constraint, value)))
        return found

    def _refusal(self, name: str, constraint: Any, value: Any) -> Callable[[], Exception]:
        # What is made of the parameters from here on is no part of the text.
        names = self._shown_names()
        return lambda: ValueError(
            f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)}) of distribution "
            f"{self._text(names)} to satisfy the constraint {constraint!r}, but found invalid values:\n{value}"
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape; its parameters are views."""
        new = self._get_checked_instance(self._owner(), _instance)
        batch_shape = Size(batch_shape)
        self._expand_parameters(new, batch_shape)
        Distribution.__init__(new, batch_shape, self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _owner(self) -> Any:
        """The class whose beginning takes these parameters. Raises: NotImplementedError where no class says so."""
        owner = next((kind for kind in type(self).__mro__ if "_parameters" in vars(kind)), None)
        if owner is None:
            raise NotImplementedError
        return owner

    def _expand_parameters(self, new: Any, batch_shape: Size) -> None:
        for name, event_dims in self._parameters.items():
            value = self.__dict__.get(name)
            if value is not None:
                tail = tuple(value.shape)[value.dim() - event_dims :]
                new.__dict__[name] = value.expand((*batch_shape, *tail))
        for name in self._kept:
            new.__dict__[name] = self.__dict__[name]

    @property
    def batch_shape(self) -> Size:
        """The shape of the distributions that stand side by side."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one value."""
        return self._event_shape  # type: ignore[no-any-return]

    @property
    def arg_constraints(self) -> dict[str, Any]:
        """The constraint of each parameter."""
        raise NotImplementedError

    @property
    def support(self) -> Any:
        """The constraint of the values."""
        raise NotImplementedError

    @property
    def mean(self) -> Any:
        """The mean."""
        raise NotImplementedError

    @property
    def mode(self) -> Any:
        """The most probable value."""
        raise NotImplementedError(f"{self.__class__} does not implement mode")

    @property
    def variance(self) -> Any:
        """The variance."""
        raise NotImplementedError

    @property
    def stddev(self) -> Any:
        """The standard deviation."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn; of the shape sample_shape + batch_shape + event_shape. No gradient is recorded."""
        with tclient.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn so that they have a gradient with respect to the parameters."""
        raise NotImplementedError

    def sample_n(self, n: int) -> Any:
        """n values, or batches of values."""
        warnings.warn("sample_n will be deprecated. Use .sample((n,)) instead", UserWarning, stacklevel=2)
        return self.sample(Size((n,)))

    def log_prob(self, value: Any) -> Any:
        """The log of the density, or of the probability, at a value."""
        raise NotImplementedError

    def cdf(self, value: Any) -> Any:
        """How probable a value up to this one is."""
        raise NotImplementedError

    def icdf(self, value: Any) -> Any:
        """The value up to which there is that probability."""
        raise NotImplementedError

    def enumerate_support(self, expand: bool = True) -> Any:
        """All values, along the first dimension."""
        raise NotImplementedError

    def entropy(self) -> Any:
        """The entropy, in nats."""
        raise NotImplementedError

    def perplexity(self) -> Any:
        """The exponential of the entropy."""
        return tclient.exp(self.entropy())

    def _extended_shape(self, sample_shape: Any = Size()) -> Size:
        if not isinstance(sample_shape, Size):
            sample_shape = Size(sample_shape)
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _spread(self, parameter: Any, sample_shape: Any) -> Any:
        """A parameter of the batch's shape, for each value that is to be drawn; waits for no shape without need."""
        sample_shape = Size(sample_shape)
        return parameter.expand(self._extended_shape(sample_shape)) if sample_shape else parameter

    def _validate_sample(self, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        try:
            support = self.support
        except NotImplementedError:
            self._validate_shape(value)
            warnings.warn(
                f"{self.__class__} does not define `support` to enable "
                "sample validation. Please initialize the distribution with "
                "`validate_args=False` to turn off validation.",
                stacklevel=3,
            )
            return

        def refusal() -> Exception:
            self._validate_shape(value)
            return ValueError(
                f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) to be within the "
                f"support ({support!r}) of the distribution {self!r}, but found invalid values:\n{value}"
            )

        # The shapes are known when the check is answered, and are looked at then: one wait.
        try:
            verify([(support._holds(value), refusal)])
        except (TensorError, ValueError, RuntimeError):
            self._validate_shape(value)
            raise
        self._validate_shape(value)

    def _validate_shape(self, value: Any) -> None:
        actual, event = value.size(), self._event_shape
        if tuple(actual)[len(actual) - len(event) :] != tuple(event):
            raise ValueError(f"The right-most size of value must match event_shape: {actual} vs {event}.")
        expected = Size((*self._batch_shape, *event))
        for one, other in zip(reversed(actual), reversed(expected), strict=False):
            if one not in (1, other) and other != 1:
                raise ValueError(f"Value is not broadcastable with batch_shape+event_shape: {actual} vs {expected}.")

    def _get_checked_instance(self, cls: Any, _instance: Any = None) -> Any:
        if _instance is None and type(self).__init__ != cls.__init__:
            raise NotImplementedError(
                f"Subclass {self.__class__.__name__} of {cls.__name__} that defines a custom __init__ method must "
                "also define a custom .expand() method."
            )
        return self.__new__(type(self)) if _instance is None else _instance

    def _shown_names(self) -> list[str]:
        return [name for name in self.arg_constraints if name in self.__dict__]

    def _text(self, names: list[str]) -> str:
        values = ((name, self.__dict__[name]) for name in names)
        shown = [f"{name}: {value if value.numel() == 1 else value.size()}" for name, value in values]
        return f"{self.__class__.__name__}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self._text(self._shown_names())


class ExponentialFamily(Distribution):
    """A distribution whose density is an exponential of natural parameters times statistics of the value."""

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def _log_normalizer(self, *natural_params: Any) -> Any:
        raise NotImplementedError

    @property
    def _mean_carrier_measure(self) -> Any:
        raise NotImplementedError

    def entropy(self) -> Any:
        """The entropy, by the derivative of the log normalizer with respect to the natural parameters."""
        result: Any = -self._mean_carrier_measure
        params = [each.detach().requires_grad_() for each in self._natural_params]
        normalizer = self._log_normalizer(*params)
        gradients = tclient.autograd.grad(normalizer.sum(), params, create_graph=True)
        result = result + normalizer
        for param, gradient in zip(params, gradients, strict=True):
            product = param * gradient
            result = result - product.reshape((*self._batch_shape, -1)).sum(-1)
        return result
