#!/usr/bin/env python3
"""The mean of the weights of several runs of one stage: it hears strange voices better than each.

usage: mean.py OUT SHARE:FILE... (the shares add up to 1)"""

import sys

import torch

from common import halves, save


def main():
    if len(sys.argv) < 3 or any(":" not in a for a in sys.argv[2:]):
        sys.exit(__doc__)
    mean = {}
    for argument in sys.argv[2:]:
        share, path = argument.split(":", 1)
        for name, value in torch.load(path, map_location="cpu")["model"].items():
            mean[name] = mean.get(name, 0) + float(share) * value.float()
    save({"model": halves(mean), "step": 0}, sys.argv[1])


if __name__ == "__main__":
    main()
