"""torch's own samples for its operators, run by tclient and by torch side by side: results, errors and gradients.

    python -m tests.operations.opdb                      all operators, and which are not whole
    python -m tests.operations.opdb --only fft --most 4  those with a text in their name, with fewer samples

An operator is whole if each of its samples gives what torch gives: values, shapes, dtypes, the class of an error, and
gradients of what has such. Needs no server that runs already: it starts one.
"""

from __future__ import annotations

import argparse
import builtins
import inspect
import math
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db

from tests.operations import calls  # noqa: F401  makes torch's samples quick to come
from tests.support.serving import ServerProcess

# What it returns is memory that nobody has written.
_UNWRITTEN = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}
# So many samples are looked through for those that are run.
_LOOKED_THROUGH = 400


def operators() -> dict[str, Any]:
    """torch's operators, by a name of their own."""
    return {f"{info.name}.{info.variant_test_name}".rstrip("."): info for info in op_db}


def _at(path: str) -> Any:
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


@cache
def _paths() -> dict[Any, str]:
    """The shortest public path of each function of torch, below `torch`."""
    found: dict[Any, str] = {}
    for room in ("", *_ROOMS):
        for name in dir(_at(room) if room else torch):
            path = f"{room}.{name}" if room else name
            if not name.startswith("_") or room == "Tensor":
                value = _at(path)
                if callable(value) and value.__hash__ is not None:
                    found.setdefault(value, path)
    return found


_ROOMS = ("nn.functional", "linalg", "fft", "special", "sparse", "signal.windows", "masked", "Tensor")
_SEED = 42


def public_path(function: Any) -> str:
    """Where a function of torch is, below `torch`. Raises: LookupError for what has no public name."""
    path = _paths().get(function) or (torch.overrides.resolve_name(function) or "").removeprefix("torch.")
    if not path or _at(path) is None or any(part.startswith("_") and part[1] != "_" for part in path.split(".")):
        raise Private(f"{function} has no public name in torch")
    return path


class Private(LookupError):
    """A function that only torch itself calls."""


class Twin:
    """What stands in tclient for an object of torch."""

    def __init__(self, tc: ModuleType) -> None:
        self._tc: Any = tc

    def of(self, value: Any) -> Any:
        """The same argument, in tclient. Raises: LookupError for what it does not have."""
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            return getattr(self._tc, str(value).removeprefix("torch."))
        if isinstance(value, torch.device):
            return self._tc.device(str(value))
        if isinstance(value, torch.Size):
            return self._tc.Size(value)
        if isinstance(value, torch.Generator):
            return self._tc.Generator().manual_seed(value.initial_seed())
        if isinstance(value, (list, tuple)):
            items = [self.of(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, dict):
            return {key: self.of(item) for key, item in value.items()}
        if isinstance(value, torch.nn.Module):
            return getattr(self._tc.nn, type(value).__name__)()
        return self.function(value) if callable(value) and not isinstance(value, type) else value

    def _tensor(self, value: torch.Tensor) -> Any:
        plain = value.detach()
        if plain.layout is torch.sparse_coo:
            made = self._tc.sparse_coo_tensor(plain._indices(), plain._values(), tuple(plain.shape))
            made = made.coalesce() if plain.is_coalesced() else made
        else:
            made = self._tc.tensor(plain.resolve_conj().resolve_neg())
            is_whole = plain.untyped_storage().nbytes() == plain.nbytes and made.stride() == plain.stride()
            made = made if is_whole else self._laid(plain)
            made = made.conj().resolve_conj().conj() if plain.is_conj() else made
        return made.requires_grad_() if value.requires_grad else made

    def _laid(self, plain: torch.Tensor) -> Any:
        room = plain.untyped_storage().nbytes() // plain.itemsize
        whole = self._tc.tensor(plain.as_strided((room,), (1,), 0).resolve_conj().resolve_neg())
        return whole.as_strided(tuple(plain.shape), plain.stride(), plain.storage_offset())

    def function(self, function: Any) -> Any:
        """The function of tclient that is called as this one of torch. Raises: LookupError."""
        if isinstance(function, types.FunctionType) and function.__module__.startswith("torch.testing"):
            return self._rebound(function)
        path = public_path(function)
        found: Any = self._tc
        for name in path.split("."):
            try:
                found = getattr(found, name)
            except AttributeError as error:
                raise LookupError(f"tclient has no torch.{path}: {error}") from None
        return found

    def _rebound(self, function: types.FunctionType) -> Any:
        """A function of torch's tests, in whose text `torch` means tclient."""
        known = {**function.__globals__, "torch": self._tc, "wrapper_set_seed": self._seeded}
        cells = tuple(types.CellType(self._of_cell(cell.cell_contents)) for cell in function.__closure__ or ())
        made = types.FunctionType(function.__code__, known, function.__name__, function.__defaults__, cells)
        made.__kwdefaults__ = function.__kwdefaults__
        return made

    def _seeded(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        # As torch's tests call what draws.
        self._tc.manual_seed(_SEED)
        return function(*args, **kwargs)

    def _of_cell(self, value: Any) -> Any:
        return self.of(value) if inspect.isroutine(value) or isinstance(value, torch.Tensor) else value


def _name_of(error: BaseException) -> str:
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")


def _tensors(value: Any, kind: type[Any]) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item, kind)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, kind)


def _host(value: Any) -> torch.Tensor:
    """A tensor of tclient as one of torch."""
    if value.is_sparse:
        parts = _host(value._indices()), _host(value._values())
        return torch.sparse_coo_tensor(*parts, tuple(value.shape), check_invariants=True)
    if str(value.dtype) in ("torch.bfloat16", "torch.complex32"):
        wide = {"torch.bfloat16": value.float, "torch.complex32": value.cfloat}[str(value.dtype)]()
        return torch.from_numpy(np.array(wide.detach().numpy())).to(getattr(torch, str(value.dtype)[6:]))
    return torch.from_numpy(np.array(value.detach().numpy(force=True)))


class Difference(Exception):
    """How tclient was not torch."""


def _compare(theirs: Any, ours: Any, where: str, *, values: bool = True) -> None:
    if isinstance(theirs, torch.Tensor):
        told = (tuple(ours.shape), str(ours.dtype), str(ours.layout))
        if told != (tuple(theirs.shape), str(theirs.dtype), str(theirs.layout)):
            raise Difference(f"{where}: {told} for {tuple(theirs.shape)}, {theirs.dtype}, {theirs.layout}")
        if values:
            mine = _host(ours)
            theirs = theirs.detach().resolve_conj().resolve_neg().clone()
            try:
                torch.testing.assert_close(mine, theirs, equal_nan=True, check_stride=False)
            except AssertionError as error:
                raise Difference(f"{where}: {str(error).splitlines()[0]}") from None
    elif isinstance(theirs, (list, tuple)) and not isinstance(theirs, torch.Size):
        if len(theirs) != len(ours):
            raise Difference(f"{where}: {len(ours)} results for {len(theirs)}")
        for index, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            _compare(one, other, f"{where}[{index}]", values=values)
    elif isinstance(theirs, (bool, int, float, complex, str, torch.Size)):
        is_nan = isinstance(theirs, float) and math.isnan(theirs)
        if not (theirs == ours or (is_nan and isinstance(ours, float) and math.isnan(ours))):
            raise Difference(f"{where}: {ours!r} for {theirs!r}")


def _weights(module: Any, result: Any) -> Any:
    """What a gradient begins with: not the same everywhere, so that an exchange shows."""
    count = result.numel()
    return ((module.arange(count) % 5 + 1) / 5).reshape(tuple(result.shape)).to(result.dtype)


def _gradients(module: Any, results: Any, inputs: Any) -> Any:
    kind = module.Tensor
    outputs = [each for each in _tensors(results, kind) if each.requires_grad and not each.is_sparse]
    leaves = [each for each in _tensors(inputs, kind) if each.requires_grad]
    if not outputs or not leaves:
        return []
    seeds = [_weights(module, each) for each in outputs]
    return list(module.autograd.grad(outputs, leaves, seeds, allow_unused=True))


class Side:
    """torch, or tclient: how a sample is run there."""

    def __init__(self, module: Any, translate: Callable[[Any], Any]) -> None:
        self._module = module
        self._translate = translate

    def run(self, info: Any, sample: Any, *, gradients: bool) -> tuple[Any, Any]:
        """The result and the gradients; the name of an error in place of either."""
        module = self._module
        function = self._translate(info.op)
        given = [self._translate(value) for value in (sample.input, *sample.args)]
        named = {key: self._translate(value) for key, value in sample.kwargs.items()}
        module.manual_seed(11)
        try:
            result = function(*given, **named)
            for tensor in _tensors(result, module.Tensor):
                tensor.dtype
        except Exception as error:
            return error, []
        if not gradients:
            return result, []
        try:
            shown = self._translate(sample.output_process_fn_grad)(result)
            return result, _gradients(module, shown, [given, named])
        except Exception as error:
            return result, error


def _is_error(value: Any) -> bool:
    return isinstance(value, BaseException)


def samples(info: Any, most: int) -> Iterator[tuple[Any, bool]]:
    """Samples of an operator, and whether they have gradients; not only the first ones."""
    wanted = (torch.float32, torch.complex64, torch.int64, torch.bool)
    dtype = next((each for each in (*wanted, *info.dtypes) if each in info.dtypes), None)
    if dtype is None:
        return  # it is for another device
    gradients = info.supports_autograd and dtype in (torch.float32, torch.complex64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(islice(info.sample_inputs("cpu", dtype, requires_grad=gradients), _LOOKED_THROUGH))
    for sample in found[:: max(1, -(-len(found) // most))]:
        yield sample, gradients


def difference(tc: ModuleType, info: Any, most: int) -> str | None:
    """How an operator is not whole; None if it is."""
    ours, theirs = Side(tc, Twin(tc).of), Side(torch, lambda value: value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (sample, gradients) in enumerate(samples(info, most)):
            where = f"sample {number}"
            try:
                mine, my_gradients = ours.run(info, sample, gradients=gradients)
                expected, their_gradients = theirs.run(info, sample, gradients=gradients)
                _compare_runs(expected, mine, where, values=info.name not in _UNWRITTEN)
                _compare_runs(their_gradients, my_gradients, f"{where}, gradients", values=True)
            except Private:
                raise
            except Difference as found:
                return str(found)
            except Exception as error:
                return f"{where}: {type(error).__name__}: {str(error)[:300]}"
    return None


def _compare_runs(theirs: Any, ours: Any, where: str, *, values: bool) -> None:
    if _is_error(theirs) or _is_error(ours):
        if not (_is_error(theirs) and _is_error(ours) and _name_of(theirs) == _name_of(ours)):
            raise Difference(f"{where}: {_text(ours)} for {_text(theirs)}")
        return
    _compare(theirs, ours, where, values=values)


def _text(value: Any) -> str:
    return f"{type(value).__name__}: {str(value)[:300]}" if _is_error(value) else f"a {type(value).__name__}"


def main() -> int:
    """What the command line says; 1 if an operator is not whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="a text in the names of the operators to be run (default: all)")
    parser.add_argument("--most", type=int, default=12, help="samples of each operator at most (default: %(default)s)")
    parser.add_argument("--address", default="", help="a server that runs already")
    options = parser.parse_args()
    import tclient

    chosen = {name: info for name, info in operators().items() if options.only in name and info.dtypes}
    began = time.monotonic()
    broken: dict[str, str] = {}
    private: list[str] = []
    with ServerProcess() as server:
        for name, info in chosen.items():
            with tclient.connect(options.address or server.address):
                try:
                    found = difference(tclient, info, options.most)
                except Private:
                    private.append(name)
                    continue
            if found is not None:
                broken[name] = found
                builtins.print(f"{name}: {found}", flush=True)
    total = len(chosen) - len(private)
    builtins.print(f"not counted, as they have no public name: {', '.join(private) or 'none'}")
    names = {chosen[name].name for name in chosen if name not in private}
    whole = names - {chosen[name].name for name in broken}
    builtins.print(
        f"{total - len(broken)} of {total} operators and variants are whole, {len(whole)} of {len(names)} operators "
        f"({time.monotonic() - began:.0f} s)"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
