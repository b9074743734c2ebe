"""Makes one of the stores beside this file, with the code of the commit that is checked out around it.

    git worktree add /tmp/then COMMIT
    cp tests/store/released/make.py /tmp/then/tests/store/
    cd /tmp/then && PYTHONPATH=.:tests/store python tests/store/make.py FOLDER

The address of the folder in the first commit of each log, which nothing reads, is replaced by file:///store/.
before-series: a1f0479, which knew no columns `series` and `step_source`. 0.1.0: b5b72b7.
"""

import sys

from audits import audit, key_of

from spectral_edge.store import Store

store = Store.open(sys.argv[1])
store.write_run(audit(key_of("a"), settings_hash="s22", rows=6))
store.write_run(audit(key_of("a"), rows=6))
store.write_run(audit(key_of("b", project="other project", tracker="dir"), rows=6))
store.write_run(audit(key_of("c"), rows=0, status="failed"))
