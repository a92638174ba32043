"""`Dialect`: how another code base names the weights of a net we have, said as a table in the net's own file (`KEYS`).

A dialect recognises a file by its keys, renames them, derives the options of `build` from the shapes and knows what the
published weights expect of an image. It holds no code that walks a file; that is `pixelwise.checkpoints`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from pixelwise.core.sample import Preprocessing
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError, ModelFileError

Replacement = str | Callable[[re.Match[str], Collection[str]], str]
Rule = tuple[str, Replacement]
Shapes = Mapping[str, Tensor]


@dataclass(frozen=True)
class Untold:
    """Stands in a dialect's options for one that no shape tells, so that the user has to: `why`, for the message."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One foreign naming of one architecture's weights.

    signs          regular expressions (`re.search`); a file is of this dialect when each matches some key of it
    rules          (expression, replacement): the first whose expression is the *whole* foreign name (`re.fullmatch`)
                   makes our name by `Match.expand`; "" drops the tensor; a name that none fits is left over: an error.
                   Where our name depends on what else is in the file, the replacement is a function of the match and
                   all the file's names.
    options        the file's tensors by their foreign names -> options of `build`, `classes` among them; `Untold` for
                   one that `from_checkpoint` must be given
    preprocessing  what the published weights expect of an image: channel order, mean, deviation, size rule
    task           the task such weights were trained for
    labels         {`classes`: a name of `data.labels.label_set`} where the published label sets are known
    sizes          {`classes`: size rule of that published set's weights}, over that of `preprocessing`
    change         (our name, tensor) -> tensor in our layout, e.g. background moved from first to last; None: as it is
    """

    signs: tuple[str, ...]
    rules: tuple[Rule, ...]
    options: Callable[[Shapes], dict[str, Any]]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    task: str = "semantic"
    labels: Mapping[int, str] = field(default_factory=dict)
    sizes: Mapping[int, SizeRule] = field(default_factory=dict)
    change: Callable[[str, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if not self.signs:
            raise ConfigError("A dialect needs at least one sign, or it would recognise every file.")

    def expects(self, classes: int, channels: int = 3) -> Preprocessing:
        """What weights with so many classes expect of an image; other than three channels have no published numbers, so
        they take those that all channels share, or 0.5."""
        told = replace(self.preprocessing, size=self.sizes.get(classes, self.preprocessing.size))
        if channels == told.channels:
            return told
        same = len(set(told.mean)) == len(set(told.std)) == 1  # of all channels, as of plain division by 255
        mean, std = (told.mean[0], told.std[0]) if same else (0.5, 0.5)
        return replace(told, channels=channels, order="L" if channels == 1 else "", mean=(mean,) * channels,
                       std=(std,) * channels)  # fmt: skip

    def share(self, names: Iterable[str]) -> float:
        """Which part of the signs, 0..1, matches some of these foreign names; 1 means recognised."""
        names = list(names)
        return sum(any(re.search(sign, name) for name in names) for sign in self.signs) / len(self.signs)

    def rename(self, name: str, names: Collection[str] = ()) -> str | None:
        """Our name of a foreign one in a file of `names`; "" where it is to be dropped, None where no rule fits."""
        for pattern, replacement in self.rules:
            match = re.fullmatch(pattern, name)
            if match:
                return match.expand(replacement) if isinstance(replacement, str) else replacement(match, names)
        return None

    def translate(self, tensors: Mapping[str, Tensor]) -> Translation:
        """The tensors under our names and in our layout. Raises ModelFileError when two names become one."""
        found: dict[str, Tensor] = {}
        origin: dict[str, str] = {}
        dropped: list[str] = []
        left: list[str] = []
        for name, tensor in tensors.items():
            ours = self.rename(name, tensors)
            if not ours:
                (left if ours is None else dropped).append(name)
                continue
            if ours in found:
                raise ModelFileError(f"'{origin[ours]}' and '{name}' both become '{ours}'; one file holds one net.")
            found[ours] = tensor if self.change is None else self.change(ours, tensor)
            origin[ours] = name
        return Translation(found, origin, tuple(dropped), tuple(left))


@dataclass(frozen=True)
class Translation:
    """A file's tensors in our words.

    tensors  {our name: tensor in our layout}
    origin   {our name: foreign name}, for messages
    dropped  foreign names that a rule drops on purpose
    left     foreign names that no rule knows
    """

    tensors: dict[str, Tensor]
    origin: dict[str, str]
    dropped: tuple[str, ...]
    left: tuple[str, ...]


def prefixed(foreign: str, ours: str, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules of a part, such as an encoder, for where it stands in both nets.

    foreign  literal prefix in the other's names, `ours` the one in our names, both with their last dot

    >>> prefixed("backbone.", "encoder.", [(r"(conv\\d)\\.weight", r"\\1.weight")])
    (('backbone\\\\.(?:(conv\\\\d)\\\\.weight)', 'encoder.\\\\1.weight'),)
    """
    return tuple((f"{re.escape(foreign)}(?:{pattern})", _behind(ours, new)) for pattern, new in rules)


def _behind(prefix: str, new: Replacement) -> Replacement:
    """A replacement with a literal prefix, unless it drops the tensor."""
    if isinstance(new, str):
        return prefix.replace("\\", r"\\") + new if new else ""
    return lambda match, names: prefix + new(match, names)
