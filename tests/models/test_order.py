"""The order of a file's layers: told, numbered, or the only one that their shapes allow; never guessed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, permutations, product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.engine.models import files
from tserver.engine.models.order import Widths, found
from tserver.errors import InvalidArgument


def widths(*layers: str) -> dict[str, Widths]:
    """Layers as "name 6 5": what each takes and gives."""
    split = [layer.split(" ") for layer in layers]
    return {name: Widths(int(inputs), int(outputs)) for name, inputs, outputs in split}


def same(*names: str) -> dict[str, Widths]:
    return widths(*(f"{name} 4 4" for name in names))


LONG = ["2", "11", "9" * 5000, "1" + "0" * 5000]
CERTAIN: dict[str, tuple[dict[str, Widths], list[str]]] = {
    "one layer": (same("output"), ["output"]),
    "one without a name": (same(""), [""]),
    "numbers": (same("10", "9", "2", "11"), ["2", "9", "10", "11"]),
    "numbers within names": (same("net.10.fc", "net.9.fc"), ["net.9.fc", "net.10.fc"]),
    "numbers behind names": (same("layer10", "layer9"), ["layer9", "layer10"]),
    "numbers beside one that is the same": (same("v2.h.1", "v2.h.0"), ["v2.h.0", "v2.h.1"]),
    "numbers of any length": (same(*reversed(LONG)), LONG),
    "numbers with zeros before them": (same("l010", "l009"), ["l009", "l010"]),
    "shapes": (widths("hidden 5 4", "input 6 5", "output 4 3"), ["input", "hidden", "output"]),
    "shapes that a number does not contradict": (widths("a1 5 4", "b2 6 5"), ["b2", "a1"]),
    "shapes that come to a width again": (widths("down 9 4", "up 4 9", "head 9 2"), ["down", "up", "head"]),
    "a square one before one that is not": (widths("head 9 2", "square 9 9"), ["square", "head"]),
}


@pytest.mark.parametrize(("layers", "order"), CERTAIN.values(), ids=CERTAIN)
def test_an_order_that_is_certain_is_taken(layers: dict[str, Widths], order: list[str]) -> None:
    assert found(layers) == order


UNCERTAIN: dict[str, tuple[dict[str, Widths], str]] = {
    "names alone": (same("input", "hidden", "output"), "'input', 'hidden', 'output' .* in more than one order"),
    "names, and shapes of a ring": (widths("encoder 6 2", "decoder 2 6"), "more than one order"),
    "names, and shapes that do not fit": (widths("in 6 5", "out 4 3"), "in no order"),
    "names, and shapes of two networks": (widths("a 6 5", "b 5 6", "c 3 2"), "in no order"),
    "two numbers": (same("0.fc1", "0.fc2", "1.fc1", "1.fc2"), "one number alone"),
    "numbers, and a name without": (same("0", "1", "head"), "one number alone"),
    "numbers at other places": (same("1.a.2", "1.b.1"), "one number alone"),
    "one number twice": (same("l1", "l01"), "one number alone"),
    "digits that are none of ours": (same("l\u0661", "l\u0662"), "one number alone"),
    "numbers that are sizes": (widths("fc784 784 256", "fc256 256 10"), "'fc784' takes 784 inputs, but 'fc256'"),
}


@pytest.mark.parametrize(("layers", "why"), UNCERTAIN.values(), ids=UNCERTAIN)
def test_an_order_that_is_not_certain_is_refused_with_the_remedy(layers: dict[str, Widths], why: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"{why}.*give the names of all layers in order .*layers="):
        found(layers)


def graphs() -> Iterator[list[tuple[int, int]]]:
    """All shapes of two and three layers of few widths, and some walks of more."""
    for count in (2, 3):
        yield from map(list, product([*product((1, 2, 3), (1, 2, 3))], repeat=count))
    drawn = random.Random(0)
    for count in (4, 5, 6):
        for _ in range(150):
            steps = [drawn.randint(1, count)]
            while len(steps) <= count:
                steps.append(drawn.randint(1, count))
            yield list(pairwise(steps))


def test_shapes_tell_an_order_where_trying_all_finds_one_alone() -> None:
    unique = 0
    for graph in graphs():
        layers = {letter: Widths(*shape) for letter, shape in zip("fedcba", graph, strict=False)}
        fitting = [
            list(order)
            for order in permutations(layers)
            if all(layers[one].outputs == layers[next_].inputs for one, next_ in pairwise(order))
        ]
        if len(fitting) == 1:
            unique += 1
            assert found(layers) == fitting[0]
        else:
            with pytest.raises(InvalidArgument, match="in no order" if not fitting else "in more than one order"):
                found(layers)
    assert unique > 100


HOSTILE: dict[str, tuple[Callable[[int], tuple[int, int]], bool]] = {
    "a star": (lambda index: (1, 2) if index % 2 else (2, 1), False),
    "one width": (lambda index: (1, 1), False),
    "a ladder": (lambda index: (index // 3, index // 3 + 1), False),
    "diamonds": (lambda index: (index // 4 * 2 + index % 4 % 3, index // 4 * 2 + 1 + (index % 4 > 0)), False),
    "a long chain": (lambda index: (index, index + 1), True),
    "a chain with a ring at each width": (lambda index: ((index + 1) // 2, index // 2 + 1), True),
}


@pytest.mark.parametrize(("shape", "is_certain"), HOSTILE.values(), ids=HOSTILE)
def test_shapes_that_are_made_to_take_long_do_not(shape: Callable[[int], tuple[int, int]], is_certain: bool) -> None:
    """Without their numbers, 60,000 layers are ordered or refused before the test's time is up."""
    layers = {f"{index}-{'x' * (index % 2)}": Widths(*pair) for index, pair in enumerate(map(shape, range(60_000)))}
    if is_certain:
        assert len(found(layers)) == len(layers)
    else:
        with pytest.raises(InvalidArgument, match="and 59980 more") as refused:
            found(layers)
        assert len(refused.value.message) < 5000


W = torch.ones(4, 4)
UNORDERED = {f"{name}.weight": W * number for number, name in enumerate(["hidden", "input", "output"])}
SPECS = [ms.LayerSpec()] * 3


@pytest.mark.parametrize("by", ["the caller", "the file"])
def test_an_order_that_is_told_is_taken(by: str) -> None:
    names = ["input", "hidden", "output"]
    told = {} if by == "the caller" else {files.NAMES_KEY: json.dumps(names)}
    _, weights = files.layers_of(UNORDERED, told, SPECS, names if by == "the caller" else ())
    assert [weight[0, 0].item() for weight, _ in weights] == [1, 0, 2]


WRONGLY_TOLD: dict[str, tuple[Sequence[str], str]] = {
    "too few": (["input", "hidden"], "names 2 layers: 'output' is left out"),
    "others": (["input", "hidden", "exit"], "no 'exit'; the file has 'hidden', 'input', 'output'"),
    "one twice": (["input", "hidden", "output", "input"], "names 4 layers: one twice"),
    "names of tensors": (["input.weight", "hidden.weight", "output.weight"], "no 'input.weight', 'hidden"),
}


@pytest.mark.parametrize(("names", "why"), WRONGLY_TOLD.values(), ids=WRONGLY_TOLD)
def test_names_that_are_not_those_of_the_layers_are_refused(names: Sequence[str], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        files.layers_of(UNORDERED, {}, SPECS, names)


def test_what_the_caller_tells_is_taken_rather_than_numbers() -> None:
    tensors = {"0.weight": torch.zeros(4, 4), "1.weight": torch.ones(4, 4)}
    _, weights = files.layers_of(tensors, {files.NAMES_KEY: '["0", "1"]'}, SPECS[:2], ["1", "0"])
    assert [weight[0, 0].item() for weight, _ in weights] == [1, 0]


def test_the_client_is_refused_an_order_and_gives_one(tc: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = {name: torch.nn.Linear(4, 4) for name in ("input", "hidden", "output")}
    tensors = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    save_file(tensors, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"order .* is not certain: .*'hidden', 'input', 'output'.* layers=\[\.\.\.\]"):
        tc.models.load("unordered", tmp_path / "net.safetensors", ["relu", "relu", None])
    for unordered in ({"input", "hidden", "output"}, dict.fromkeys(parts), "input"):
        with pytest.raises(TypeError, match=r"layers is a .*give a list"):
            tc.models.load("unordered", tmp_path / "net.safetensors", ["relu", "relu", None], layers=unordered)
    with pytest.raises(TypeError, match="activations is a set"):
        tc.models.load("unordered", tmp_path / "net.safetensors", {"relu", None}, layers=[*parts])
    served = tc.models.load("unordered", tmp_path / "net.safetensors", ["relu", "relu", None], layers=[*parts])
    rows = torch.randn(3, 4)
    with torch.no_grad():
        expected = parts["output"](parts["hidden"](parts["input"](rows).relu()).relu())
    np.testing.assert_allclose(served(rows.numpy()), expected.numpy(), rtol=1.3e-6, atol=1e-5)
    served.export(tmp_path / "exported.safetensors")
    again = tc.models.load("unordered", tmp_path / "exported.safetensors", version=2)
    np.testing.assert_array_equal(again(rows.numpy()), served(rows.numpy()))
    served.delete()
