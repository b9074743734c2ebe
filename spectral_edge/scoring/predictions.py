"""The predictions: each with its claim, where that stands, what it needs, and when it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from spectral_edge.groups import TOTAL
from spectral_edge.scoring import of_directions, of_spectrum, with_metric
from spectral_edge.scoring.evidence import ATTENTION, Evidence
from spectral_edge.scoring.finding import Finding


@dataclass(frozen=True)
class Claimed:
    """A contrast between runs: what is counted shall happen more often on side `more` than on side `less`."""

    event: str
    more: str
    less: str


@dataclass(frozen=True)
class Prediction:
    """One prediction of the thesis as a test.

    Attributes:
        name: How it is called everywhere.
        claim: What is claimed, in one sentence.
        source: Where: section of theory, number or page of the paper.
        needs: What a run must offer.
        criterion: When it holds, in terms of `value` and `threshold`; what follows `;` says when it fails.
        threshold_from: Where the threshold comes from.
        test: The test.
        contrast: The claim about runs against each other; None where there is none.
    """

    name: str
    claim: str
    source: str
    needs: tuple[str, ...]
    criterion: str
    threshold_from: str
    test: Callable[[Evidence], Finding]
    contrast: Claimed | None = None


PREDICTIONS: Final[Sequence[Prediction]] = (
    Prediction(
        "gap_before_metric",
        "Gap dynamics precede generalisation.",
        "theory 9, 10; paper, abstract: 24 of 24 runs with weight decay",
        ("46 checkpoints at W = 10", "an evaluation metric with an established change"),
        "some change's onset_high lies before the low end of the metric's onset: value = steps between > threshold; "
        "fails when all lie behind or there is none; left open when intervals overlap",
        "0 steps: the order must be established by the intervals",
        with_metric.gap_before_metric,
    ),
    Prediction(
        "gap_dynamics_need_decay",
        "Gap dynamics come with weight decay, and not without it.",
        "theory 10; paper: 24 of 24 runs with, 0 of 24 without (v3: 1 of 24)",
        ("46 checkpoints at W = 10", "the weight decay"),
        "changes reported: value >= threshold = 1 with weight decay, value = threshold = 0 without",
        "the product's false_alarm_rate decides what is reported",
        of_spectrum.gap_dynamics,
        Claimed("at least one change is reported", "weight decay", "no weight decay"),
    ),
    Prediction(
        "k_star_by_optimizer",
        "k* is 1 under Muon and 2 under AdamW.",
        "theory 3, 10; paper, Definition 3.1; one model of 51 M parameters",
        ("optimizer Muon or AdamW", "W full windows"),
        "the most frequent k* of all full windows (value) is the published one (threshold)",
        "the paper",
        of_spectrum.k_star,
        Claimed("k* is mostly 1", "muon", "adamw"),
    ),
    Prediction(
        "three_phases",
        "R rises, stays, and collapses.",
        "theory 10",
        ("8 W updates",),
        "a middle stretch stands above both sides: p (value) <= threshold over orders of windows that share no update",
        "0.05, the usual level; the paper has no test",
        partial(of_spectrum.three_phases, group=TOTAL),
    ),
    Prediction(
        "three_phases_attention",
        "R of the attention weights rises, stays, and collapses.",
        "theory 8, 10: the published experiments use attention weights alone",
        ("8 W updates", "attention weights"),
        "as three_phases",
        "as three_phases",
        partial(of_spectrum.three_phases, group=ATTENTION),
    ),
    Prediction(
        "stability_order",
        "Direction 1 is more stable than direction 2.",
        "theory 4, 10; paper: 0.82 and 0.23 on GPT-2",
        ("W full windows with a predecessor",),
        "median stability_1 (value) > median stability_2 (threshold), of the bound by Davis and Kahan",
        "an inequality; the published numbers are shown, not tested",
        of_directions.stability_order,
    ),
    Prediction(
        "overlap_order",
        "Direction 1 turns less than direction 2, as measured.",
        "theory 4; what stability_order means to say",
        ("W full windows with a predecessor",),
        "median overlap_1 (value) > median overlap_2 (threshold)",
        "an inequality",
        of_directions.overlap_order,
    ),
    Prediction(
        "noise_threshold",
        "sigma_W/d_crit is 20 to 300.",
        "theory 3, 10",
        ("W full windows", "(P/(W-1))^(1/4) >= 20: 1.4 M parameters at W = 10"),
        "the median over full windows (value) lies in [20, 300] (threshold: the lower end)",
        "the paper; docs/replication.md, section 3, has the bound",
        of_spectrum.noise_threshold,
    ),
    Prediction(
        "adiabatic_elementwise",
        "A << 1 on the plateau and near 1 at the transition (A literal, elementwise change of G).",
        "theory 5; paper, Definition of A",
        ("learning rate", "an evaluation metric with an established change", "W full windows on both sides of it"),
        "median A of the W windows before the metric's onset (value) < threshold = 0.1, of the W after it in [0.1, 10]",
        "a factor of ten on either side of 1, as in docs/replication.md; the paper has no numbers",
        with_metric.adiabatic_elementwise,
    ),
    Prediction(
        "adiabatic_operator",
        "The same with the change of the operator X'X, for which Davis-Kahan holds.",
        "theory 4, 5",
        ("learning rate", "an evaluation metric with an established change", "W full windows on both sides of it"),
        "as adiabatic_elementwise",
        "as adiabatic_elementwise",
        with_metric.adiabatic_operator,
    ),
    Prediction(
        with_metric.G23_DECLINES,
        "lambda_2 - lambda_3 declines before generalisation.",
        "theory 3, 10; paper: 30 to 40-fold, in attention",
        ("an evaluation metric with an established change", "W full windows before it"),
        "largest over last value until the metric's onset begins (value) >= threshold",
        "2: it halves; the paper states none",
        with_metric.g23_declines,
        Claimed("lambda_2 - lambda_3 at least halves", with_metric.MOVES, with_metric.STAYS),
    ),
    Prediction(
        "gap_damping",
        "The gap is damped: dg/dt = a - b g with b > 0.",
        "theory 6; paper, Theorem 5.4",
        ("14 W + 1 windows of one k*",),
        "the 95 % interval of b lies above 0 (value: its nearer end, threshold 0); fails when below; else left open",
        "docs/probe.md; the correlation of g with dg/dt is no evidence",
        of_spectrum.gap_damping,
    ),
    Prediction(
        "davis_kahan",
        "Measured rotation obeys the Davis-Kahan bound of the operator reading.",
        "theory 4; a theorem: a failure is an error of these tables, not of the thesis",
        ("windows with a predecessor", "a bound below 1"),
        "largest sin^2(theta_j) - bound_j^2 (value) <= threshold",
        "10^-6, for rounding",
        of_directions.davis_kahan,
    ),
)
"""All of them, in the order in which they are shown."""
