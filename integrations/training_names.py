"""Names under which the usual frameworks log learning rate, metrics, optimizer and weight decay.

Patterns match whole names, without regard to case, and stand in the order in which they are preferred. Names that
people choose freely cannot all be here: `--metric`, `--learning-rate-metric` and the like are for those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

LEARNING_RATE_METRICS: Final = (
    r"(?:train[/_. -])?(?:learning[ _-]?rate|lr)",  # HF Trainer, Keras, Megatron, NeMo, torchtune, Detectron2, timm
    r"lr-[A-Za-z]\w*",  # Lightning's LearningRateMonitor: lr-AdamW
    r"lr-[A-Za-z]\w*[/-](?:pg[01]|group0)",  # the first of several groups: /pg1 in Lightning, /group0 in Composer
    r"(?:train|training|optim|optimizer|schedule|scheduler)[/_. -](?:learning[ _-]?rate|lr)",
    r"(?:batch|epoch)/(?:learning[ _-]?rate|lr)",  # W&B's callback for Keras
    r"lr/pg1",  # YOLO: its group 0 are the biases, which warm up from another rate than the weights
    r"(?:(?:train|training)[/_. -])?lr[/_. -]?(?:pg|group[/_. -]?)?0",  # lr/group0, lr_0; Ignite: lr group_0
    r"base_lr",  # OpenMMLab, where no rate by itself is logged: the rate of the group without a multiplier
)

# The prefix of a held-out split, with the separator of the framework: `val_loss` (Keras, Lightning), `eval/loss`,
# `eval_loss` (HF Trainer), `test.accuracy`, `metrics/eval/...` (Composer), `epoch/val_loss` (W&B's callback for Keras).
_HELD: Final = r"(?:metrics/|epoch/)?(?:(?:val|valid|validation|test|eval|evaluation|dev|held[ _-]?out)[/_. -])"
_AVERAGE: Final = (
    r"(?:(?:multi(?:class|label)|binary|(?:sparse_)?categorical|balanced|macro|micro|weighted|mean|language)[ _-]?)?"
)
# Lightning: `_epoch` when a value is logged both ways, `/dataloader_idx_0` when there are several loaders.
_SUFFIX: Final = r"(?:[/_](?:epoch|step))?(?:/dataloader_idx_0)?"

_ACCURACY: Final = _AVERAGE + r"(?:acc(?:uracy)?(?:[_/@]?(?:top-?)?1)?|top[ _-]?1(?:[ _-]acc(?:uracy)?)?)" + _SUFFIX

EVALUATION_METRICS: Final = (
    _HELD + _ACCURACY,
    _HELD
    + _AVERAGE
    + r"(?:f1|f1[ _-]?score|auc|auroc|roc[ _-]?auc|bleu|rouge[ _-]?(?:1|2|l|lsum)|exact[ _-]?match|map|miou|iou"
    + r"|r2|r2[ _-]?score|matthews_correlation|pearson|spearmanr)"
    + _SUFFIX,
    _HELD + r"(?:error|error_rate|wer|cer)" + _SUFFIX,
    _HELD
    + _AVERAGE
    + r"(?:loss|nll|cross[ _-]?entropy|perplexity|ppl|mse|rmse|mae"
    + r"|(?:root_)?(?:mean_)?squared_error|absolute_error)"
    + _SUFFIX,
    r"(?:acc|accuracy|loss)[/_. -](?:val|valid|validation|test|eval)",
    r"metrics/(?:accuracy_top1|mAP50-95\(?[BMP]?\)?)",  # YOLO, with brackets in its CSV and without in MLflow
    r"metrics/mAP50\(?[BMP]?\)?",
    r"(?:bbox|segm|keypoints)/AP",  # Detectron2
    r"coco/(?:bbox|segm)_mAP|accuracy/top1",  # OpenMMLab, which logs them in validation only
    r"(?:lm )?loss validation",  # Megatron
)

# The same words of training or, which with nearly all frameworks is of training too, without any split.
_UNDER: Final = r"(?:metrics/|epoch/|batch/)?"
_TRAINING: Final = _UNDER + r"(?:train|training)[/_. -]"
_LOSS: Final = _AVERAGE + r"(?:loss|nll|cross[ _-]?entropy|perplexity|ppl)" + _SUFFIX
TRAINING_METRICS: Final = (
    _TRAINING + _ACCURACY,
    _TRAINING + _LOSS,
    _UNDER + _ACCURACY,
    _UNDER + _LOSS,
    r"(?:acc|accuracy|loss)[/_. -](?:train|training)(?:/total)?",  # Composer: loss/train/total
    r"(?:lm|total)[ _]loss",  # Megatron; Detectron2
)
"""They are drawn beside the evaluation metric, and nothing is computed from them."""

# Parameters: a name by itself is preferred to one inside a configuration (`model/optim/weight_decay`), whatever
# separates its levels.
_WITHIN: Final = r"(?:.*[/.])?"
_KIND: Final = r"[/.](?:name|type|class_name|_target_|_component_|class_path)"
OPTIMIZER_PARAMS: Final = (
    r"optimizer|optim|opt",  # HF Trainer: optim; timm: opt; Megatron, YOLO: optimizer
    r"optimizer_name|opt_name|opt_func",  # mlflow.pytorch.autolog, Keras: optimizer_name; tf.keras: opt_name; fastai
    _WITHIN + r"(?:optimizer|optim|opt)" + _KIND,  # NeMo: model/optim/name; torchtune: optimizer._component_
    _WITHIN + r"(?:optimizer|optim|opt)",
)
WEIGHT_DECAY_PARAMS: Final = (
    r"weight[_-]?decay|wd",
    r"(?:optimizer|optim|opt)[_-](?:weight[_-]?decay|wd)",  # Keras: optimizer_weight_decay; tf.keras: opt_weight_decay
    _WITHIN + r"(?:optimizer|optim|opt|args)[/.](?:weight[_-]?decay|wd)",
    _WITHIN + r"(?:weight[_-]?decay|wd)",  # Detectron2: SOLVER.WEIGHT_DECAY
)
LEARNING_RATE_PARAMS: Final = (
    r"learning[_-]?rate|lr",
    r"(?:optimizer|optim|opt)[_-](?:learning[_-]?rate|lr)",
    _WITHIN + r"(?:optimizer|optim|opt|args)[/.](?:learning[_-]?rate|lr)",
    _WITHIN + r"(?:learning[_-]?rate|base_lr|lr)",
)
SCHEDULE_PARAMS: Final = (
    r"lr_scheduler_type|lr_schedule|lr_scheduler|lr_decay_style|scheduler|schedule|sched",
    _WITHIN + r"(?:lr_scheduler_type|lr_schedule|lr_scheduler|scheduler|schedule|sched)(?:" + _KIND + ")?",
)
CONSTANT_SCHEDULES: Final = frozenset({"constant", "const", "fixed", "none"})
"""torch's ConstantLR is none of them: it holds a fraction of the rate for some steps first."""
WARM_UP_PARAMS: Final = r".*warm_?up.*"
NO_WARM_UP: Final = frozenset({"", "none", "null", "false"})


def matches(pattern: str, name: str) -> bool:
    """Whether `pattern` is all of `name`, without regard to case."""
    return re.fullmatch(pattern, name, re.IGNORECASE) is not None


def ordered(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The names that match a pattern, by the order of patterns, then of names."""
    found = ((rank, name) for name in names for rank, pattern in enumerate(patterns) if matches(pattern, name))
    return tuple(dict.fromkeys(name for _, name in sorted(found)))


def stem(name: str) -> str:
    """`name` without what tells variants of one metric apart: whether of a step or of an epoch, and of which loader."""
    return re.sub(_SUFFIX + r"\Z", "", name, flags=re.IGNORECASE)
