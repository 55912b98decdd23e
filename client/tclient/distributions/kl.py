"""Kullback–Leibler divergences: a table of pairs of classes, and how one is found. `kl_divergence` and `register_kl`.

The closed forms are in _kl_same and _kl_pairs. Knows no distribution; draws nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from tclient.distributions.distribution import Distribution

Divergence = Callable[[Any, Any], Any]
_REGISTRY: dict[tuple[type[Any], type[Any]], Divergence] = {}
_FOUND: dict[tuple[type[Any], type[Any]], Divergence] = {}

__all__ = ["kl_divergence", "register_kl"]


def register_kl(type_p: Any, type_q: Any) -> Callable[[Divergence], Divergence]:
    """Decorates the function that gives the divergence of two classes, and of what is derived from them.

    Raises: TypeError for what is no class of distributions.
    """
    for kind in (type_p, type_q):
        # As in torch, other classes are taken, and are never found.
        if not isinstance(kind, type):
            issubclass(kind, Distribution)

    def register(function: Divergence) -> Divergence:
        _REGISTRY[type_p, type_q] = function
        _FOUND.clear()
        return function

    return register


def _nearest(type_p: type[Any], type_q: type[Any]) -> Divergence:
    """The function of the pair that is nearest to these classes. Raises: NotImplementedError where there is none."""
    fitting = [pair for pair in _REGISTRY if issubclass(type_p, pair[0]) and issubclass(type_q, pair[1])]
    if not fitting:
        raise NotImplementedError
    p_first = min(fitting, key=lambda pair: (type_p.__mro__.index(pair[0]), type_q.__mro__.index(pair[1])))
    q_first = min(fitting, key=lambda pair: (type_q.__mro__.index(pair[1]), type_p.__mro__.index(pair[0])))
    found = _REGISTRY[p_first]
    if found is not _REGISTRY[q_first]:
        warnings.warn(
            f"Ambiguous kl_divergence({type_p.__name__}, {type_q.__name__}). "
            f"Please register_kl({p_first[0].__name__}, {q_first[1].__name__})",
            RuntimeWarning,
            stacklevel=3,
        )
    return found


def kl_divergence(p: Distribution, q: Distribution) -> Any:
    """KL(p ‖ q), of each distribution of the batch.

    Raises: NotImplementedError where no function is registered for the two classes.
    """
    pair = type(p), type(q)
    found = _FOUND.get(pair)
    if found is None:
        try:
            found = _FOUND[pair] = _nearest(*pair)
        except NotImplementedError:
            raise NotImplementedError(
                f"No KL(p || q) is implemented for p type {p.__class__.__name__} and q type {q.__class__.__name__}"
            ) from None
    return found(p, q)
