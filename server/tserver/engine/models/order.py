"""The order of the layers of a file, which is found out for certain or refused, and never guessed.

A safetensors file is a set of tensors: its names have no order, and sorting them by the alphabet runs "hidden" before
"input". Knows names and widths; no tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tserver.errors import InvalidArgument

_SHOWN = 20
_SHOWN_LENGTH = 100
_DIGITS = re.compile(r"([0-9]+)")
_REMEDY = "give the names of all layers in order (WeightsFile.layers; layers=[...] of models.load)"


class Widths(NamedTuple):
    """What a layer takes, and what it gives."""

    inputs: int
    outputs: int


def shown(names: Sequence[str]) -> str:
    """Names for the text of an error, some of them where there are many."""
    some = ", ".join(repr(name[:_SHOWN_LENGTH]) for name in names[:_SHOWN])
    return some + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def named(layers: Mapping[str, Widths], told: Sequence[str], teller: str) -> list[str]:
    """The order that somebody told. Raises: InvalidArgument where those are not the layers there are."""
    known = set(told)
    unknown, left = [name for name in told if name not in layers], [name for name in layers if name not in known]
    if unknown or left or len(told) != len(layers):
        wrong = (
            f"the file has no {shown(unknown)}" if unknown else f"{shown(left)} is left out" if left else "one twice"
        )
        raise InvalidArgument(f"{teller} names {len(told)} layers: {wrong}; the file has {shown([*layers])}; {_REMEDY}")
    return list(told)


def found(layers: Mapping[str, Widths]) -> list[str]:
    """The order that the names' numbers tell, or else the widths. Raises: InvalidArgument where neither does."""
    names = list(layers)
    if len(names) < 2:
        return names
    numbered = _by_number(names)
    if numbered is not None:
        for before, after in pairwise(numbered):
            if layers[before].outputs != layers[after].inputs:
                raise InvalidArgument(
                    f"in the order of the numbers in their names, layer {after[:_SHOWN_LENGTH]!r} takes "
                    f"{layers[after].inputs} inputs, but {before[:_SHOWN_LENGTH]!r} before it has "
                    f"{layers[before].outputs} outputs; if that is not their order, {_REMEDY}"
                )
        return numbered
    order = _by_widths(layers)
    if isinstance(order, str):
        raise InvalidArgument(
            f"the order of the file's layers is not certain: {shown(names)} do not differ in one number alone, and "
            f"{order}; {_REMEDY}"
        )
    return order


def _by_number(names: Sequence[str]) -> list[str] | None:
    """The names by the one number in which all of them differ, as in 'net.3'; None where it is not so."""
    # Every other part is a number. Python refuses to convert very long ones: they compare by length, then by digits.
    parts = [_DIGITS.split(name) for name in names]
    if len({len(each) for each in parts}) != 1:
        return None
    differing = [place for place, values in enumerate(zip(*parts, strict=True)) if len(set(values)) > 1]
    if len(differing) != 1 or not differing[0] % 2:
        return None
    digits = [each[differing[0]].lstrip("0") for each in parts]
    if len(set(digits)) != len(names):
        return None
    return [
        name for _, _, name in sorted((len(number), number, name) for number, name in zip(digits, names, strict=True))
    ]


def _by_widths(layers: Mapping[str, Widths]) -> list[str] | str:
    """The one order in which each layer takes what the one before it gives; or why there is not one alone.

    Widths are the nodes of a graph and layers its edges: an order is a walk along all of them. Takes time in proportion
    to the layers, whatever they are.
    """
    leaving: dict[int, list[str]] = {}
    surplus: dict[int, int] = {}
    for name, (inputs, outputs) in layers.items():
        leaving.setdefault(inputs, []).append(name)
        surplus[inputs] = surplus.get(inputs, 0) + 1
        surplus[outputs] = surplus.get(outputs, 0) - 1
    ends = [count for count in surplus.values() if count]
    if any(abs(count) > 1 for count in ends) or len(ends) > 2:
        return _NONE
    # Where what goes in also comes out, any layer may be the first. Else the first takes what no other gives.
    first = next((width for width, count in surplus.items() if count == 1), next(iter(surplus)))
    # Hierholzer's: walk on while a layer is left to go by; where the walk is stuck, go back, and add from the end.
    walk: list[str] = []
    order: list[str] = []
    width = first
    while True:
        if leaving.get(width):
            walk.append(leaving[width].pop())
            width = layers[walk[-1]].outputs
        elif walk:
            order.append(walk.pop())
            width = layers[order[-1]].inputs
        else:
            break
    if len(order) != len(layers):
        return _NONE
    order.reverse()
    return order if ends and _is_only_walk([first, *(layers[name].outputs for name in order)]) else _SEVERAL


_NONE = "their shapes fit each other in no order"
_SEVERAL = "their shapes fit each other in more than one order"


def _is_only_walk(widths: Sequence[int]) -> bool:
    """Whether no other walk with other ends than its own takes the same steps as this one.

    Two walks along the same edges come out of each other by changing the places of two stretches between the same two
    nodes (Ukkonen 1992, Pevzner 1995). That needs a node that comes three times, or two that come in turns.
    """
    times: dict[int, int] = {}
    for width in widths:
        times[width] = times.get(width, 0) + 1
    # Of what comes twice and not in turns, the last to begin is the first to end.
    open_: list[int] = []
    begun = set()
    for width in widths:
        if times[width] == 2 and width not in begun:
            begun.add(width)
            open_.append(width)
        elif times[width] > 2 or (times[width] == 2 and open_.pop() != width):
            return False
    return True
