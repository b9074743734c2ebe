"""Sketches: updates of a model in a few hundred numbers each, whose inner products estimate the exact ones (theory 2).

:class:`Sketcher` makes them, :mod:`spectral_edge.sketching.record_file` keeps those of a run in one small file.
"""

from spectral_edge.sketching.sketcher import DEFAULT_SIZE, Piece, Sketcher, relative_error, variance

__all__ = ["DEFAULT_SIZE", "Piece", "Sketcher", "relative_error", "variance"]
