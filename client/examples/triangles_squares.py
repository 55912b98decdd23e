"""Triangles and squares that no line separates, and a network with activations that separates them.

The triangles lie in the middle of the squares. A line can do no better than cut off one side. Three neurons of a hidden
layer draw one line each; the output neuron fires where all three do, and the three lines close to a border.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _pictures import INK, NEGATIVE, POSITIVE, panels, save
from _server import run

import tclient as torch
from tclient import nn

# The three lines: a neuron fires on the inner side, where n·x <= 1, for these directions n.
DIRECTIONS = np.array([[np.cos(a), np.sin(a)] for a in np.radians([90.0, 210.0, 330.0])], dtype=np.float32)
STEEPNESS = 6.0
VIEW = 2.8


def main(out: Path) -> None:
    """Find the best line, build the network, count what each gets right, and draw both."""
    points, is_triangle = shapes()
    weights, bias, found = best_line(points, is_triangle)
    by_line = accuracy(nn.Perceptron(weights, bias)(points) > 0, is_triangle)
    print(f"the best of {found} lines gets {by_line:.0%} of the shapes right")
    assert by_line < 1.0

    network = nn.MLP([2, 3, 1], activation="sigmoid", output_activation="sigmoid")
    network.load_state_dict(
        {
            "0.weight": -STEEPNESS * DIRECTIONS,
            "0.bias": np.full(3, STEEPNESS, dtype=np.float32),
            "2.weight": np.full((1, 3), 12, dtype=np.float32),
            "2.bias": np.full(1, -12 * 2.5, dtype=np.float32),  # more than two of the three must fire
        }
    )
    by_network = accuracy(network(points).squeeze(1) > 0.5, is_triangle)
    print(f"the network with {network.parameter_count()} parameters gets {by_network:.0%} right")
    assert by_network == 1.0
    draw(points, is_triangle, nn.Neuron(weights, bias, activation="identity"), network, out / "triangles_squares.png")


def shapes() -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the plane, and which of them are triangles: those well inside the three lines."""
    rng = np.random.default_rng(5)
    points = rng.uniform(-2.6, 2.6, (700, 2)).astype(np.float32)
    outside = (points @ DIRECTIONS.T - 1).max(axis=1)  # how far beyond the nearest line; negative within all three
    chosen = np.concatenate([np.flatnonzero(outside < -0.25)[:60], np.flatnonzero(outside > 0.3)[:60]])
    return torch.tensor(points[chosen]), torch.tensor(outside[chosen] < 0)


def best_line(points: torch.Tensor, is_triangle: torch.Tensor) -> tuple[list[float], float, int]:
    """Try lines of all directions and distances at once on the server: weights and bias of the best, and how many."""
    angles = torch.arange(360) * (torch.pi / 180)
    normals = torch.stack([angles.cos(), angles.sin()])
    offsets = torch.linspace(-4, 4, 81)
    fires = (points @ normals).unsqueeze(2) + offsets >= 0  # point × direction × distance
    right = (fires == is_triangle.reshape(-1, 1, 1)).float().mean(0)
    best = int(right.argmax().item())
    direction, distance = divmod(best, len(offsets))
    return normals[:, direction].tolist(), offsets[distance].item(), right.numel()


def accuracy(says_triangle: torch.Tensor, is_triangle: torch.Tensor) -> float:
    """The share of shapes that are called what they are."""
    return float((says_triangle == is_triangle).float().mean().item())


def draw(points: torch.Tensor, is_triangle: torch.Tensor, line: nn.Neuron, network: nn.MLP, path: Path) -> None:
    """The plane as the line splits it, and as the network does: 40,000 points each, one call each."""
    steps = torch.linspace(-VIEW, VIEW, 200)
    grid = torch.cartesian_prod(steps, steps)
    by_line = line(grid).reshape(200, 200).t().detach().numpy()
    by_network = (network(grid) - 0.5).reshape(200, 200).t().detach().numpy()
    axis, where, triangle = steps.numpy(), points.numpy(), is_triangle.numpy()

    figure, (left, right) = panels(2, 11, 5.4)
    left.set_title("The best line is wrong somewhere")
    right.set_title("With activations: a closed border")
    for axes, above in ((left, by_line), (right, by_network)):
        axes.contourf(axis, axis, above, levels=[-99, 0, 99], colors=[NEGATIVE, POSITIVE], alpha=0.13)
        axes.contour(axis, axis, above, levels=[0], colors=[INK], linewidths=2.2)
        axes.scatter(where[triangle, 0], where[triangle, 1], marker="^", s=44, color=POSITIVE, label="triangle")
        axes.scatter(where[~triangle, 0], where[~triangle, 1], marker="s", s=36, color=NEGATIVE, label="square")
        axes.set(xlim=(-VIEW, VIEW), ylim=(-VIEW, VIEW), xlabel="x1", ylabel="x2")
        axes.set_aspect("equal")
    for direction in DIRECTIONS:
        along = np.array([-direction[1], direction[0]])
        ends = direction + np.array([[-9.0], [9.0]]) * along
        right.plot(*ends.T, ":", color=INK, linewidth=1.2, alpha=0.7)
    right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


if __name__ == "__main__":
    run(main, __doc__)
