"""The demo with short recipes, as a program: `python short_demo.py FOLDER`."""

import sys
from pathlib import Path

from pipelines.demo import run_demo
from pipelines.demo_training import Recipe

RECIPES = (
    Recipe("addition", "modular addition", 1, 1.0, "constant", "pt", steps=160, checkpoint_every=10),
    Recipe("digits", "digits", 1, 0.01, "cosine", "logged model", steps=160, checkpoint_every=10),
)

if __name__ == "__main__":
    sys.stdout.write(str(run_demo(Path(sys.argv[1]), RECIPES)))
