"""Test-time augmentation by name: "flip", "scale", "flip+scale", "dihedral" ..."""

from __future__ import annotations

from collections.abc import Sequence

from pixelwise.errors import ConfigError, nearest
from pixelwise.views.view import View

PLAIN = (View(),)
NAMED: dict[str, tuple[View, ...]] = {
    "none": PLAIN,
    "scale": (View(), View(scale=0.75), View(scale=1.25)),
    "turn": tuple(View(turns=turns) for turns in range(4)),
    "dihedral": tuple(View(mirrored, turns=turns) for turns in range(4) for mirrored in (False, True)),
    "vflip": (View(), View(mirrored=True, turns=2)),
    "flip": (View(), View(mirrored=True)),
}


def parse(views: str | Sequence[View] | None) -> tuple[View, ...]:
    """Views by name, or as given; the plain one comes first. Raises ConfigError for an unknown name.

    flip      the image and its mirror image, left and right exchanged
    vflip     the same with top and bottom exchanged
    turn      the four turns by right angles
    dihedral  the eight ways a square can lie: the turns and their mirror images
    scale     the image, and at 0.75 and 1.25 of its size
    none      the image alone
    Names joined by + are all combinations, each once: "flip+scale" is six views.

    >>> parse("flip")
    (View(mirrored=False, scale=1.0, turns=0), View(mirrored=True, scale=1.0, turns=0))
    """
    if views is None:
        return PLAIN
    if not isinstance(views, str):
        if not views or not all(isinstance(v, View) for v in views):
            raise ConfigError(f"Test-time augmentation takes a name or at least one View, got {views!r}.")
        return tuple(views)
    names = views.split("+")
    for name in names:
        if name not in NAMED:
            said = f"'{name}' in '{views}'" if len(names) > 1 else f"'{name}'"
            raise ConfigError(f"There is no test-time augmentation {said}; {nearest(name, NAMED)}")
    found: tuple[View, ...] = PLAIN
    for name, more in NAMED.items():  # in the table's order, whatever the order of the words
        found = tuple(one.then(other) for one in found for other in more) if name in names else found
    return tuple(dict.fromkeys(found))
