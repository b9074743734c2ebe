"""Which rows are meant: predicates for runs and for audits, in SQL for Delta and as one lazy filter for Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow.compute as pc

from spectral_edge import delta
from spectral_edge.tables import RunKey, RunTables

Identity = tuple[str, str, str, str, str]
"""One audit of one run, as its rows name it: audit_id, tracker, project_key, project, run_id."""

IDENTITY: Final = ("audit_id", "tracker", "project_key", "project", "run_id")


def rows_of(*keys: RunKey) -> str:
    """A SQL predicate for all rows of some runs of one project, whatever they are called now."""
    key = keys[0]
    project = delta.equals(tracker=key.tracker, project_key=key.project_key, project=key.project)
    if len(keys) == 1:
        return f"{project} AND {delta.equals(run_id=key.run_id)}"
    return f"{project} AND run_id IN ({', '.join(delta.quoted(key.run_id) for key in keys)})"


def audits_of(audits: Sequence[RunTables]) -> str:
    """A SQL predicate that tells rows of `audits` from those of other audits of the same runs."""
    if len(audits) == 1:
        return delta.equals(audit_id=audits[0].audit_id)
    # By pairs: runs with the same checkpoints have audits with the same id.
    pairs = (delta.equals(run_id=tables.key.run_id, audit_id=tables.audit_id) for tables in audits)
    return f"({' OR '.join(f'({pair})' for pair in pairs)})"


def identity_text() -> pc.Expression:
    """What tells a row's audit from all others as one text, to compare it in one lazy filter; see `joined`."""
    columns = ("audit_id", "tracker", "project_key", "run_id")
    return pc.binary_join_element_wise(*(pc.field(name) for name in columns), "\n")


def joined(identity: Identity) -> str:
    """The text of `identity_text` for one audit.

    Without `project`, which `project_key` stands for: one column less to read in every query.
    """
    audit_id, tracker, project_key, _, run_id = identity
    return "\n".join((audit_id, tracker, project_key, run_id))
