"""A program that ends itself, with work to do at exit."""

import atexit
import sys

import torch

x = torch.arange(3)
atexit.register(lambda: print("at exit", (x + 1).tolist()))
print(sys.path[0] == sys.argv[1], torch.cuda.device_count() >= 0)
sys.exit(7)
