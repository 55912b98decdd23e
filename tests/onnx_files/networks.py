"""Networks that are exported as people export them: in torch, and small."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        is_same = stride == 1 and channels == out
        self.around = nn.Sequential(
            *(() if is_same else (nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)))
        )

    def forward(self, x: Any) -> Any:
        """Shapes: (n, channels, h, w) -> (n, out, h / stride, w / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.around(x))


class ResNet(nn.Module):
    """A residual network, as torchvision's are built."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 8, 1), Block(8, 8, 1))
        self.layer2 = nn.Sequential(Block(8, 16, 2), Block(16, 16, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Any) -> Any:
        """Shapes: (n, 3, h, w) -> (n, 10)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))


class Attention(nn.Module):
    """Self-attention with the reshapes that BERT has."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)

    def split(self, x: Any) -> Any:
        """Shapes: (n, steps, width) -> (n, heads, steps, size)."""
        return x.view(*x.size()[:-1], self.heads, self.size).permute(0, 2, 1, 3)

    def forward(self, x: Any, mask: Any) -> Any:
        """Shapes: (n, steps, width), (n, 1, 1, steps) -> (n, steps, width)."""
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.size) + mask
        mixed = torch.matmul(torch.softmax(scores, -1), value).permute(0, 2, 1, 3).contiguous()
        return mixed.view(*mixed.size()[:-2], self.heads * self.size)


class Encoder(nn.Module):
    """One layer of BERT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.dense, self.norm1 = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm2, self.dropout = nn.LayerNorm(width, eps=1e-12), nn.Dropout(0.1)

    def forward(self, x: Any, mask: Any) -> Any:
        """Shapes: (n, steps, width), (n, 1, 1, steps) -> (n, steps, width)."""
        x = self.norm1(x + self.dropout(self.dense(self.attention(x, mask))))
        return self.norm2(x + self.dropout(self.down(nn.functional.gelu(self.up(x)))))


class Bert(nn.Module):
    """An encoder of texts with positions, masks and a pooled output."""

    def __init__(self, width: int = 16, heads: int = 4, words: int = 50, longest: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width, padding_idx=0)
        self.positions, self.types = nn.Embedding(longest, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layer = nn.ModuleList(Encoder(width, heads) for _ in range(2))
        self.pooler = nn.Linear(width, width)
        self.register_buffer("position_ids", torch.arange(longest).expand(1, -1))

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Shapes: (n, steps), (n, steps) -> (n, steps, width), (n, width)."""
        types = torch.zeros_like(input_ids)
        positions = self.position_ids[:, : input_ids.shape[1]]  # type: ignore[index]
        x = self.norm(self.words(input_ids) + self.types(types) + self.positions(positions))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layer:
            x = layer(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


def exported(network: nn.Module, inputs: tuple[Any, ...], opset: int, *, by_export: bool, **options: Any) -> bytes:
    """The network as a file of ONNX, by the older exporter or the one that stands on torch.export."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if by_export:
            made = torch.onnx.export(network, inputs, dynamo=True, opset_version=opset, verbose=False, **options)
            assert made is not None
            return made.model_proto.SerializeToString()
        file: Any = io.BytesIO()
        torch.onnx.export(network, inputs, file, dynamo=False, opset_version=opset, **options)
        data: bytes = file.getvalue()
        return data
