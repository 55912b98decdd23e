"""A first course: fit a line by gradient descent, written as for torch."""

import sys

import torch
import torch.nn as nn
from torch import optim
from torch.nn.parameter import Parameter
from torch.optim.lr_scheduler import StepLR


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = Parameter(torch.zeros(1))
        self.offset = Parameter(torch.zeros(1))

    def forward(self, x):
        return self.slope * x + self.offset


def main():
    torch.manual_seed(int(sys.argv[1]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.linspace(-1, 1, 50, device=device)
    y = 3 * x - 1
    model = Line().to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    scheduler = StepLR(optimizer, step_size=20, gamma=0.5)
    for epoch in range(40):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        if epoch % 10 == 0:
            print(f"{epoch}: {loss.item():.5f}, lr {scheduler.get_last_lr()[0]}")
    print(model)
    print(model.slope, isinstance(model.slope, torch.Tensor), x.dtype == torch.float32)
    print(sys.argv, __name__, torch.__version__ >= (2, 0), torch.__version__ > "10.1", torch.__version__)


if __name__ == "__main__":
    main()
