"""The demo: a tour of the tensors, then real data.

scikit-learn fits a network to its handwritten digits on this machine. The weights go to the server, which classifies
the test images by a forward pass there. Every answer must be the one that scikit-learn gives.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import tour
from _pictures import NEGATIVE, POSITIVE, panels, save
from _server import run
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import tclient as torch
from tclient import nn

FORWARDS = 300


def main(out: Path) -> None:
    """Tour, fit, send, classify, compare, measure, draw."""
    info = torch.server_info()
    device = info.devices[0]
    print(f"server {info.version}, torch {info.torch_version}, tensors on {device.name} ({device.description})")
    tour.main(out)

    tour.chapter("Handwritten digits")
    digits = load_digits()
    train, images, train_labels, labels = train_test_split(
        (digits.data / 16).astype(np.float32), digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    local = MLPClassifier((64, 32), random_state=0, max_iter=300)
    began = time.perf_counter()
    local.fit(train, train_labels)
    print(f"fitted here by scikit-learn: {len(train)} images in {time.perf_counter() - began:.1f} s")

    network = nn.MLP([64, 64, 32, 10], activation="relu")
    network.load_state_dict(weights_of(local))
    print(f"on the server: {network.parameter_count()} parameters in {network}")

    batch = torch.tensor(images)
    with torch.no_grad():
        scores = torch.softmax(network(batch), dim=1)
    predictions = scores.argmax(1).numpy()
    agreement = float((predictions == local.predict(images)).mean())
    print(f"test images: {len(images)}")
    print(f"accuracy: {float((predictions == labels).mean()):.1%}")
    print(f"agreement with the local prediction: {agreement:.1%}")
    measure(network, batch)
    draw(images, predictions, labels, out / "digits.png")
    if agreement < 1.0:
        raise SystemExit("the server and scikit-learn do not agree on every image")


def weights_of(classifier: MLPClassifier) -> dict[str, np.ndarray]:
    """The weights by the names of the server's network: layers 0, 2, 4, with activations between them."""
    state: dict[str, np.ndarray] = {}
    for number, (weight, bias) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        state[f"{2 * number}.weight"] = weight.T.astype(np.float32)  # torch keeps a row for each neuron
        state[f"{2 * number}.bias"] = bias.astype(np.float32)
    return state


def measure(network: nn.Module, batch: torch.Tensor) -> None:
    """Forward passes on the whole batch, one after another, and one image there and back."""
    with torch.no_grad():
        torch.synchronize()
        began = time.perf_counter()
        for _ in range(FORWARDS):
            last = network(batch)
        last.sum().item()
        seconds = time.perf_counter() - began
        print(f"throughput: {FORWARDS / seconds:,.0f} forwards/s, {FORWARDS * len(batch) / seconds:,.0f} rows/s")

        one = batch[:1].numpy()
        waits = []
        for _ in range(50):
            began = time.perf_counter()
            network(torch.tensor(one)).argmax(1).item()
            waits.append(time.perf_counter() - began)
        print(f"one image sent, classified and answered: {1000 * float(np.median(waits)):.2f} ms (median)")


def draw(images: np.ndarray, predictions: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Images with their predictions; mistakes first, then others."""
    wrong = np.flatnonzero(predictions != labels)
    others = np.flatnonzero(predictions == labels)
    chosen = np.concatenate([wrong, others])[:40]
    figure, axes = panels(10, 10, 5.2, rows=4)
    for panel, index in zip(axes, chosen, strict=True):
        right = predictions[index] == labels[index]
        panel.imshow(images[index].reshape(8, 8), cmap="gray_r", interpolation="nearest")
        panel.set_xticks([])
        panel.set_yticks([])
        colour = POSITIVE if right else NEGATIVE
        for spine in panel.spines.values():
            spine.set(visible=True, color=colour, linewidth=2 if right else 3)
        text = str(predictions[index]) if right else f"{predictions[index]} (is {labels[index]})"
        panel.set_title(text, color=colour, fontsize=13 if right else 11)
    figure.suptitle(f"{len(labels)} test images, {len(wrong)} mistakes: those first", fontsize=12)
    save(figure, path)


if __name__ == "__main__":
    run(main, __doc__)
