"""A network learns to read handwritten digits on the server.

scikit-learn's 1,797 images go there once. Batches in a random order, losses, gradients and steps stay there: an epoch
waits for the order of its images and for the figures that the progress bar shows, and for none of its steps.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _pictures import FAINT, INK, NEGATIVE, POSITIVE, panels, save
from _server import run
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import tclient as torch
from tclient import nn
from tclient.utils.data import DataLoader, TensorDataset

EPOCHS = 30
BATCH = 64


class History(NamedTuple):
    """What was seen on the way: the loss of each step, and of each epoch the loss and accuracy on the test images."""

    steps: list[float]
    test_loss: list[float]
    test_accuracy: list[float]


def main(out: Path) -> None:
    """Train, save, load again, and draw how it went."""
    digits = load_digits()
    images, test_images, labels, test_labels = train_test_split(
        (digits.data / 16).astype(np.float32), digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    torch.manual_seed(0)
    learned_from = TensorDataset(torch.tensor(images), torch.tensor(labels))
    held_out = TensorDataset(torch.tensor(test_images), torch.tensor(test_labels))
    network = make_network()

    began = time.perf_counter()
    history = train(network, learned_from, held_out)
    seconds = time.perf_counter() - began
    print(f"{EPOCHS} epochs, {len(history.steps)} steps in {seconds:.1f} s")
    print(f"loss: {history.steps[0]:.3f} -> {np.mean(history.steps[-20:]):.3f}")
    print(f"test images: {len(held_out)}")
    print(f"test accuracy: {history.test_accuracy[-1]:.1%}")

    file = out / "digits.safetensors"
    torch.save(network.state_dict(), file)
    again = make_network()
    again.load_state_dict(torch.load(file))
    print(f"saved and loaded again: {evaluate(again, held_out)[1].item():.1%}")
    draw(history, out / "learn_digits.png")
    if history.test_accuracy[-1] < 0.97:
        raise SystemExit("the network did not learn to read 97% of the test images")


def make_network() -> nn.Sequential:
    """64 pixels, 256 hidden neurons, ten digits."""
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 10))


def train(network: nn.Module, learned_from: TensorDataset, held_out: TensorDataset) -> History:
    """The usual loop. What it reads of the server, it reads once an epoch."""
    loader = DataLoader(learned_from, batch_size=BATCH, shuffle=True, drop_last=True)
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    history = History([], [], [])
    progress = tqdm(range(EPOCHS), desc="learning", unit="epoch", disable=None)
    for _ in progress:
        network.train()
        losses = []
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_of(network(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        schedule.step()
        *steps, test_loss, accuracy = torch.stack([*losses, *evaluate(network, held_out)]).tolist()
        history.steps.extend(steps)
        history.test_loss.append(test_loss)
        history.test_accuracy.append(accuracy)
        progress.set_postfix(loss=f"{np.mean(steps):.3f}", test=f"{accuracy:.1%}")
    return history


def evaluate(network: nn.Module, held_out: TensorDataset) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and the accuracy on images that it has not learned from; does not wait."""
    images, labels = held_out.tensors
    network.eval()
    with torch.no_grad():
        scores = network(images)
        return nn.functional.cross_entropy(scores, labels), (scores.argmax(1) == labels).float().mean()


def draw(history: History, path: Path) -> None:
    """The loss step by step, and what the network can do after each epoch."""
    figure, (left, right) = panels(2, 11, 4.4)
    steps_per_epoch = len(history.steps) // EPOCHS
    epochs = np.arange(1, EPOCHS + 1)
    means = np.reshape(history.steps, (EPOCHS, steps_per_epoch)).mean(1)

    left.set_title("Loss", loc="left")
    left.plot(np.arange(1, len(history.steps) + 1) / steps_per_epoch, history.steps, color=FAINT, linewidth=0.8)
    left.plot([], [], color=FAINT, linewidth=0.8, label="each step")
    left.plot(epochs, means, color=INK, linewidth=2.5, label="learned from, mean of the epoch")
    left.plot(epochs, history.test_loss, color=NEGATIVE, linewidth=2.5, label="test images")
    left.set(xlabel="epoch", yscale="log", xlim=(0, EPOCHS))
    left.legend()

    right.set_title(f"Test images read right: {history.test_accuracy[-1]:.1%}", loc="left")
    right.plot(epochs, np.multiply(history.test_accuracy, 100), color=POSITIVE, linewidth=2.5, marker="o", markersize=4)
    right.axhline(97, color=FAINT, linestyle=":")
    right.annotate("97%", (0, 97), xytext=(4, 4), textcoords="offset points", color=FAINT)
    right.set(xlabel="epoch", ylabel="percent", xlim=(0, EPOCHS + 0.5))
    save(figure, path)


if __name__ == "__main__":
    run(main, __doc__)
