"""A softmax over many classes, most of which are rare: rare ones share an entry, and have a softmax of their own.

Knows clusters of classes. Which rows belong to which is read from the server. Source: Grave and others (2016).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import tclient
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.container import ModuleList, Sequential
from tclient.nn.linear import Linear
from tclient.nn.module import Module

_ASMoutput = namedtuple("_ASMoutput", ["output", "loss"])


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of the targets, and their negative mean. Shapes: (N, in_features) and (N,), or one row."""

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        bounds = list(cutoffs)
        if not bounds:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if (
            bounds != sorted(set(bounds))
            or bounds[0] <= 0
            or bounds[-1] > n_classes - 1
            or any(int(bound) != bound for bound in bounds)
        ):
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing order, where each "
                "value is between 1 and n_classes-1"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*bounds, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = bounds[0]
        self.n_clusters = len(bounds)
        self.head_size = self.shortlist_size + self.n_clusters
        where = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, self.head_bias, **where)
        self.tail = ModuleList()
        for index in range(self.n_clusters):
            hidden = int(in_features // (div_value ** (index + 1)))
            outputs = self.cutoffs[index + 1] - self.cutoffs[index]
            self.tail.append(
                Sequential(Linear(in_features, hidden, False, **where), Linear(hidden, outputs, False, **where))
            )

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self.head.reset_parameters()
        for inner, outer in self.tail:
            inner.reset_parameters()
            outer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> Any:
        """The log-probability of each target, and the loss."""
        _check(input_, target_)
        single = target_.dim() == 0
        input = input_.unsqueeze(0) if single else input_
        target = target_.unsqueeze(0) if single else target_
        output = input.new_empty(target.size(0))
        entries = tclient.empty_like(target)
        used = 0
        for index, (low, high) in enumerate(zip([0, *self.cutoffs], self.cutoffs, strict=False)):
            rows = ((target >= low) & (target < high)).nonzero().squeeze(1)
            count = rows.numel()
            if count == 0:
                continue
            used += count
            if index == 0:
                entries.index_copy_(0, rows, target[rows])
                continue
            entries.index_fill_(0, rows, self.shortlist_size + index - 1)
            logarithms = F.log_softmax(self.tail[index - 1](input.index_select(0, rows)), dim=1)
            own = (target[rows] - low).unsqueeze(1)
            output.index_copy_(0, rows, logarithms.gather(1, own).squeeze(1))
        if used != target.size(0):
            raise RuntimeError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range "
                f"[{target.min().item()}, {target.max().item()}] were found. "
            )
        head = F.log_softmax(self.head(input), dim=1)
        output = output + head.gather(1, entries.unsqueeze(1)).squeeze()
        loss = (-output).mean()
        return _ASMoutput(output.squeeze(0) if single else output, loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probability of every class. Shapes: (N, in_features) -> (N, n_classes)."""
        return self._all(input, self.head(input))

    def _all(self, input: Tensor, head: Tensor) -> Tensor:
        logarithms = F.log_softmax(head, dim=1)
        parts = [logarithms[:, : self.shortlist_size]]
        for index, cluster in enumerate(self.tail):
            within = F.log_softmax(cluster(input), dim=1)
            parts.append(within + logarithms[:, self.shortlist_size + index].unsqueeze(1))
        return tclient.cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The class of the greatest probability. Shapes: (N, in_features) -> (N,)."""
        head = self.head(input)
        best = head.argmax(dim=1)
        rare = best >= self.shortlist_size
        # Where the best entry is that of a cluster, the best class of all decides, as in torch.
        return tclient.where(rare, self._all(input, head).argmax(dim=1), best)


def _check(input: Tensor, target: Tensor) -> None:
    dims, rows = target.dim(), input.dim()
    if dims == 1:
        if input.shape[0] != target.shape[0]:
            raise RuntimeError("Input and target should have the same size in the batch dimension.")
        if rows != 2:
            raise RuntimeError(f"1D target tensor expects 2D input tensors, but found inputs with size {input.size()}")
    elif dims == 0:
        if rows != 1:
            raise RuntimeError(f"0D target tensor expects 1D input tensors, but found inputs with size {input.size()}")
    else:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
