"""Networks, losses, optimisers and sessions as people write them: a type checker takes every line. Never run."""

from __future__ import annotations

import tclient
import tclient as torch
import tclient.nn.functional as F
from tclient import Tensor, nn, optim
from tclient.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.first = nn.Linear(64, width)
        self.drop = nn.Dropout(0.1)
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.first(x), inplace=True)
        return F.log_softmax(self.last(self.drop(x)), dim=1)


def train(net: nn.Module, inputs: Tensor, targets: Tensor) -> list[float]:
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=10)
    losses: list[float] = []
    net.train()
    for start in range(0, len(inputs), 32):
        optimizer.zero_grad()
        output = net(inputs[start : start + 32])
        loss = criterion(output, targets[start : start + 32])
        loss = loss + F.mse_loss(output, output.detach()) + F.nll_loss(output, targets, reduction="mean")
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def epochs(net: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=64, shuffle=True)
    optimizer = optim.Adam(net.parameters(), lr=1e-3)
    for epoch in range(3):
        running = 0.0
        for batch, wanted in loader:
            loss = F.cross_entropy(net(batch), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item() * batch.size(0)
        print(epoch, running / len(loader))
    torch.save(net.state_dict(), "net.safetensors")
    net.load_state_dict(torch.load("net.safetensors"))


def accuracy(net: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    net.eval()
    with torch.no_grad():
        predicted = net(inputs).argmax(dim=1)
        correct: float = (predicted == targets).float().mean().item()
    return correct


@torch.no_grad()
def freeze(net: nn.Module) -> None:
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(False)
        print(name, tuple(parameter.shape), parameter.dtype)


def by_hand(model: nn.Linear, x: Tensor) -> Tensor:
    return x @ model.weight.T + model.bias


def session(address: str) -> None:
    with tclient.connect(address, timeout_s=5.0) as session:
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1)
        print(torch.randn(2, 3, generator=generator), session.stats.waits, tclient.server_info().devices)
        with tclient.synchronous(True):
            net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        net.load_state_dict(net.state_dict())
        freeze(net)
        tclient.synchronize()
    try:
        torch.ones(2) @ torch.ones(3)
    except tclient.TensorError as error:
        print(error.operation)


async def reading(x: Tensor) -> float:
    array = await x.numpy_async()
    await tclient.synchronize_async()
    return float(array.sum())
