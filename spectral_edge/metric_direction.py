"""Which values of a metric are better, by the words of its name (docs/training-record.md)."""

from __future__ import annotations

import re
from typing import Final

HIGHER_IS_BETTER_WORDS: Final = (
    r"acc\w*",
    r"f1\w*",
    r"auc\w*",
    "auroc",
    "ap",
    r"bleu\w*",
    "correlation",
    "match",
    r"iou\w*",
    r"map\w*",
    "miou",
    "pearson",
    r"precision\w*",
    r"r2\w*",
    r"recall\w*",
    r"rouge\w*",
    r"spearman\w*",
    r"top\w*",
)
LOWER_IS_BETTER_WORDS: Final = (
    "cer",
    "entropy",
    r"err\w*",
    r"loss\w*",
    "mae",
    "mape",
    "mse",
    "nll",
    "perplexity",
    "ppl",
    "rmse",
    "wer",
)
"""Words of a metric's name that tell its direction; the lower ones are looked for first."""


def higher_is_better(name: str) -> bool | None:
    """What the words of a metric's name tell of its direction; None when they tell nothing."""
    words = [*re.findall(r"[A-Za-z0-9]+", name), *re.findall(r"[A-Z][a-z0-9]+", name)]  # val_f1, and MulticlassAccuracy
    for known, higher in ((LOWER_IS_BETTER_WORDS, False), (HIGHER_IS_BETTER_WORDS, True)):
        if any(re.fullmatch(pattern, word, re.IGNORECASE) for word in words for pattern in known):
            return higher
    return None
