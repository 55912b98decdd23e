"""The von Mises distribution over angles, drawn as by Best and Fisher (1979)."""

from __future__ import annotations

import math
from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import Size, broadcast_all, lazy_property
from tclient.distributions.distribution import Distribution

# Polynomials for the modified Bessel functions of orders 0 and 1: Abramowitz and Stegun (1964), 9.8.1 to 9.8.4.
_SMALL = (
    (1.0, 3.5156229, 3.0899424, 1.2067492, 0.2659732, 0.360768e-1, 0.45813e-2),
    (0.5, 0.87890594, 0.51498869, 0.15084934, 0.2658733e-1, 0.301532e-2, 0.32411e-3),
)
_LARGE = (
    (
        *(0.39894228, 0.1328592e-1, 0.225319e-2, -0.157565e-2, 0.916281e-2),
        *(-0.2057706e-1, 0.2635537e-1, -0.1647633e-1, 0.392377e-2),
    ),
    (
        *(0.39894228, -0.3988024e-1, -0.362018e-2, 0.163801e-2, -0.1031555e-1),
        *(0.2282967e-1, -0.2895312e-1, 0.1787654e-1, -0.420059e-2),
    ),
)


def _polynomial(y: Any, coefficients: tuple[float, ...]) -> Any:
    *rest, result = coefficients
    value: Any = result
    for coefficient in reversed(rest):
        value = coefficient + y * value
    return value


def _log_bessel(x: Any, order: int) -> Any:
    """The log of the modified Bessel function of an order, 0 or 1, for positive x."""
    share = x / 3.75
    small = _polynomial(share * share, _SMALL[order])
    if order == 1:
        small = x.abs() * small
    large = x - 0.5 * x.log() + _polynomial(3.75 / x, _LARGE[order]).log()
    return tclient.where(x < 3.75, small.log(), large)


class VonMises(Distribution):
    """Angles around loc: what a normal distribution is on a line. Values are from -π to π."""

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.size, Size(), validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        validate_args = self.__dict__.get("_validate_args")
        shape = Size(batch_shape)
        return type(self)(self.loc.expand(shape), self.concentration.expand(shape), validate_args=validate_args)

    # It is drawn in double precision: the proposal is far off in single precision.
    @lazy_property
    def _loc(self) -> Any:
        return self.loc.to(tclient.double)

    @lazy_property
    def _concentration(self) -> Any:
        return self.concentration.to(tclient.double)

    @lazy_property
    def _proposal_r(self) -> Any:
        kappa = self._concentration
        tau = 1 + (1 + 4 * kappa**2).sqrt()
        rho = (tau - (2 * tau).sqrt()) / (2 * kappa)
        return tclient.where(kappa < 1e-5, 1 / kappa + kappa, (1 + rho**2) / (2 * rho))

    @property
    def mean(self) -> Any:
        """loc."""
        return self.loc

    @property
    def mode(self) -> Any:
        """loc."""
        return self.loc

    @lazy_property
    def variance(self) -> Any:
        """The circular variance."""
        return 1 - (_log_bessel(self.concentration, 1) - _log_bessel(self.concentration, 0)).exp()

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Angles, drawn until each is accepted."""
        shape = self._extended_shape(sample_shape)
        concentration, r = self._concentration, self._proposal_r
        with tclient.no_grad():
            x = self._loc.new_empty(shape)
            done = tclient.zeros(shape, dtype=tclient.bool, device=self.loc.device)
            while not done.all():
                u1, u2, u3 = tclient.rand((3, *shape), dtype=x.dtype, device=x.device).unbind()
                z = tclient.cos(math.pi * u1)
                f = (1 + r * z) / (r + z)
                c = concentration * (r - f)
                accepted = ((c * (2 - c) - u2) > 0) | ((c / u2).log() + 1 - c >= 0)
                x = tclient.where(accepted, (u3 - 0.5).sign() * f.acos(), x)
                done = done | accepted
            return ((x + math.pi + self._loc) % (2 * math.pi) - math.pi).to(self.loc.dtype)

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        if self._validate_args:
            self._validate_sample(value)
        cosine = self.concentration * tclient.cos(value - self.loc)
        return cosine - math.log(2 * math.pi) - _log_bessel(self.concentration, 0)


__all__ = ["VonMises"]
