"""Questions with a name: what people ask a store most, as SQL that can be read, copied and changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class Question:
    """A question in one line of English, and the SQL that answers it."""

    meaning: str
    sql: str


QUESTIONS: Final[Mapping[str, Question]] = MappingProxyType(
    {
        "last_regimes": Question(
            "the regime of every run in its last full window, for the whole model",
            """\
SELECT tracker, project, run_name, run_id, step, regime, regime_reason
FROM gaps
WHERE "group" = 'total' AND NOT short
QUALIFY row_number() OVER (PARTITION BY tracker, project, run_id ORDER BY step DESC) = 1
ORDER BY tracker, project, run_name, run_id""",
        ),
        "transitions": Question(
            "every reported transition, the surest first, with its lead over the evaluation metric",
            """\
SELECT project, run_name, "group", kind, onset_step, onset_low, onset_high, k_before, k_after, effect, q_value,
       metric_name, metric_onset, lead_steps
FROM transitions
ORDER BY q_value NULLS LAST, project, run_name, onset_step, "group", kind""",
        ),
        "failures": Question(
            "the runs whose audit failed or is incomplete, and why",
            """\
SELECT tracker, project, run_name, run_id, status, error
FROM runs
WHERE status <> 'ok'
ORDER BY tracker, project, run_name, run_id""",
        ),
        "widest_gaps": Question(
            "for every run, the full window whose leading directions stand out most, for the whole model",
            """\
SELECT project, run_name, run_id, step, k_star, gap, gap_ratio, regime
FROM gaps
WHERE "group" = 'total' AND NOT short AND isfinite(gap_ratio)
QUALIFY row_number() OVER (PARTITION BY tracker, project, run_id ORDER BY gap_ratio DESC, step) = 1
ORDER BY gap_ratio DESC, project, run_name, run_id""",
        ),
        "regime_counts": Question(
            "how many full windows each run spent in each regime, for the whole model",
            """\
SELECT project, run_name, regime, count(*) AS windows, min(step) AS step_first, max(step) AS step_last
FROM gaps
WHERE "group" = 'total' AND NOT short
GROUP BY tracker, project, run_id, run_name, regime
ORDER BY project, run_name, windows DESC, regime""",
        ),
        "audits": Question(
            "what has been audited, when, and what it cost",
            """\
SELECT tracker, project, run_name, status, checkpoints, windows, regime, transitions, bytes_read,
       seconds_fetch + seconds_gram + seconds_analyse AS seconds, audited_at
FROM runs
ORDER BY audited_at DESC, tracker, project, run_name""",
        ),
        "scorecard": Question(
            "in how many runs each of the thesis's predictions holds, fails or cannot be tested, by project",
            """\
SELECT prediction, project, count(*) FILTER (outcome = 'holds') AS holds, count(*) FILTER (outcome = 'fails') AS fails,
       count(*) FILTER (outcome = 'not_testable') AS not_testable, mode(lacks) AS lacks_most_often
FROM scorecard
GROUP BY prediction, project
ORDER BY prediction, project""",
        ),
        "log": Question(
            "what was written to which run, when and by which version, and what people were told of, the latest first",
            """\
SELECT written_at, event, project, run_name, level, metric_points, files, error, "group", kind, onset_step, reason,
       version
FROM audit_log
ORDER BY written_at DESC, project, run_name, event, "group", kind""",
        ),
        "alerts": Question(
            "the findings that people were told of and that still hold",
            """\
SELECT project, run_name, "group", kind, onset_step, onset_low, onset_high, q_value, written_at AS opened_at, finding_id
FROM audit_log
WHERE event = 'alert_opened' AND finding_id || '/' || opening NOT IN (
    SELECT finding_id || '/' || opening FROM audit_log WHERE event = 'alert_closed'
)
QUALIFY row_number() OVER (PARTITION BY finding_id, opening ORDER BY written_at) = 1
ORDER BY opened_at DESC, project, run_name, "group", kind, onset_step""",
        ),
    }
)
