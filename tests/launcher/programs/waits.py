"""A training loop that reads more than it needs to, and ends with an error where it is told to."""

import sys

import torch
from torch import nn

torch.manual_seed(0)
points = torch.randn(20, 4)
net = nn.Linear(4, 1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
total = 0.0
for _ in range(7):
    loss = net(points).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    total += loss.item()
big = torch.tensor(__import__("numpy").ones((300, 1000)))
if points[points > 0].shape[0] > 100:
    print("never")
print(f"{total:.3f}", sys.argv[1:])
if "fail" in sys.argv:
    raise KeyboardInterrupt if "--profile" in sys.argv else ValueError(big.sum().item())
