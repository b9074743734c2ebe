"""The thesis's predictions as tests on audited runs (theory 10, docs/scorecard.md).

Read in this order: evidence (what a run offers), finding (what a test answers), then the tests: with_metric,
of_spectrum, of_directions; predictions (the list, with claims and criteria), score (all of them on one run), org
(counts, intervals and contrasts over runs), rows (Arrow tables), stored (table `scorecard`), and from_store.
`spectral_edge.scorecard` is what others import.
"""
