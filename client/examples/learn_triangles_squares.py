"""The triangles and squares once more, and nobody says where the lines go: the network finds its weights itself.

Learning is four calls, again and again: how wrong is the network (the loss), which way would each weight have to go
(backward), a small step that way, and the gradients are let go. All of it runs on the server, and nothing waits for it
until the curve of the losses is drawn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _pictures import FAINT, INK, NEGATIVE, POSITIVE, panels, save
from _server import run
from matplotlib.axes import Axes
from triangles_squares import VIEW, accuracy, shapes

import tclient as torch
from tclient import nn

STEPS = 500


def main(out: Path) -> None:
    """Let a line and a network learn from the same shapes, and draw what they found."""
    points, is_triangle = shapes()
    torch.manual_seed(4)
    line = nn.MLP([2, 1])
    network = nn.MLP([2, 3, 1], activation="tanh")
    histories = {}
    for name, model in (("a line", line), ("the network", network)):
        losses = fit(model, points, is_triangle)
        right = accuracy(model(points).squeeze(1) > 0, is_triangle)
        histories[name] = losses
        print(f"{name}: loss {losses[0]:.3f} -> {losses[-1]:.3f}, {right:.0%} of the shapes right")
    draw(points, is_triangle, line, network, histories, out / "learn_triangles_squares.png")
    if right < 1.0:
        raise SystemExit("the network did not learn to tell all the shapes apart")


def fit(model: nn.MLP, points: torch.Tensor, is_triangle: torch.Tensor) -> np.ndarray:
    """Step down the slope of the loss: the losses on the way, read once at the end."""
    wanted = is_triangle.float().unsqueeze(1)
    loss_of = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model(points), wanted)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    curve: np.ndarray = torch.stack(losses).numpy()
    return curve


def draw(
    points: torch.Tensor,
    is_triangle: torch.Tensor,
    line: nn.MLP,
    network: nn.MLP,
    histories: dict[str, np.ndarray],
    path: Path,
) -> None:
    """The plane as each of them splits it, and how their losses fell."""
    figure, (left, middle, right) = panels(3, 14, 4.6, width_ratios=[1, 1, 1.05])
    left.set_title("The line that was learned")
    middle.set_title("The border that was learned")
    for axes, model in ((left, line), (middle, network)):
        plane(axes, model, points.numpy(), is_triangle.numpy())
    with torch.no_grad():
        weights, biases = network[0].weight.numpy(), network[0].bias.numpy()
    for weight, bias in zip(weights, biases, strict=True):
        # The neuron's line is w·x + bias = 0: through the point of it that is nearest to the origin, along the line.
        foot, along = -bias * weight / (weight @ weight), np.array([-weight[1], weight[0]])
        middle.plot(*(foot + np.array([[-9.0], [9.0]]) * along).T, ":", color=INK, linewidth=1.2, alpha=0.7)
    middle.plot([], [], ":", color=INK, label="one hidden neuron")
    middle.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, handletextpad=0.3, columnspacing=1.2)

    right.set_title("How wrong they are while they learn")
    for (name, losses), colour in zip(histories.items(), (FAINT, INK), strict=True):
        right.plot(losses, color=colour, linewidth=2.5)
        half = STEPS // 2
        right.annotate(name, (half, losses[half]), xytext=(0, 9), textcoords="offset points")
    right.set(xlabel="step", ylabel="loss", ylim=(0, None), xlim=(0, STEPS))
    save(figure, path)


def plane(axes: Axes, model: nn.MLP, where: np.ndarray, triangle: np.ndarray) -> None:
    """What the model says of 40,000 points, and the shapes that it learned from."""
    steps = torch.linspace(-VIEW, VIEW, 200)
    with torch.no_grad():
        above = model(torch.cartesian_prod(steps, steps)).reshape(200, 200).t().numpy()
    axis = steps.numpy()
    axes.contourf(axis, axis, above, levels=[-999, 0, 999], colors=[NEGATIVE, POSITIVE], alpha=0.13)
    axes.contour(axis, axis, above, levels=[0], colors=[INK], linewidths=2.2)
    axes.scatter(where[triangle, 0], where[triangle, 1], marker="^", s=34, color=POSITIVE, label="triangle")
    axes.scatter(where[~triangle, 0], where[~triangle, 1], marker="s", s=28, color=NEGATIVE, label="square")
    axes.set(xlim=(-VIEW, VIEW), ylim=(-VIEW, VIEW), xlabel="x1", ylabel="x2")
    axes.set_aspect("equal")


if __name__ == "__main__":
    run(main, __doc__)
