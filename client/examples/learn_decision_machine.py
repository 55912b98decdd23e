"""The decision machine learns: nobody gives it weights, it finds them in how things went before.

Its owner remembers 600 encounters: what was told of the person, what could be measured, and whether the answer was yes.
The machines of 14, 15 and 25 and the super machine learn from 400 of them, and are asked about the other 200. What
friends tell is inaccurate; the super machine makes features of its own from what is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from _pictures import FAINT, INK, POSITIVE, panels, save
from _server import run
from decision_machine import FEATURES, HIDDEN_BIAS, HIDDEN_WEIGHT, MEASURES, OUTPUT_WEIGHT, network

import tclient as torch
from tclient import nn

STEPS = 600
LEARNED_FROM = 400
# The strength of a learned weight, as the width of its line.
THICKEST = 4.5


class Encounters(NamedTuple):
    """What is remembered: rows of features told, rows of measures, and 1 where the answer was yes."""

    told: torch.Tensor
    measured: torch.Tensor
    said_yes: torch.Tensor


class Machine(NamedTuple):
    """A model, what it is shown, and how it did."""

    name: str
    model: nn.Sequential
    losses: np.ndarray
    right: float


def main(out: Path) -> None:
    """Let the four machines learn, one after the other, and ask each about people it has not met."""
    torch.manual_seed(0)
    past = encounters()
    machines = []
    for name, inputs, sizes in (
        ("at 14", past.told[:, :1], [1, 1]),
        ("at 15", past.told[:, :2], [2, 1]),
        ("at 25", past.told, [5, 1]),
        ("super machine", past.measured, [6, 3, 1]),
    ):
        model = nn.MLP(sizes, activation="sigmoid")
        losses = fit(model, inputs[:LEARNED_FROM], past.said_yes[:LEARNED_FROM])
        with torch.no_grad():
            says_yes = model(inputs[LEARNED_FROM:]).squeeze(1) > 0
        right = (says_yes == (past.said_yes[LEARNED_FROM:] > 0)).float().mean().item()
        machines.append(Machine(name, model, losses, right))
        print(f"{name:14} loss {losses[0]:.3f} -> {losses[-1]:.3f}, right about {right:.0%} of those it has not met")
    print("weights found at 25: " + ", ".join(f"{name} {value:+.1f}" for name, value in found(machines[2].model)))
    draw(machines, out / "learn_decision_machine.png")


def encounters() -> Encounters:
    """600 people, and their answers: who they are decides, and nobody is told that exactly."""
    rng = np.random.default_rng(7)
    measured = rng.uniform(0, 1, (600, len(MEASURES)))
    looks, character, chances = (1 / (1 + np.exp(-(measured @ HIDDEN_WEIGHT.T + HIDDEN_BIAS)))).T
    decisive = (np.column_stack([looks, character, chances]) - 0.5) @ OUTPUT_WEIGHT[0]
    said_yes = 4 * decisive + rng.logistic(0, 1, 600) > 0
    told = np.column_stack([looks, chances, character, rng.uniform(0, 1, 600), rng.uniform(0, 1, 600)])
    told[:, :3] += rng.normal(0, 0.2, (600, 3))
    return Encounters(*(torch.tensor(each.astype(np.float32)) for each in (told, measured, said_yes)))


def fit(model: nn.Sequential, inputs: torch.Tensor, said_yes: torch.Tensor) -> np.ndarray:
    """Find the weights that explain the answers: the losses on the way, read once at the end."""
    loss_of = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model(inputs).squeeze(1), said_yes)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    curve: np.ndarray = torch.stack(losses).numpy()
    return curve


def found(model: nn.Sequential) -> list[tuple[str, float]]:
    """The weights of the machine at 25, by feature."""
    return list(zip(FEATURES, model[0].weight[0].tolist(), strict=True))


def draw(machines: list[Machine], path: Path) -> None:
    """The weights that two of them found, how their losses fell, and how often they are right.

    A line is a weight: blue speaks for, orange against, and a thick one counts for much.
    """
    figure, (at_25, super_machine, curves, shares) = panels(2, 11, 8.4, rows=2, height_ratios=[1.15, 1])
    for axes, machine, layers, title in (
        (at_25, machines[2], [FEATURES, ["ask?"]], "What it learned at 25"),
        (super_machine, machines[3], [MEASURES, ["?", "?", "?"], ["ask?"]], "The features that it made itself"),
    ):
        weights = [parameter.detach().numpy() for parameter in machine.model.parameters() if parameter.dim() == 2]
        network(axes, layers, [weight / np.abs(weight).max() * THICKEST for weight in weights])
        axes.set_title(title, loc="left")

    shades = ["#c3cad6", FAINT, INK, POSITIVE]
    curves.set_title("How wrong they are while they learn", loc="left")
    for machine, shade in zip(machines, shades, strict=True):
        curves.plot(machine.losses, color=shade, linewidth=2.5)
        curves.annotate(
            machine.name, (STEPS, machine.losses[-1]), xytext=(5, 0), textcoords="offset points", va="center"
        )
    curves.set(xlabel="step", ylabel="loss", xlim=(0, STEPS))

    shares.set_title("Right about people they have not met", loc="left")
    bars = shares.barh([machine.name for machine in machines], [machine.right for machine in machines], color=shades)
    shares.bar_label(bars, [f"{machine.right:.0%}" for machine in machines], padding=5)
    shares.axvline(0.5, color=FAINT, linewidth=1, linestyle=":")
    shares.invert_yaxis()
    shares.set(xlim=(0, 1.1), xticks=[0.5], xticklabels=["a coin"])
    shares.spines["bottom"].set_visible(False)
    shares.tick_params(length=0)
    save(figure, path)


if __name__ == "__main__":
    run(main, __doc__)
