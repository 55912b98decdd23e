"""A training loop, whose losses are printed bit by bit: by address, optimiser, steps, and when it reads them."""

import sys

import tclient as torch
from tclient import nn


def main(address: str, kind: str, steps: int, reads: str) -> None:
    """Train for so many steps, and print each loss, and a digest of what was learned."""
    torch.connect(address)
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm1d(32), nn.Linear(32, 1))
    momentum = {"momentum": 0.9, "nesterov": True} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(net.parameters(), lr=0.01, **momentum)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.9)
    losses = []
    total = torch.zeros(())
    for step in range(steps):
        x = torch.randn(16, 8)
        loss = nn.functional.mse_loss(net(x), x.sum(1, keepdim=True))
        if reads == "before":
            print(f"{step} {float(loss).hex()}", flush=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.detach()
        losses.append(loss)
        if reads == "behind":
            print(f"{step} {float(loss).hex()}", flush=True)
        elif reads == "seldom" and step % 50 == 49:
            print(f"{step} {float(total).hex()}", flush=True)
    print("sum", sum(map(float, losses), 0.0).hex())
    for name, value in net.state_dict().items():
        print(name, float(value.double().abs().sum()).hex(), flush=True)
    # Until whoever has begun this has it end; and then it has come back from a restart, if there was one meanwhile.
    sys.stdin.read()
    torch.synchronize()
    total.item()


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
