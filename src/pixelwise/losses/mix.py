"""A weighted mix of losses, written as text: `ce+0.5*dice`, `focal(gamma=2)+0.5*tversky(alpha=0.3,beta=0.7)`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixelwise.errors import ConfigError, nearest
from pixelwise.losses.arguments import ClassWeight, number, prepare
from pixelwise.losses.boundary import boundary_loss
from pixelwise.losses.lovasz import lovasz_softmax
from pixelwise.losses.pixel import cross_entropy, focal, ohem_cross_entropy, topk_cross_entropy
from pixelwise.losses.region import dice, focal_tversky, generalised_dice, log_cosh_dice, tversky

Loss = Callable[..., Tensor]

LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "focal": focal,
    "ohem": ohem_cross_entropy,
    "topk": topk_cross_entropy,
    "dice": dice,
    "gdice": generalised_dice,
    "logcoshdice": log_cosh_dice,
    "tversky": tversky,
    "focaltversky": focal_tversky,
    "lovasz": lovasz_softmax,
    "boundary": boundary_loss,
}
# A data set's class weights go to the losses that add up pixels. Those that compare regions give every class the same
# say already, so they take weights only where the text asks: dice(weight=[1,2,5]).
ADD_UP_PIXELS = frozenset({"ce", "focal", "ohem", "topk"})
COMPARE_REGIONS = frozenset({"dice", "gdice", "logcoshdice", "tversky", "focaltversky"})
# Given by the caller at each step, or not sayable in text.
NOT_OPTIONS = frozenset({"ignore_index", "check", "maps", "pixel_weight", "align_corners"})


@dataclass(frozen=True)
class Term:
    """One loss of a mix: its short name, the factor before it, and its options as (name, value) in the order given."""

    name: str
    factor: float = 1.0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def reads_lse(self) -> bool:
        """Whether it needs the log of the sum of exponentials, as label smoothing and Lovasz do."""
        return self.name == "lovasz" or any(key == "label_smoothing" and value for key, value in self.options)

    def __str__(self) -> str:
        inside = ",".join(f"{key}={value!r}" for key, value in self.options)
        return (f"{self.factor!r}*" if self.factor != 1 else "") + self.name + (f"({inside})" if inside else "")


@dataclass(frozen=True)
class Mix:
    """Losses summed with factors. `parse(str(mix)) == mix`; it can be pickled, compared and hashed."""

    terms: tuple[Term, ...]

    @property
    def takes_class_weights(self) -> bool:
        return any(term.name in ADD_UP_PIXELS for term in self.terms)

    def __str__(self) -> str:
        return "+".join(str(term) for term in self.terms)

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        ignore_index: int = 255,
        weight: ClassWeight = None,
        pixel_weight: Tensor | None = None,
        check: bool = True,
        align_corners: bool | None = None,
    ) -> dict[str, Tensor]:
        """{short name: factor * loss}, scalars whose sum is the loss to train on.

        All terms share one pass over the enlarged logits, forward and backward (`boundary`, which builds them, and
        `lovasz`, which builds them class by class, have further ones of their own).

        Args:
            logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
            target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
            weight: [K] class weights, for the terms that add up pixels (ce, focal, ohem, topk) unless such a term
                brings its own.
            pixel_weight: [B, H, W] weights of pixels, for the terms that add up pixels.
            check: look, once for all terms, for ids that are neither a class nor void.
            align_corners: how logits on a coarser grid are enlarged to the target's size, as in torch's `interpolate`;
                None: they have that size.

        Raises:
            ConfigError: what the losses raise, and `weight` given where no term would use it.
            DataError: an id that is neither a class nor void.
        """
        if weight is not None and not self.takes_class_weights:
            takers = ", ".join(sorted(ADD_UP_PIXELS))
            raise ConfigError(f"class weights are given but no term of {self} takes them; those that do: {takers}")
        pixels = prepare(logits, target, ignore_index, check, align_corners)
        pixels.lse = any(term.reads_lse for term in self.terms)
        pixels.masses = any(term.name in COMPARE_REGIONS for term in self.terms)
        parts = {}
        for term in self.terms:
            options = dict(term.options)
            if weight is not None and term.name in ADD_UP_PIXELS:
                options.setdefault("weight", weight)
            if pixel_weight is not None and term.name in ADD_UP_PIXELS:
                options["pixel_weight"] = pixel_weight
            parts[term.name] = term.factor * LOSSES[term.name](pixels, target, ignore_index=ignore_index, **options)
        return parts


def names() -> tuple[str, ...]:
    """The short names a mix may be written with."""
    return tuple(LOSSES)


def table() -> list[tuple[str, str, str]]:
    """(short name, options with defaults, what it is), one row per loss, for `pixelwise list losses`."""
    return [
        (name, ", ".join(f"{key}={value!r}" for key, value in _options(loss).items()), _first_sentence(loss))
        for name, loss in LOSSES.items()
    ]


def parse(text: str) -> Mix:
    """Read a mix from `[factor*]name[(option=value, ...)] + ...`.

    Names are those of `names()`, or the functions' own (`cross_entropy` is `ce`). Values are numbers, true, false,
    words and lists. Every option is tried on a tiny image, so a value that cannot be is refused here and not after an
    hour.

    Raises:
        ConfigError: text that does not read so, an unknown name or option (the nearest right one is named), a value
            the loss refuses, a factor that is not positive, or the same loss twice.

    >>> str(parse("ce + 0.5*tversky(alpha=0.3, beta=0.7)"))
    'ce+0.5*tversky(alpha=0.3,beta=0.7)'
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        raise ConfigError(f"cannot read the loss {text!r}: expected something like ce+0.5*dice") from error
    terms = tuple(_term(node, text) for node in _summands(tree))
    for term in terms:
        _try(term)
    twice = {term.name for term in terms if [t.name for t in terms].count(term.name) > 1}
    if twice:
        raise ConfigError(f"loss {text!r} names {', '.join(sorted(twice))} twice: write it once, with one factor")
    return Mix(terms)


def _summands(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _summands(node.left)
        yield from _summands(node.right)
    else:
        yield node


def _term(node: ast.expr, text: str) -> Term:
    factor = 1.0
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        factor = number("the factor before a loss", _value(node.left, text), low=0.0)
        if factor == 0:
            raise ConfigError(f"a factor in loss {text!r} is 0: leave that term out")
        node = node.right
    call = node if isinstance(node, ast.Call) else None
    word = call.func if call else node
    if not isinstance(word, ast.Name) or (call and call.args):
        raise ConfigError(f"cannot read {ast.unparse(node)!r} in loss {text!r}: expected name or name(option=value)")
    name = _short(word.id)
    keywords = call.keywords if call else []
    options = tuple((_option(name, keyword.arg), _value(keyword.value, text)) for keyword in keywords)
    if len(dict(options)) < len(options):
        raise ConfigError(f"{ast.unparse(node)!r} in loss {text!r} gives an option twice")
    return Term(name, factor, options)


def _short(word: str) -> str:
    own = {loss.__name__: name for name, loss in LOSSES.items()}
    if word not in LOSSES and word not in own:
        raise ConfigError(f"loss {word!r} is unknown; {nearest(word, [*LOSSES, *own])}")
    return own.get(word, word)


def _option(name: str, word: str | None) -> str:
    known = _options(LOSSES[name])
    if word is None or word not in known:
        raise ConfigError(f"loss {name!r} has no option {word or '**'!r}; {nearest(word or '', known)}")
    return word


def _value(node: ast.expr, text: str) -> Any:
    """A number, word, flag or (as a tuple, so that a mix can be hashed) list."""
    if isinstance(node, ast.Name):  # words need no quotes, which a shell would eat
        return {"true": True, "false": False}.get(node.id, node.id)
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"cannot read the value {ast.unparse(node)!r} in loss {text!r}: expected a number, a word or numbers in []"
        ) from error
    return tuple(value) if isinstance(value, list) else value


def _options(loss: Loss) -> dict[str, Any]:
    parameters = inspect.signature(loss).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in NOT_OPTIONS}


def _first_sentence(loss: Loss) -> str:
    return inspect.getdoc(loss).split("\n\n")[0].replace("\n", " ")  # type: ignore[union-attr]


def _try(term: Term) -> None:
    """Run the loss once on an image of four pixels with as many classes as the options speak of."""
    options = dict(term.options)
    classes = 2
    for key in ("weight", "alpha"):
        if isinstance(options.get(key), Sequence):
            classes = max(classes, len(options[key]))
    if isinstance(options.get("classes"), tuple):
        classes = max(classes, *(k + 1 for k in options["classes"] if isinstance(k, int)), 2)
    try:
        LOSSES[term.name](torch.zeros(1, classes, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long), **options)
    except ConfigError as error:
        raise ConfigError(f"loss {term}: {error}") from error
