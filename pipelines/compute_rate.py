"""How fast this machine sums checkpoints into the band, measured."""

from __future__ import annotations

import time
from typing import Final

import numpy as np
import torch

from spectral_edge.block_sums import products_on, threads_given
from spectral_edge.kernels import COLUMNS, add_products, padded

_PROBE_ROWS: Final = 32
_PROBE_PARAMETERS: Final = 1 << 14
_PROBE_SECONDS: Final = 0.2


def compute_rate(lags: int, device: str) -> float:
    """Bytes of float32 checkpoints that this machine sums into the band per second, measured for 0.2 s."""
    count = lags + _PROBE_ROWS
    theta = torch.zeros(count + 1, _PROBE_PARAMETERS)
    updates, products = np.zeros((padded(count), COLUMNS)), np.zeros((padded(count), padded(count)))
    is_cpu = torch.device(device).type == "cpu"

    def once() -> None:
        if is_cpu:
            add_products(theta.numpy(), _PROBE_PARAMETERS, lags, lags, updates, products)
        else:
            products_on(torch.device(device), theta, _PROBE_PARAMETERS, lags)

    once()  # the first time pays for compiling, or for setting up the GPU
    started, done = time.monotonic(), 0
    while time.monotonic() - started < _PROBE_SECONDS:
        once()
        done += 1
    per_thread = done * _PROBE_ROWS * _PROBE_PARAMETERS * torch.float32.itemsize / (time.monotonic() - started)
    return per_thread * (threads_given() if is_cpu else 1)
