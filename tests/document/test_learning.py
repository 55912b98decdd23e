"""Row N11: the parameters that fit the data are found on the server, step by step as torch finds them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tqdm import tqdm

from tests.document.test_examples import EXAMPLES, run_example
from tests.document.transcript import Program, Rows, Transcript, assert_same

rows = Rows()

POINTS = np.array([[0.0, 0.5], [1.0, -1.0], [-0.5, 2.0], [1.5, 1.0]], dtype=np.float32)
ANSWERS = np.array([1.0, 0.0, 1.0, 0.0], dtype=np.float32)


@rows.row("N11")
def requires_grad(torch: Any, t: Transcript) -> None:
    x = torch.ones(2, 2, requires_grad=True)
    y = torch.ones(2, 2)
    t.show(x, y, x.requires_grad, y.requires_grad, y.requires_grad_(), x.is_leaf, x.grad, x.grad_fn)
    z = (x + y) * 3
    t.show(z, z.requires_grad, z.is_leaf, z.detach(), z.detach().requires_grad, z.mean())
    y.requires_grad = False
    t.show(y, x.detach().requires_grad_(), torch.tensor([1.0], requires_grad=True))
    t.fails(lambda: torch.ones(2, dtype=torch.int64, requires_grad=True))
    t.fails(lambda: torch.arange(3).requires_grad_())
    t.fails(lambda: z.requires_grad_(False))
    t.fails(x.numpy)


@rows.row("N11")
def backward_and_grad(torch: Any, t: Transcript) -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = (x.pow(2) * 3 + x.exp()).mean()
    t.show(loss, x.grad, loss.backward(), x.grad)
    t.fails(loss.backward)
    (x * 2).sum().backward()
    t.show(x.grad)  # gradients add up
    x.grad.zero_()
    t.show(x.grad)
    x.grad = None
    t.show(x.grad)
    t.fails((x * 2).backward)
    (x * 2).backward(torch.ones(2, 2))
    t.show(x.grad)
    t.fails(lambda: torch.ones(1).sum().backward())


@rows.row("N11")
def gradients_without_backward(torch: Any, t: Transcript) -> None:
    w, b = torch.tensor([2.0, -1.0], requires_grad=True), torch.tensor(0.5, requires_grad=True)
    out = torch.sigmoid(torch.tensor([1.0, 3.0]) @ w + b)
    t.show(torch.autograd.grad(out, [w, b], retain_graph=True), w.grad, b.grad)
    y = (w**3).sum()
    (first,) = torch.autograd.grad(y, w, create_graph=True)
    t.show(first, torch.autograd.grad(first.sum(), w))
    t.fails(lambda: torch.autograd.grad(out, torch.ones(1, requires_grad=True)))


@rows.row("N11")
def no_grad(torch: Any, t: Transcript) -> None:
    w = torch.ones(3, requires_grad=True)
    t.fails(lambda: w.add_(1))
    with torch.no_grad():
        t.show(torch.is_grad_enabled(), (w * 2).requires_grad)
        w.add_(1)
        w -= 0.5
    t.show(w, w.requires_grad, torch.is_grad_enabled())

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def twice(x: Any) -> Any:
        return x * 2

    t.show(twice(w))


@rows.row("N11")
def descent_by_hand(torch: Any, t: Transcript) -> None:
    points, answers = torch.tensor(POINTS), torch.tensor(ANSWERS)
    w, b = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    for _ in range(5):
        loss = ((points @ w + b - answers) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            w -= 0.1 * w.grad
            b -= 0.1 * b.grad
        w.grad.zero_()
        b.grad = None
        t.show(loss, w, b, w.grad)


def steps_of(name: str, **options: float) -> Program:
    """The parameters of a neuron after each of five steps of an optimiser."""

    def program(torch: Any, t: Transcript) -> None:
        points, answers = torch.tensor(POINTS), torch.tensor(ANSWERS)
        neuron = torch.nn.Linear(2, 1)
        neuron.load_state_dict({"weight": torch.tensor([[0.5, -0.5]]), "bias": torch.tensor([0.25])})
        optimizer = getattr(torch.optim, name)(neuron.parameters(), **options)
        for _ in range(5):
            optimizer.zero_grad()
            t.show(neuron.weight.grad)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(neuron(points).squeeze(1), answers)
            loss.backward()
            t.show(loss, neuron.weight.grad, neuron.bias.grad)
            optimizer.step()
            t.show(neuron.weight.detach(), neuron.bias.detach())

    program.__name__ = f"step_of_{name}_{'_'.join(options)}"
    return program


rows.row("N11")(steps_of("SGD", lr=0.5))
rows.row("N11")(steps_of("SGD", lr=0.5, momentum=0.9, weight_decay=0.01))
rows.row("N11")(steps_of("Adam", lr=0.1))
rows.row("N11")(steps_of("AdamW", lr=0.1, weight_decay=0.1))


@rows.row("N11")
def a_network_that_learns(torch: Any, t: Transcript) -> None:
    torch.manual_seed(0)
    points, answers = torch.tensor(POINTS), torch.tensor(ANSWERS).reshape(-1, 1)
    network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1), torch.nn.Sigmoid())
    criterion = torch.nn.BCELoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        loss = criterion(network(points), answers)
        loss.backward()
        optimizer.step()
        t.show(loss.item(), *[parameter.detach() for parameter in network.parameters()])


@rows.parametrize()
def test_parameters_are_fitted_as_torch_fits_them(program: Program, synchronous: bool, tc: Any) -> None:
    assert_same(program, tc, synchronous=synchronous)


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples can be imported."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.usefixtures("examples")
def test_an_epoch_waits_for_its_order_and_its_figures_and_for_no_step(
    tc: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import learn_digits

    screen = io.StringIO()
    monkeypatch.setattr(
        learn_digits, "tqdm", lambda *args, **kw: tqdm(*args, **{**kw, "disable": False, "file": screen})
    )
    tc.manual_seed(0)
    digits = tc.utils.data.TensorDataset(tc.rand(640, 64), tc.randint(10, (640,)))
    network = tc.nn.Sequential(tc.nn.Linear(64, 8), tc.nn.ReLU(), tc.nn.Linear(8, 10))
    session = tc.ones(1)._ref.session
    before = session.stats.waits
    history = learn_digits.train(network, digits, digits)
    waits = session.stats.waits - before
    assert len(history.steps) == 10 * learn_digits.EPOCHS
    # A seed, an order and the figures; making the optimiser and asking for the first shapes wait, too.
    assert waits <= 3 * learn_digits.EPOCHS + 3
    assert re.search(r"learning: 100%.*loss=\d\.\d+, test=\d+\.\d%", screen.getvalue())


@pytest.mark.usefixtures("examples")
def test_fitting_the_triangles_waits_once(tc: ModuleType) -> None:
    import learn_triangles_squares
    from triangles_squares import shapes

    points, is_triangle = shapes()
    model = tc.nn.MLP([2, 1])
    session = points._ref.session
    before = session.stats.waits
    losses = learn_triangles_squares.fit(model, points, is_triangle)
    assert losses.shape == (learn_triangles_squares.STEPS,)
    assert session.stats.waits - before <= 2  # making the optimiser, and the losses at the end


def test_the_digits_are_learned_saved_and_drawn(server: Any, tmp_path: Path) -> None:
    done = run_example("learn_digits", "--address", server.address, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = re.search(r"test accuracy: ([\d.]+)%", done.stdout)
    assert accuracy is not None, done.stdout
    assert float(accuracy[1]) >= 97.0
    assert f"saved and loaded again: {accuracy[1]}%" in done.stdout
    assert (tmp_path / "learn_digits.png").is_file()
    assert (tmp_path / "digits.safetensors").is_file()
