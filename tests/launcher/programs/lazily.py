"""Layers that learn their shapes, pruned, normalised by their largest singular value, and fitted by L-BFGS."""

import torch
from torch import nn
from torch.nn.utils import parametrizations, prune


class Net(nn.Module):
    """A small convolutional network, as courses write it now."""

    def __init__(self, classes=3):
        super().__init__()
        self.net = nn.Sequential(
            nn.LazyConv2d(4, kernel_size=3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes)
        )

    def forward(self, x):
        return self.net(x)


def init(module):
    """Weights as Glorot draws them."""
    if type(module) in (nn.Linear, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)


torch.manual_seed(0)
x, y = torch.rand(12, 1, 6, 6), torch.randint(0, 3, (12,))
net = Net()
print(net)
net(x[:2])
net.apply(init)
print(net)
print([(name, tuple(parameter.shape)) for name, parameter in net.named_parameters()])

net = torch.compile(net, backend="eager")
optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=6, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    return loss


losses = [optimizer.step(closure).item() for _ in range(2)]
print(losses[1] < losses[0], next(iter(net.state_dict())))

head = net._orig_mod.net[-1]
prune.l1_unstructured(head, name="weight", amount=0.5)
print(int((head.weight == 0).sum()), sorted(name for name, _ in head.named_buffers()), prune.is_pruned(net))
prune.remove(head, "weight")
parametrizations.spectral_norm(head, n_power_iterations=20)
print(head, f"{torch.linalg.matrix_norm(head(torch.eye(head.in_features)) - head.bias, 2).item():.3f}")
