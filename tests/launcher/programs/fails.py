"""A program with an error in its third function."""

import torch


def multiply():
    return (torch.ones(2, 3) @ torch.ones(2, 3)).sum().item()


def main():
    print("begins")
    raise KeyError(torch.tensor([1, 2]).tolist())


if __name__ == "__main__":
    main()
