"""Retrains small families of runs and holds the thesis's numbers against them (theory 10, docs/replication.md).

Read in this order: recipes (what is trained), tasks and models, training (the loop), runs (one small file a run, from
which all else is computed without training), phases (labels from the held-out metric), then one module a table.
"""
