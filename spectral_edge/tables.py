"""The six tables: the only place that names columns, gives their types, and says what each means.

A schema is versioned as a whole by :data:`SCHEMA_VERSION`. Column descriptions travel as Arrow field metadata, and
docs/tables.md is generated from them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1
"""Raised when an earlier version would misread the tables. A new column does not raise it: see ADDED_COLUMNS."""


@dataclass(frozen=True)
class RunKey:
    """What identifies one run in every table."""

    tracker: str
    project: str
    run_id: str
    run_name: str

    @property
    def project_key(self) -> str:
        """The partition value: a short name safe in any file system, unique to the project.

        Project names are tracker text: they may be 256 characters of any script, which percent-encoded is longer
        than a file name may be, or hold path separators. They are kept as a column and never become a path.
        """
        slug = re.sub(r"[^a-z0-9]+", "-", self.project.lower()).strip("-")[:40]
        return f"{slug or 'project'}-{hashlib.sha256(self.project.encode()).hexdigest()[:8]}"

    def columns(self) -> dict[str, str]:
        """The key columns of this run's rows."""
        return {
            "tracker": self.tracker,
            "project_key": self.project_key,
            "project": self.project,
            "run_id": self.run_id,
            "run_name": self.run_name,
        }


def _column(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    metadata = {"meaning": meaning} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, metadata=metadata)


_TEXT, _REAL, _INT, _LIST = pa.string(), pa.float64(), pa.int64(), pa.list_(pa.float64())
_NAMES = pa.list_(pa.string())

_KEYS: Final = (
    _column("tracker", _TEXT, "kind of tracker the run lives in: mlflow, dir"),
    _column("project_key", _TEXT, "partition: a file-system-safe name made from project"),
    _column("project", _TEXT, "experiment (MLflow) or parent folder (dir) of the run"),
    _column("run_id", _TEXT, "the tracker's own id of the run"),
    _column("run_name", _TEXT, "name of the run as people see it"),
    _column(
        "audit_id",
        _TEXT,
        "hash of fingerprint, settings_hash, record_hash and schema_version: which audit wrote the row",
    ),
)
_GROUP: Final = _column("group", _TEXT, "parameter group: total, attention, mlp, embedding, norm, other, layer.N")

RUNS: Final = pa.schema(
    [
        *_KEYS,
        _column("status", _TEXT, "ok, partial (some groups end early, see error) or failed (see error)"),
        _column("state", _TEXT, "state of the run in its tracker: running, finished, failed, killed, unknown"),
        _column("url", _TEXT, "page or folder of the run"),
        _column("tracker_name", _TEXT, "name of the tracker in spectral-edge.toml; null where it has none"),
        _column("checkpoints", _INT, "checkpoints analysed"),
        _column("series", _TEXT, "name of the series of checkpoints that was followed; see docs/sources.md"),
        _column(
            "step_source",
            _TEXT,
            "how its training steps were found: logged_model, metadata, file_name, folder_name, model_name, metric_time or record; several are separated by commas",
        ),
        _column(
            "sketch_size",
            _INT,
            "fewest numbers kept of a part of the model where the numbers are estimates from recorded sketches, see docs/recorder.md; null when they are exact",
        ),
        _column("windows", _INT, "full windows analysed per group"),
        _column("step_first", _INT, "training step of the first checkpoint", "optimizer steps"),
        _column("step_last", _INT, "training step of the last checkpoint", "optimizer steps"),
        _column("regime", _TEXT, "regime of group total in the last full window"),
        _column("transitions", _INT, "transitions reported over all groups"),
        _column(
            "stretches_tested", _INT, "stretches of updates tested for changes; 0: too few checkpoints for any test"
        ),
        _column("optimizer", _TEXT, "optimizer named in the run's parameters; null when not logged"),
        _column("weight_decay", _REAL, "weight decay from the run's parameters; null when not logged"),
        _column("metric_name", _TEXT, "evaluation metric used for lead_steps; null when none was found"),
        _column(
            "metric_higher_is_better",
            pa.bool_(),
            "whether higher values of that metric are the better ones; null when there is none, or in an audit by a "
            "version that did not store it, which left the next six columns null too",
        ),
        _column(
            "metric_p_value",
            _REAL,
            "chance of the metric's largest shift under the null of theory 9; null when it could not be tested: too "
            "few checkpoints, or not known at each of them",
        ),
        _column(
            "metric_onset",
            _INT,
            "training step at which the metric shifts most; null when no shift is established",
            "optimizer steps",
        ),
        _column("metric_onset_low", _INT, "lower end of that onset's interval", "optimizer steps"),
        _column("metric_onset_high", _INT, "upper end of that onset's interval", "optimizer steps"),
        _column("metric_before", _REAL, "mean of the metric at the checkpoints before metric_onset", "metric units"),
        _column("metric_after", _REAL, "its mean from metric_onset on", "metric units"),
        _column("fingerprint", _TEXT, "hash of the checkpoints' ids, sizes and digests"),
        _column(
            "contents",
            _NAMES,
            "digest of the bytes of each checkpoint, by which runs that share checkpoints are found; null where none is kept",
        ),
        _column("settings_hash", _TEXT, "hash of every setting that changes a number"),
        _column("settings", _TEXT, "those settings, as JSON"),
        _column(
            "record_hash",
            _TEXT,
            "hash of what the run had logged of its metric, learning rate, optimizer and weight decay up to its last checkpoint; null where the run failed, or an earlier version audited it",
        ),
        _column("error", _TEXT, "what went wrong, to which file, and what to do; null when nothing did"),
        _column("warnings", _NAMES, "what was left out or looks odd, one sentence each"),
        _column("seconds_fetch", _REAL, "time spent fetching", "s"),
        _column("seconds_gram", _REAL, "time spent reading checkpoints and summing the band", "s"),
        _column("seconds_analyse", _REAL, "time spent on spectra, regimes and transitions", "s"),
        _column("bytes_read", _INT, "bytes of checkpoints read", "B"),
        _column("versions", _TEXT, "versions of spectral-edge and of the libraries that made the numbers, as JSON"),
        _column("audited_at", pa.timestamp("us", tz="UTC"), "end of the audit"),
        _column("schema_version", pa.int32(), "version of these tables"),
    ]
)

INNER_PRODUCTS: Final = pa.schema(
    [
        *_KEYS,
        _GROUP,
        _column("step", _INT, "training step at which the later update ends", "optimizer steps"),
        _column("lag", pa.int32(), "how many checkpoints earlier the other update ends"),
        _column("value", _REAL, "inner product of the two updates (theory 2)", "parameter units squared"),
        _column("n_parameters", _INT, "parameters in the group"),
        _column(
            "rounding_energy",
            _REAL,
            "expected squared norm of the update made by dtype rounding alone",
            "parameter units squared",
        ),
    ]
)

GAPS: Final = pa.schema(
    [
        *_KEYS,
        _GROUP,
        _column("window", pa.int32(), "updates in a full window, W"),
        _column("updates", pa.int32(), "updates in this window; fewer than window at the start of a run"),
        _column("short", pa.bool_(), "whether this window has fewer than `window` updates"),
        _column("step_first", _INT, "training step at which the window's first update begins", "optimizer steps"),
        _column("step", _INT, "training step of the window's last checkpoint", "optimizer steps"),
        _column("spacing", _REAL, "median steps between the window's checkpoints", "optimizer steps"),
        _column("uneven", pa.bool_(), "whether the window's checkpoints are unevenly spaced, which mixes scales"),
        _column("n_parameters", _INT, "parameters in the group"),
        _column("singular_values", _LIST, "sigma_1 >= ... of the trajectory matrix (theory 3)", "parameter units"),
        _column("k_star", pa.int32(), "argmax sigma_j/sigma_(j+1), 1-indexed (paper, Definition 3.1)"),
        _column("k_star_weighted", pa.int32(), "argmax (sigma_j/sum sigma)(sigma_j/sigma_(j+1)) (paper, Table 7)"),
        _column("gap", _REAL, "sigma_k* - sigma_(k*+1)", "parameter units"),
        _column("gap_ratio", _REAL, "sigma_k* / sigma_(k*+1)"),
        _column("g23", _REAL, "sigma_2 - sigma_3", "parameter units"),
        _column("g23_eigen", _REAL, "sigma_2^2 - sigma_3^2", "parameter units squared"),
        _column(
            "stability",
            _LIST,
            "lower bound of overlap_j^2 by Davis and Kahan: max(0, 1 - gram_change_operator^2/delta_j^2), delta_j the distance of sigma_j^2 to the other squares of the window before and to 0 (theory 4)",
        ),
        _column("overlap", _LIST, "|<v_j(t-1), v_j(t)>| for each direction j, measured (theory 4)"),
        _column(
            "rotation_degrees",
            _REAL,
            "largest principal angle between the leading k* directions of windows t-1 and t",
            "degrees",
        ),
        _column(
            "level_crossing",
            pa.bool_(),
            "whether the best match of some v_j(t-1), j <= k*, in window t is not j (theory 4)",
        ),
        _column("gram_change", _REAL, "||G(t) - G(t-1)||_F, elementwise (theory 4)", "parameter units squared"),
        _column(
            "gram_change_operator",
            _REAL,
            "||X(t)'X(t) - X(t-1)'X(t-1)||_F: the change of the operator whose eigenvectors are v_j",
            "parameter units squared",
        ),
        _column("gram_change_relative", _REAL, "gram_change / trace G(t) (theory 5)"),
        _column("learning_rate", _REAL, "logged learning rate at step; null when not logged"),
        _column(
            "adiabatic",
            _REAL,
            "gram_change / (learning_rate gap^2), the paper's literal A (theory 5)",
            "1/learning rate",
        ),
        _column("adiabatic_relative", _REAL, "A in units of the run's peak learning rate (theory 5)"),
        _column("noise_threshold_ratio", _REAL, "sigma_W / d_crit of BBP theory (theory 3)"),
        _column("effective_rank", _REAL, "exp of the entropy of sigma^2/sum sigma^2"),
        _column("update_norm", _REAL, "norm of the window's last update", "parameter units"),
        _column("drift", _REAL, "||sum of updates|| / sum of ||update||, between 0 and 1"),
        _column("rounding_share", _REAL, "expected rounding energy / energy of the updates in the window (theory 2)"),
        _column("regime", _TEXT, "plateau, transition, unstable, forgetting or undetermined; see docs/regimes.md"),
        _column(
            "regime_reason",
            _TEXT,
            "why the regime is undetermined, or what was measured; null when there is nothing to add",
        ),
        _column("settings_hash", _TEXT, "hash of every setting that changes a number"),
        _column("schema_version", pa.int32(), "version of these tables"),
    ]
)

TRANSITIONS: Final = pa.schema(
    [
        *_KEYS,
        _GROUP,
        _column("kind", _TEXT, "gap_opening, gap_collapse, level_crossing or rotation (theory 9)"),
        _column("onset_step", _INT, "training step at which the change begins", "optimizer steps"),
        _column("onset_low", _INT, "lower end of the onset's interval", "optimizer steps"),
        _column("onset_high", _INT, "upper end of the onset's interval", "optimizer steps"),
        _column("end_step", _INT, "last step of the stretch after the change", "optimizer steps"),
        _column("k_before", pa.int32(), "most frequent k_star before"),
        _column("k_after", pa.int32(), "most frequent k_star after"),
        _column("effect", _REAL, "size of the change, in the statistic of its kind (docs/transitions.md)"),
        _column("p_value", _REAL, "chance of such a change anywhere in the run under the null of theory 9"),
        _column("q_value", _REAL, "p_value adjusted for all that the run tested (Benjamini-Hochberg)"),
        _column("metric_name", _TEXT, "evaluation metric compared with; null when none was found"),
        _column(
            "metric_onset",
            _INT,
            "training step at which that metric changes; null when no change is established",
            "optimizer steps",
        ),
        _column(
            "lead_steps", _INT, "metric_onset - onset_step; negative when the metric moved first", "optimizer steps"
        ),
        _column("lead_low", _INT, "lower end of the lead's interval", "optimizer steps"),
        _column("lead_high", _INT, "upper end of the lead's interval", "optimizer steps"),
        _column("regime_before", _TEXT, "regime of the last window before the change"),
        _column("regime_after", _TEXT, "regime of the first full window after the change"),
        _column("settings_hash", _TEXT, "hash of every setting that changes a number"),
        _column("schema_version", pa.int32(), "version of these tables"),
    ]
)

SCORECARD: Final = pa.schema(
    [
        *_KEYS,
        _column("prediction", _TEXT, "name of the prediction; see docs/scorecard.md"),
        _column("group", _TEXT, "parameter group looked at; null when the test looks at none or at all"),
        _column("outcome", _TEXT, "holds, fails or not_testable"),
        _column("lacks", _TEXT, "what lacks, in the same few words for all runs; null unless not_testable"),
        _column("why", _TEXT, "what was measured, or what lacks, in one sentence"),
        _column("value", _REAL, "the number that is held against threshold; null when there is none"),
        _column("threshold", _REAL, "what value is held against, as the prediction's criterion says"),
        _column("n", _INT, "windows, changes or pairs that value is of"),
        _column("numbers", pa.map_(_TEXT, _REAL), "other numbers that decided or stand beside, by name"),
        _column("side", _TEXT, "on which side of the prediction's contrast between runs the run is; null: neither"),
        _column("event", pa.bool_(), "whether what that contrast counts happened"),
        _column("settings_hash", _TEXT, "hash of every setting that changes a number"),
        _column("schema_version", pa.int32(), "version of these tables"),
    ]
)

METRICS: Final = pa.schema(
    [
        *_KEYS,
        _column("name", _TEXT, "name under which the run logged the metric"),
        _column("role", _TEXT, "metric (the one used for lead_steps), learning_rate, or other (a further metric)"),
        _column(
            "higher_is_better",
            pa.bool_(),
            "which of its values are taken as better; null where that is not told, and for a learning rate",
        ),
        _column("step", _INT, "training step of the point", "optimizer steps"),
        _column("value", _REAL, "value logged at that step, the last one where there are several", "metric units"),
        _column("settings_hash", _TEXT, "hash of every setting that changes a number"),
        _column("schema_version", pa.int32(), "version of these tables"),
    ]
)

SCHEMAS: Final[Mapping[str, pa.Schema]] = {
    "runs": RUNS,
    "inner_products": INNER_PRODUCTS,
    "gaps": GAPS,
    "transitions": TRANSITIONS,
    "scorecard": SCORECARD,
    "metrics": METRICS,
}


ADDED_COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    "runs": frozenset(
        {
            "contents",
            "series",
            "sketch_size",
            "step_source",
            "tracker_name",
            "metric_higher_is_better",
            "metric_p_value",
            "metric_onset",
            "metric_onset_low",
            "metric_onset_high",
            "metric_before",
            "metric_after",
            "record_hash",
        }
    )
}
"""Columns that a store of this schema version may lack: they are null there until something is written."""

ADDED_TABLES: Final[Mapping[str, str]] = {"scorecard": "metric_onset", "metrics": "record_hash"}
"""Tables that a store of this schema version may lack until something is written, each with a column of `runs` that
came in the same version. A write creates the table before it adds the column, so where the column is, a table that is
missing was lost."""


def build(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """An Arrow table of `rows` in the schema of `table`; a missing column becomes null, an unknown one is an error."""
    schema = SCHEMAS[table]
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise KeyError(f"table `{table}` has no column {sorted(unknown)}")
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def audit_id(fingerprint: str, settings_hash: str, record_hash: str | None = None) -> str:
    """Names one audit: the same checkpoints and training record under the same settings and schema give the same id.

    Without a record, as where a run failed, it is what versions gave that kept no `record_hash`.
    """
    named = "\n".join([fingerprint, settings_hash, str(SCHEMA_VERSION), *([record_hash] if record_hash else [])])
    return hashlib.sha256(named.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunTables:
    """All that one audit says of one run: one row of `runs`, and that run's rows of the other tables.

    `scorecard` has no row where nobody held the predictions against the run, `metrics` none where it logged none.
    """

    key: RunKey
    runs: pa.Table
    inner_products: pa.Table
    gaps: pa.Table
    transitions: pa.Table
    scorecard: pa.Table = field(default_factory=lambda: build("scorecard", []))
    metrics: pa.Table = field(default_factory=lambda: build("metrics", []))

    @property
    def summary(self) -> dict[str, Any]:
        """The row of table `runs`."""
        return dict(self.runs.to_pylist()[0])

    @property
    def audit_id(self) -> str:
        """Which audit these rows belong to."""
        return str(self.summary["audit_id"])
