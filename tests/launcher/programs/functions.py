"""Operations with gradients of their own, and hooks: a network that learns with its own activation."""

import torch
from torch import nn
from torch.autograd import Function


class Swish(Function):
    @staticmethod
    def forward(ctx, x, beta=1.0):
        gate = torch.sigmoid(beta * x)
        ctx.save_for_backward(x, gate)
        ctx.beta = beta
        return x * gate

    @staticmethod
    def backward(ctx, grad_output):
        x, gate = ctx.saved_tensors
        return grad_output * (gate + ctx.beta * x * gate * (1 - gate)), None


class Binarize(torch.autograd.Function):
    """Straight through: the sign forward, the gradient as it is backward, within bounds."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output * (x.abs() <= 1).float()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 8)
        self.second = nn.Linear(8, 1)

    def forward(self, x):
        hidden = Swish.apply(self.first(x), 1.5)
        return self.second(hidden + 0.1 * Binarize.apply(hidden))


def main():
    torch.manual_seed(0)
    net = Net()
    norms = {}

    def remember(name):
        def hook(module, grad_input, grad_output):
            norms[name] = grad_output[0].norm().item()

        return hook

    handles = [module.register_full_backward_hook(remember(name)) for name, module in net.named_children()]
    net.first.weight.register_hook(lambda grad: grad.clamp(-0.05, 0.05))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    x = torch.rand(64, 2) * 2 - 1
    target = (x[:, :1] * x[:, 1:] > 0).float()
    for epoch in range(20):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(net(x), target)
        loss.backward()
        optimizer.step()
        if epoch % 5 == 0:
            print(epoch, f"{loss.item():.4f}", {name: round(norm, 4) for name, norm in norms.items()})
    for handle in handles:
        handle.remove()
    print(net.first.weight.grad.abs().max() <= 0.05)

    small = torch.randn(5, requires_grad=True)
    y = Swish.apply(small)
    print(y.grad_fn.name(), [fn.name() for fn, _ in y.grad_fn.next_functions])


main()
