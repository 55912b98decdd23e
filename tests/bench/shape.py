"""The layers of the network of W4 and W5. Apart from `mlp`, so that clients without torch can read it."""

SIZES = (784, 256, 128, 10)
