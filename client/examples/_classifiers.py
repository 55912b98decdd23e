"""BERT, ViT and ResNet for classification, each built from the config of a model of Hugging Face.

Their submodules have the names that the files have, so that `load_state_dict` finds each tensor a place and each place
a tensor. They are for use, not for training: they leave out dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import tclient as torch
from tclient import nn

Config = dict[str, Any]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


def classes_of(config: Config) -> int:
    """How many classes there are; two, where a config does not say."""
    return len(config.get("id2label", "01"))


# ---- what BERT and ViT have in common --------------------------------------------------------------------------------


class Dense(nn.Module):
    """A Linear, which the files call "dense", and what its outputs go through."""

    def __init__(self, inputs: int, outputs: int, activation: str | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)
        self.activation = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, x: torch.Tensor) -> Any:
        """(…, inputs) -> (…, outputs)."""
        return self.activation(self.dense(x))


class SelfAttention(nn.Module):
    """Each position asks all positions, by several heads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, bias = config["hidden_size"], config.get("qkv_bias", True)
        self.heads: int = config["num_attention_heads"]
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        """(batch, length, width) -> the same; mask is (batch, 1, 1, length), true where a position may be asked."""
        batch, length, width = x.shape

        def split(each: torch.Tensor) -> Any:
            return each.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        heard = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return heard.transpose(1, 2).reshape(batch, length, width)


# ---- BERT ------------------------------------------------------------------------------------------------------------


class BertEmbeddings(nn.Module):
    """What a token is, where it stands, and in which of two texts."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], width, padding_idx=config.get("pad_token_id"))
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], width)
        self.LayerNorm = nn.LayerNorm(width, eps=config["layer_norm_eps"])

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> Any:
        """(batch, length) twice -> (batch, length, width)."""
        tokens = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.LayerNorm(tokens + self.position_embeddings.weight[: input_ids.shape[1]])


class BertOutput(nn.Module):
    """What a part of a layer found is added to what it began with."""

    def __init__(self, inputs: int, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, found: torch.Tensor, x: torch.Tensor) -> Any:
        """(…, inputs) and (…, width) -> (…, width)."""
        return self.LayerNorm(self.dense(found) + x)


class BertAttention(nn.Module):
    """Attention of a layer, and its output."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = BertOutput(config["hidden_size"], config)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        """(batch, length, width) -> the same."""
        return self.output(self.self(x, mask), x)


class BertLayer(nn.Module):
    """Attention, then a small network for each position."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = Dense(config["hidden_size"], config["intermediate_size"], config["hidden_act"])
        self.output = BertOutput(config["intermediate_size"], config)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        """(batch, length, width) -> the same."""
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class BertEncoder(nn.Module):
    """Layers in a row."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, length, width) -> the same."""
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Bert(nn.Module):
    """A text, as one vector."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = Dense(config["hidden_size"], config["hidden_size"], "tanh")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> Any:
        """(batch, length) each -> (batch, width), of the first token."""
        mask = attention_mask[:, None, None, :] > 0
        return self.pooler(self.encoder(self.embeddings(input_ids, token_type_ids), mask)[:, 0])


class BertForSequenceClassification(nn.Module):
    """Texts into classes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.bert = Bert(config)
        self.classifier = nn.Linear(config["hidden_size"], classes_of(config))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> Any:
        """Tokens, 1 where there is one and 0 where there is padding, and 0 or 1 for its text -> (batch, classes)."""
        return self.classifier(self.bert(input_ids, attention_mask, token_type_ids))


# ---- ViT -------------------------------------------------------------------------------------------------------------


class ViTEmbeddings(nn.Module):
    """A picture as a row of patches, behind a first position that is for the class."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, size = config["hidden_size"], config["patch_size"]
        patches = (config["image_size"] // size) ** 2
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.randn(1, patches + 1, width))
        projection = nn.Conv2d(config["num_channels"], width, size, stride=size)
        self.patch_embeddings = nn.ModuleDict({"projection": projection})

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) -> (batch, 1 + patches, width)."""
        patches = self.patch_embeddings["projection"](pixel_values).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(pixel_values.shape[0], -1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embeddings


class ViTAttention(nn.Module):
    """Attention of a layer, and its output."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.output = Dense(config["hidden_size"], config["hidden_size"])

    def forward(self, x: torch.Tensor) -> Any:
        """(batch, length, width) -> the same."""
        return self.output(self.attention(x))


class ViTLayer(nn.Module):
    """Attention, then a small network for each position; both add to what they are given."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.layernorm_before = nn.LayerNorm(width, eps=config["layer_norm_eps"])
        self.attention = ViTAttention(config)
        self.layernorm_after = nn.LayerNorm(width, eps=config["layer_norm_eps"])
        self.intermediate = Dense(width, config["intermediate_size"], config["hidden_act"])
        self.output = Dense(config["intermediate_size"], width)

    def forward(self, x: torch.Tensor) -> Any:
        """(batch, length, width) -> the same."""
        x = x + self.attention(self.layernorm_before(x))
        return x + self.output(self.intermediate(self.layernorm_after(x)))


class ViT(nn.Module):
    """A picture, as one vector."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = ViTEmbeddings(config)
        layers = nn.Sequential(*(ViTLayer(config) for _ in range(config["num_hidden_layers"])))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.layernorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """(batch, channels, height, width) -> (batch, width), of the first position."""
        return self.layernorm(self.encoder["layer"](self.embeddings(pixel_values)))[:, 0]


class ViTForImageClassification(nn.Module):
    """Pictures into classes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.vit = ViT(config)
        self.classifier = nn.Linear(config["hidden_size"], classes_of(config))

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """(batch, channels, height, width) -> (batch, classes)."""
        return self.classifier(self.vit(pixel_values))


# ---- ResNet ----------------------------------------------------------------------------------------------------------


class Convolution(nn.Module):
    """A convolution, normalised, and what it goes through."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, activation: str | None = None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)
        self.activation = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, x: torch.Tensor) -> Any:
        """(batch, inputs, height, width) -> (batch, outputs, …)."""
        return self.activation(self.normalization(self.convolution(x)))


class ResNetLayer(nn.Module):
    """Convolutions, and a way around them."""

    def __init__(self, config: Config, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        act = config["hidden_act"]
        self.shortcut = Convolution(inputs, outputs, 1, stride) if (inputs, stride) != (outputs, 1) else nn.Identity()
        if config["layer_type"] == "basic":
            self.layer = nn.Sequential(
                Convolution(inputs, outputs, 3, stride, act),
                Convolution(outputs, outputs, 3),
            )
        else:
            narrow = outputs // 4
            first, second = (stride, 1) if config.get("downsample_in_bottleneck") else (1, stride)
            self.layer = nn.Sequential(
                Convolution(inputs, narrow, 1, first, act),
                Convolution(narrow, narrow, 3, second, act),
                Convolution(narrow, outputs, 1),
            )
        self.activation = ACTIVATIONS[act]()

    def forward(self, x: torch.Tensor) -> Any:
        """(batch, inputs, height, width) -> (batch, outputs, …)."""
        return self.activation(self.layer(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A picture, as one vector."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = [config["embedding_size"], *config["hidden_sizes"]]
        first = Convolution(config["num_channels"], widths[0], 7, 2, config["hidden_act"])
        self.embedder = nn.ModuleDict({"embedder": first})
        self.pooler = nn.MaxPool2d(3, stride=2, padding=1)
        stages: list[nn.Module] = []
        for (inputs, outputs), depth in zip(pairwise(widths), config["depths"], strict=True):
            stride = 2 if stages or config.get("downsample_in_first_stage") else 1
            layers = [ResNetLayer(config, inputs, outputs, stride)]
            layers += [ResNetLayer(config, outputs, outputs, 1) for _ in range(depth - 1)]
            stages.append(nn.ModuleDict({"layers": nn.Sequential(*layers)}))
        self.encoder = nn.ModuleDict({"stages": nn.ModuleList(stages)})

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """(batch, channels, height, width) -> (batch, width), the mean over the picture."""
        x = self.pooler(self.embedder["embedder"](pixel_values))
        for stage in self.encoder["stages"]:
            x = stage["layers"](x)
        return x.mean((2, 3))


class ResNetForImageClassification(nn.Module):
    """Pictures into classes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.resnet = ResNet(config)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(config["hidden_sizes"][-1], classes_of(config)))

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """(batch, channels, height, width) -> (batch, classes)."""
        return self.classifier(self.resnet(pixel_values))


MODULES: dict[str, Callable[[Config], nn.Module]] = {
    "BertForSequenceClassification": BertForSequenceClassification,
    "ViTForImageClassification": ViTForImageClassification,
    "ResNetForImageClassification": ResNetForImageClassification,
}
