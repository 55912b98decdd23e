"""Networks of courses and papers, small, of whatever torch they are given: tclient, or torch itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def resnet(t: Any) -> Any:
    """A residual network in the manner of ResNet-18. (batch, 3, height, width) -> (batch, 10)."""
    nn = t.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, columns: int, rows: int, stride: int = 1) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(columns, rows, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(rows)
            self.relu = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(rows, rows, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(rows)
            self.downsample = None
            if stride != 1 or columns != rows:
                self.downsample = nn.Sequential(nn.Conv2d(columns, rows, 1, stride, bias=False), nn.BatchNorm2d(rows))

        def forward(self, x: Any) -> Any:
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += x if self.downsample is None else self.downsample(x)
            return self.relu(out)

    class ResNet(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(8)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            sizes = [(8, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
            self.layers = nn.Sequential(*[Block(*each) for each in sizes])
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            x = self.avgpool(self.layers(x))
            return self.fc(t.flatten(x, 1))

    return ResNet()


def tagger(t: Any) -> Any:
    """A tagger of words with an LSTM of two layers. (batch, length) of 50 words -> (batch, length, 5)."""
    nn = t.nn

    class Tagger(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(50, 16, padding_idx=0)
            self.lstm = nn.LSTM(16, 12, 2, batch_first=True, dropout=0.3, bidirectional=True)
            self.tags = nn.Linear(24, 5)

        def forward(self, words: Any) -> Any:
            outputs, _ = self.lstm(self.embedding(words))
            return self.tags(outputs)

    return Tagger()


def vit(t: Any) -> Any:
    """A vision transformer of patches of 8 x 8. (batch, 3, 32, 32) -> (batch, 7)."""
    nn = t.nn

    class ViT(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 8, 8)
            self.token = nn.Parameter(t.randn(1, 1, 16))
            self.positions = nn.Parameter(t.randn(1, 17, 16))
            layer = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(16)
            self.head = nn.Linear(16, 7)

        def forward(self, image: Any) -> Any:
            x = self.patches(image).flatten(2).transpose(1, 2)
            x = t.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
            return self.head(self.norm(self.encoder(x)[:, 0]))

    return ViT()


def bert(t: Any) -> Any:
    """An encoder of words as BERT is one: ids and a mask (batch, length) -> every state, and one for all."""
    nn = t.nn

    class Attention(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.output = nn.Linear(width, width)

        def forward(self, x: Any, mask: Any) -> Any:
            batch, length, width = x.shape

            def split(y: Any) -> Any:
                return y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

            query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
            scores = query @ key.transpose(-2, -1) / (width // self.heads) ** 0.5
            weights = (scores + mask).softmax(-1)
            return self.output((weights @ value).transpose(1, 2).reshape(batch, length, width))

    class Layer(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, width: int) -> None:
            super().__init__()
            self.attention = Attention(width, 4)
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            self.dropout = nn.Dropout(0.1)

        def forward(self, x: Any, mask: Any) -> Any:
            x = self.norm1(x + self.dropout(self.attention(x, mask)))
            return self.norm2(x + self.dropout(self.feed(x)))

    class Bert(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions = nn.Embedding(100, 16), nn.Embedding(64, 16)
            self.register_buffer("position_ids", t.arange(64).unsqueeze(0), persistent=False)
            self.norm = nn.LayerNorm(16)
            self.layers = nn.ModuleList([Layer(16) for _ in range(2)])
            self.pooler = nn.Linear(16, 16)

        def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
            length = input_ids.size(1)
            if attention_mask is None:
                attention_mask = t.ones_like(input_ids)
            mask = (1.0 - attention_mask[:, None, None, :].float()) * t.finfo(t.float32).min
            x = self.norm(self.words(input_ids) + self.positions(self.position_ids[:, :length]))
            for layer in self.layers:
                x = layer(x, mask)
            return {"last_hidden_state": x, "pooler_output": t.tanh(self.pooler(x[:, 0]))}

    return Bert()


def unet(t: Any) -> Any:
    """A network that goes down and up again, for sizes that are multiples of 4. (batch, 1, height, width)."""
    nn = t.nn

    class UNet(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
            self.up1, self.up2 = nn.ConvTranspose2d(8, 4, 2, 2), nn.ConvTranspose2d(8, 4, 2, 2)
            self.last = nn.Conv2d(5, 1, 1)

        def forward(self, x: Any) -> Any:
            first = t.relu(self.down1(nn.functional.max_pool2d(x, 2)))
            second = t.relu(self.down2(nn.functional.max_pool2d(first, 2)))
            up = t.cat([self.up1(second), first], dim=1)
            return t.sigmoid(self.last(t.cat([self.up2(up), x], dim=1)))

    return UNet()


NETS: dict[str, Callable[[Any], Any]] = {"resnet": resnet, "tagger": tagger, "vit": vit, "bert": bert, "unet": unet}
