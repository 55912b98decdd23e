"""Models from Hugging Face, run on the server: BERT, ViT and ResNet from a folder as their hub has it.

A folder has `config.json` and `model.safetensors`, or several files and an index. The module is built from the config
(_classifiers.py), and takes the weights by their names.

    python hugging_face.py bert-folder vit-folder   # run these, with inputs at random, and serve them
    python hugging_face.py --make FOLDER            # write small ones with random weights there, and run them
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from _classifiers import MODULES, Config
from _server import run

import tclient as torch
from tclient import nn


def config_of(folder: Path) -> Config:
    """What the folder says of its model."""
    config: Config = json.loads((folder / "config.json").read_text())
    if config["architectures"][0] not in MODULES:
        raise SystemExit(f"{folder} has a {config['architectures'][0]}; known are {', '.join(MODULES)}")
    return config


def build(config: Config) -> nn.Module:
    """The module that a config describes, with weights at random."""
    return MODULES[config["architectures"][0]](config)


def load(folder: Path) -> nn.Module:
    """The module of a folder, with its weights."""
    module = build(config_of(folder))
    index = folder / "model.safetensors.index.json"
    module.load_state_dict(torch.load(index if index.is_file() else folder / "model.safetensors"), strict=True)
    return module.eval()


def inputs_of(config: Config, batch: int) -> dict[str, torch.Tensor]:
    """Inputs at random, by their names."""
    if config["model_type"] != "bert":
        size = config.get("image_size", 224)
        return {"pixel_values": torch.randn(batch, config["num_channels"], size, size)}
    length = min(12, config["max_position_embeddings"])
    positions = torch.arange(length).expand(batch, length)
    ends = length - torch.arange(batch).reshape(batch, 1) % length  # each text is shorter than the one before it
    return {
        "input_ids": torch.randint(config["vocab_size"], (batch, length)),
        "attention_mask": (positions < ends).long(),
        "token_type_ids": (positions >= length // 2).long(),
    }


def served_inputs(config: Config) -> dict[str, torch.models.Input]:
    """What the served model takes: any number of texts of any length, or of pictures."""
    if config["model_type"] != "bert":
        size = config.get("image_size", 224)
        return {"pixel_values": torch.models.Input(("batch", config["num_channels"], size, size))}
    shape, most = ("batch", "length"), {"input_ids": config["vocab_size"], "attention_mask": 2, "token_type_ids": 2}
    return {name: torch.models.Input(shape, torch.int64, high=high) for name, high in most.items()}


# ---- small ones ------------------------------------------------------------------------------------------------------

LABELS = {"id2label": {"0": "no", "1": "maybe", "2": "yes"}}
TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    **LABELS,
}
PICTURES = {"num_channels": 3, "image_size": 32}
SMALL: dict[str, Config] = {
    "bert": {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": 100,
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        **TRANSFORMER,
    },
    "vit": {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "patch_size": 8,
        "qkv_bias": True,
        **TRANSFORMER,
        **PICTURES,
    },
    "resnet": {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "layer_type": "bottleneck",
        "embedding_size": 8,
        "hidden_sizes": [16, 32],
        "depths": [1, 2],
        "hidden_act": "relu",
        **LABELS,
        **PICTURES,
    },
}


def make(folder: Path) -> list[Path]:
    """Write small models with weights at random, laid out as those of Hugging Face; returns their folders."""
    torch.manual_seed(0)
    made = []
    for name, config in SMALL.items():
        module = build(config)
        module(**inputs_of(config, 8))  # while it trains: the statistics of the normalisation are then of some pictures
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        torch.save(dict(module.state_dict()), path / "model.safetensors")
        made.append(path)
    return made


def main(out: Path, folders: Sequence[Path], make_in: Path | None) -> None:
    """Run the models of these folders, or small ones."""
    for folder in folders or make(make_in or out / "hugging_face"):
        config, module = config_of(folder), load(folder)
        torch.manual_seed(1)
        inputs = inputs_of(config, 3)
        with torch.no_grad():
            scores = module(**inputs)
        print(f"{folder.name}: {type(module).__name__}, {len(module.state_dict())} tensors, all names matched")
        print(f"  {', '.join(inputs)} -> scores {tuple(scores.shape)}, classes {scores.argmax(1).tolist()}")
        served = torch.models.create(f"hugging-face-{folder.name}", module, served_inputs(config))
        print(f"  served as {str(served).splitlines()[0]}")
        numbers = served(*(value.numpy() for value in inputs.values()))
        print(f"  the same from arrays: {numbers.argmax(1).tolist() == scores.argmax(1).tolist()}")
        served.delete()  # else the server keeps it


def add_options(parser: argparse.ArgumentParser) -> None:
    """What this example takes beside what all take."""
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="with config.json and model.safetensors"
    )
    parser.add_argument("--make", type=Path, metavar="DIR", dest="make_in", help="where small models are written")


if __name__ == "__main__":
    run(main, __doc__, add_options)
