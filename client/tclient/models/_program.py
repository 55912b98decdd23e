"""A program for a network: recorded at several sizes, made one for all, and tried against the network itself.

Knows recordings, templates and sizes; does not know how a program is sent to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tclient._exceptions import TensorError
from tclient.models._checks import Programmed, verified
from tclient.models._inputs import Sizes
from tclient.models._network import not_servable
from tclient.models._recorder import Sample
from tclient.models._sizes import Plan, plans
from tclient.models._template import Template, sizes_text
from tclient.models._trials import Trials

# So many recordings with one dimension changed.
_EACH = 2
# Sizes in a row tell where a division rounds: two periods of it, and at most so many.
_PERIODS = 2
_ROW = 64


def program_of(trials: Trials) -> Programmed:
    """The program. Raises: an error of `not_servable`; where nothing varies, also whatever the network raises."""
    if not trials.names:
        samples = [trials.record({})]
        return verified(trials, samples, _template(trials, samples), [{}])
    plan, samples = _begun(trials)
    for name in trials.names:
        samples += _changed(trials, plan, name)
    last = {name: _last(samples, name) for name in trials.names}
    for sizes in _distinct([last, plan.large, *({**plan.base, name: plan.large[name]} for name in trials.names)]):
        more = trials.try_to_record(sizes)
        samples += [more] if isinstance(more, Sample) else []
    template = _narrowed(trials, samples)
    # What was not foretold is learnt from, until something is foretold.
    was_foretold = True
    for sizes in plan.later:
        more = trials.try_to_record(sizes)
        if isinstance(more, Sample):
            samples.append(more)
            before, template = template, _narrowed(trials, samples)
            was_foretold = before.formulas == template.formulas
            if was_foretold:
                break
    if not was_foretold:
        raise not_servable(
            f"{trials.network.label} cannot be served with dimensions that vary: no simple formulas give the numbers "
            "that its calls take. Give the sizes that are fixed as numbers"
        )
    ones = [{**plan.base, name: 1} for name in trials.names]
    return verified(trials, samples, template, [samples[-1].sizes, *ones])


def _template(trials: Trials, samples: Sequence[Sample]) -> Template:
    return Template(trials.network.label, samples, len(trials.specs))


def _begun(trials: Trials) -> tuple[Plan, list[Sample]]:
    """The first sizes at which it runs. Raises: an error of `not_servable` where there are none."""
    failed: list[tuple[Sizes, Exception]] = []
    for plan in plans(trials.names, trials.rows):
        sample = trials.try_to_record(plan.base)
        if isinstance(sample, Sample):
            return plan, [sample]
        failed.append((plan.base, sample))
    (sizes, error), tried = failed[0], ", ".join(f"({sizes_text(sizes)})" for sizes, _ in failed)
    raise not_servable(
        f"{trials.network.label} cannot be served with dimensions that vary: it does not run at {sizes_text(sizes)}"
        f"{_at(error)}: {_text(error)}. Give the sizes that are fixed as numbers, and one name to dimensions that are "
        f"always equal. Tried were {tried}"
    ) from error


def _changed(trials: Trials, plan: Plan, name: str) -> list[Sample]:
    """Recordings with this dimension changed alone. Raises: an error of `not_servable` where none runs."""
    found: list[Sample] = []
    failed: tuple[int, Exception] | None = None
    for size in plan.others[name]:
        if size < 1:
            continue
        sample = trials.try_to_record({**plan.base, name: size})
        if isinstance(sample, Sample):
            found.append(sample)
        elif failed is None:
            failed = size, sample
        if len(found) == _EACH:
            break
    if not found and failed is not None:
        size, error = failed
        raise not_servable(
            f"{trials.network.label} cannot be served with a dimension {name!r} that varies: it runs at "
            f"{sizes_text(plan.base)}, but not at {name}={size}{_at(error)}: {_text(error)}. Give its size as a number"
        ) from error
    return found


def _last(samples: Sequence[Sample], name: str) -> int:
    """The size of this dimension in the last recording where it alone is changed."""
    base = samples[0].sizes[name]
    return next((sample.sizes[name] for sample in reversed(samples) if sample.sizes[name] != base), base)


def _distinct(several: Sequence[dict[str, int]]) -> Iterator[dict[str, int]]:
    """Each of these sizes once."""
    return iter([sizes for position, sizes in enumerate(several) if sizes not in several[:position]])


def _narrowed(trials: Trials, samples: list[Sample]) -> Template:
    """The template. Where it divides, more is recorded, at sizes in a row: they tell how it rounds."""
    base = samples[0].sizes
    # How far each dimension was tried, and is to be.
    tried = dict.fromkeys(trials.names, 1)
    while True:
        template = _template(trials, samples)
        wanted = {
            name: min(_PERIODS * formula.divisor, _ROW)
            for formula in sorted(template.formulas, key=lambda formula: formula.divisor)
            if formula.divisor > 1
            for name in formula.dimensions
        }
        name = next((name for name, steps in wanted.items() if steps > tried[name]), None)
        if name is None:
            return template
        for step in range(tried[name], wanted[name]):
            more = trials.try_to_record({**base, name: base[name] + step})
            if not isinstance(more, Sample):
                tried[name] = _ROW
                break
            samples.append(more)
        tried[name] = max(tried[name], wanted[name])


def _at(error: Exception) -> str:
    filename, lineno = getattr(error, "filename", ""), getattr(error, "lineno", 0)
    operation = getattr(error, "operation", "")
    return f" (`{operation}` at {filename}:{lineno})" if operation and filename else ""


def _text(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if not isinstance(error, TensorError) else text.rstrip(".")
