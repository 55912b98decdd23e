"""The decision machine that grows with its owner: from one feature to a network.

A boy wants to know whom to ask out. At 14 he looks at one thing. After some refusals he adds a second. At 25 there are
five, and each has its weight. What those five mean nobody can measure, so the last machine takes what can be measured
and makes the features itself, in a hidden layer. Each machine is a model on the server.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _pictures import FAINT, INK, NEGATIVE, POSITIVE, panels, save
from _server import run
from matplotlib.axes import Axes

import tclient as torch
from tclient import nn

PEOPLE = ["Ana", "Bea", "Cleo", "Dora"]

# What the first three machines are told of each person, from 0 to 1.
FEATURES = ["looks", "chances", "character", "habits", "interests"]
TOLD = np.array(
    [
        [0.95, 0.10, 0.30, 0.20, 0.40],
        [0.85, 0.60, 0.35, 0.10, 0.30],
        [0.60, 0.75, 0.90, 0.80, 0.85],
        [0.30, 0.80, 0.60, 0.70, 0.20],
    ],
    dtype=np.float32,
)

# What the last machine measures of the same persons, from 0 to 1.
MEASURES = ["smiles", "sport", "books read", "replies", "minutes late", "songs shared"]
MEASURED = np.array(
    [
        [0.90, 0.90, 0.20, 0.10, 0.80, 0.40],
        [0.60, 0.90, 0.30, 0.50, 0.90, 0.20],
        [0.80, 0.40, 0.90, 0.80, 0.20, 0.90],
        [0.40, 0.10, 0.60, 0.90, 0.30, 0.20],
    ],
    dtype=np.float32,
)
HIDDEN = ["looks?", "character?", "chances?"]
HIDDEN_WEIGHT = np.array(
    [
        [3.0, 3.0, 0.0, 0.0, 0.0, 0.0],
        [2.0, 0.0, 3.0, 0.0, -3.0, 0.0],
        [0.0, 0.0, 0.0, 4.0, -1.0, 2.0],
    ],
    dtype=np.float32,
)
HIDDEN_BIAS = np.array([-2.5, -1.0, -2.5], dtype=np.float32)
OUTPUT_WEIGHT = np.array([[2.0, 3.0, 3.0]], dtype=np.float32)


def main(out: Path) -> None:
    """Build the four machines and let each judge the same four people."""
    told, measured = torch.tensor(TOLD), torch.tensor(MEASURED)

    at_14 = nn.Neuron([1.0], activation="step", threshold=0.8)
    at_15 = nn.Neuron([0.5, 0.5], activation="step", threshold=0.65)
    at_25 = nn.Neuron([1.0, 2.0, 4.0, 2.0, 1.0], bias=-6.0, activation="sigmoid")
    super_machine = nn.MLP([6, 3, 1], activation="sigmoid", output_activation="sigmoid")
    super_machine.load_state_dict(
        {
            "0.weight": HIDDEN_WEIGHT,
            "0.bias": HIDDEN_BIAS,
            "2.weight": OUTPUT_WEIGHT,
            "2.bias": np.array([-5.0], dtype=np.float32),
        }
    )

    with torch.no_grad():
        verdicts = {
            "at 14: looks": at_14(told[:, :1]),
            "at 15: looks and chances": at_15(told[:, :2]),
            "at 25: five features, weighted": at_25(told),
            "the super machine: hidden features": super_machine(measured).squeeze(1),
        }
    print(f"{'':36}" + "".join(f"{name:>7}" for name in PEOPLE))
    for machine, verdict in verdicts.items():
        print(f"{machine:36}" + "".join(f"{value:7.2f}" for value in verdict.tolist()))
    choices = [PEOPLE[int(verdict.argmax().item())] for verdict in verdicts.values()]
    print("first choice:", " -> ".join(choices))
    draw(list(verdicts.values()), out / "decision_machine.png")


def draw(verdicts: list[torch.Tensor], path: Path) -> None:
    """The four machines as networks, and what each says of everyone.

    A line is a weight: blue speaks for, orange against, and a thick one counts for much.
    """
    steps: list[tuple[str, list[list[str]], list[np.ndarray]]] = [
        ("At 14: one feature", [FEATURES[:1], ["ask?"]], [np.array([[2.0]])]),
        ("At 15: a second one, as important", [FEATURES[:2], ["ask?"]], [np.array([[2.0, 2.0]])]),
        ("At 25: more features, and weights", [FEATURES, ["ask?"]], [np.array([[1.0, 2.0, 4.0, 2.0, 1.0]])]),
        ("The super machine makes its features", [MEASURES, HIDDEN, ["ask?"]], [HIDDEN_WEIGHT, OUTPUT_WEIGHT]),
    ]
    figure, axes = panels(2, 10, 11, rows=4, height_ratios=[1.6, 2, 4, 5], width_ratios=[3, 1])
    for row, (title, layers, weights) in enumerate(steps):
        network(axes[2 * row], layers, weights)
        axes[2 * row].set_title(title, loc="left")
        answers(axes[2 * row + 1], verdicts[row].numpy())
    save(figure, path)


def network(axes: Axes, layers: list[list[str]], weights: list[np.ndarray]) -> None:
    """Draw neurons as circles and weights as lines."""
    places = [
        [(2.6 * column, ((len(names) - 1) / 2 - row) * (1.7 if column else 1.0)) for row in range(len(names))]
        for column, names in enumerate(layers)
    ]
    for column, weight in enumerate(weights):
        for (to, source), value in np.ndenumerate(weight):
            if value:
                (x0, y0), (x1, y1) = places[column][source], places[column + 1][to]
                colour = POSITIVE if value > 0 else NEGATIVE
                axes.plot([x0, x1], [y0, y1], color=colour, linewidth=abs(value) * 1.3, alpha=0.65, zorder=1)
    for column, names in enumerate(layers):
        for (x, y), name in zip(places[column], names, strict=True):
            is_input = column == 0
            axes.scatter([x], [y], s=330, color="white", edgecolors=FAINT if is_input else INK, linewidths=2, zorder=2)
            beside, side = ((0, 17), "center")
            if is_input:
                beside, side = ((-15, 0), "right")
            elif column == len(layers) - 1:
                beside, side = ((15, 0), "left")
            axes.annotate(name, (x, y), xytext=beside, textcoords="offset points", ha=side, va="center")
    height = max(len(names) for names in layers) / 2
    axes.set(xlim=(-1.8, 6.4), ylim=(-height, height + 0.1))
    axes.axis("off")


def answers(axes: Axes, verdict: np.ndarray) -> None:
    """Bars: how strongly the machine says to ask each of them."""
    colours = [POSITIVE if value == verdict.max() else FAINT for value in verdict]
    axes.barh(PEOPLE, verdict, color=colours, height=0.6)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1))
    axes.tick_params(length=0)


if __name__ == "__main__":
    run(main, __doc__)
