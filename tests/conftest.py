"""Tiny networks run fastest on one thread, and results then do not depend on the machine."""

import torch

torch.set_num_threads(1)
