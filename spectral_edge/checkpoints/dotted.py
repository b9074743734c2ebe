"""Names with slashes, as JAX and Keras users write them, as the dotted names that groups are told by."""

from __future__ import annotations

from collections.abc import Iterable

from spectral_edge.errors import CheckpointFormatError


def dotted(names: Iterable[str], file: str) -> dict[str, str]:
    """Each of `names` with dots between its parts: `params/layers_0/kernel` becomes `params.layers_0.kernel`.

    Raises:
        CheckpointFormatError: Two names become one.
    """
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in names:
        plain = ".".join(part for part in name.split("/") if part)
        if first.setdefault(plain, name) != name:
            raise CheckpointFormatError(
                f"{ascii(name)[:100]} and {ascii(first[plain])[:100]} are one name once slashes are dots.",
                file=file,
                tensor=plain,
            )
        found[name] = plain
    return found
