"""A module of a package, run by `-m`."""

import sys

import torch
from course import words

print(words.HELLO, __name__, __package__, sys.argv[1:], torch.stack([torch.ones(2), torch.zeros(2)]).sum(0))
