"""Serve a double by hand: `python -m wandb_double PORT`, from the folder tests/."""

from __future__ import annotations

import sys

from .double import Double

if __name__ == "__main__":
    double = Double(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(f"export WANDB_BASE_URL={double.url} WANDB_API_KEY={double.key}", flush=True)
    double.http.serve_forever()
