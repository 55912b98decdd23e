"""Networks that learn on the server, side by side with the same network in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

RANDOM = np.random.default_rng(0)
POINTS = RANDOM.uniform(-1, 1, (64, 2)).astype(np.float32)
INSIDE = (np.abs(POINTS).sum(1) < 0.7).astype(np.int64)
IMAGES = RANDOM.standard_normal((6, 1, 8, 8)).astype(np.float32)
WORDS = RANDOM.integers(0, 20, (6, 5))
LABELS = RANDOM.integers(0, 3, 6)


def image_classifier(nn: Any) -> Any:
    """A small convolutional network."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 16),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(16, 3),
    )


def text_classifier(nn: Any) -> Any:
    """An embedding, a recurrent layer and attention, put together by hand."""

    class Reader(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8, padding_idx=0)
            self.recurrent = nn.GRU(8, 8, batch_first=True, bidirectional=True)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
            self.norm = nn.LayerNorm(16)
            self.head = nn.Linear(16, 3)

        def forward(self, words: Any) -> Any:
            states, _ = self.recurrent(self.embedding(words))
            attended, _ = self.attention(states, states, states)
            return self.head(self.norm(states + attended).mean(dim=1))

    return Reader()


TASKS: dict[str, tuple[Callable[[Any], Any], np.ndarray, np.ndarray]] = {
    "points": (lambda nn: nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)), POINTS, INSIDE),
    "images": (image_classifier, IMAGES, LABELS),
    "words": (text_classifier, WORDS, LABELS),
}


@pytest.mark.parametrize(("make", "inputs", "labels"), TASKS.values(), ids=TASKS.keys())
def test_a_network_learns_as_in_torch_step_by_step(
    tc: Any, make: Callable[[Any], Any], inputs: np.ndarray, labels: np.ndarray
) -> None:
    histories = []
    for namespace in (tc, torch):
        namespace.manual_seed(1)
        network = make(namespace.nn)
        criterion = namespace.nn.CrossEntropyLoss()
        # Adam would blow up the last bits of gradients that are all but zero, as those before a normalisation are.
        optimizer = namespace.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        schedule = namespace.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
        x, wanted = namespace.tensor(inputs), namespace.tensor(labels)
        losses = []
        for _ in range(8):
            optimizer.zero_grad()
            loss = criterion(network(x), wanted)
            loss.backward()
            namespace.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss)
        with namespace.no_grad():
            output = network.eval()(x)
        histories.append(([loss.item() for loss in losses], output.numpy()))
    np.testing.assert_allclose(histories[0][0], histories[1][0], rtol=1e-4)
    np.testing.assert_allclose(histories[0][1], histories[1][1], rtol=1e-3, atol=1e-4)


def test_a_step_of_training_does_not_wait(tc: Any) -> None:
    network = tc.nn.MLP([2, 8, 8, 2])
    criterion = tc.nn.CrossEntropyLoss()
    optimizer = tc.optim.Adam(network.parameters())
    x, wanted = tc.tensor(POINTS), tc.tensor(INSIDE)
    session = tc._session.current.current()
    session.synchronize()
    before = session.stats.waits, session.stats.calls
    for _ in range(5):
        optimizer.zero_grad()
        loss = criterion(network(x), wanted)
        loss.backward()
        optimizer.step()
    assert session.stats.waits == before[0]
    session.synchronize()
    # zero_grad, forward, loss, backward, step; and the network once.
    assert session.stats.calls - before[1] == 5 * 5 + 1
    assert loss.item() > 0


def test_points_that_no_line_separates_are_separated(tc: Any) -> None:
    tc.manual_seed(0)
    network = tc.nn.MLP([2, 16, 16, 2], activation="tanh")
    optimizer = tc.optim.Adam(network.parameters(), lr=0.02)
    x, wanted = tc.tensor(POINTS), tc.tensor(INSIDE)
    for _ in range(250):
        optimizer.zero_grad()
        tc.nn.functional.cross_entropy(network(x), wanted).backward()
        optimizer.step()
    assert (network(x).argmax(1) == wanted).float().mean().item() == 1.0


def test_dropped_models_and_optimisers_leave_nothing_on_the_server(tc: Any) -> None:
    def allocated() -> int:
        tc.zeros(1)  # takes along what was dropped before it
        tc.synchronize()
        return int(next(device for device in tc.server_info().devices if device.name == "cpu").allocated_bytes)

    def train() -> int:
        network = tc.nn.MLP([2, 300_000, 2])
        optimizer = tc.optim.Adam(network.parameters())
        network(tc.tensor(POINTS[:1])).sum().backward()
        optimizer.step()
        return allocated()

    before = allocated()
    assert train() - before > 4 * 1_500_000
    assert allocated() - before < 1_000_000


def test_a_step_after_a_failed_backward_is_told_of_it(tc: Any) -> None:
    network = tc.nn.MLP([2, 4, 2])
    optimizer = tc.optim.SGD(network.parameters(), lr=0.1)
    network(tc.tensor(POINTS)).backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        tc.synchronize()
