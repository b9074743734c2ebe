"""Real runs in which nothing happens: how often are they given a change, and at which setting would they rarely be?

Read in this order: kinds (what is trained, and what "no event" means; fixed before anything was counted), training,
runs (one small file a run), rates (tables), power, agreement, lead, arrangements. See docs/calibration.md.
"""
