"""The pages of `report --serve` over a store on S3."""

from __future__ import annotations

from spectral_edge.store import Store
from tests.browse.serving import asked
from tests.report.synthetic_runs import make_run


def test_a_store_on_s3_is_shown(s3_root: str) -> None:
    store = Store.open(s3_root)
    store.write_run(make_run("far away", checkpoints=16, change_at=8, groups=("total",)))
    (row,) = asked(store, "/api/runs")[0].json()["runs"]
    overview, run, answer = asked(store, "/", f"/run/{row['id']}", "/query?sql=transitions")
    assert "far away" in overview.text
    assert s3_root in overview.text
    assert 'class="verdict v-change"' in run.text
    assert "gap_opening" in answer.text
