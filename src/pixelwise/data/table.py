"""The class table beside the data: `classes.txt` or `classes.json`.

classes.txt has one class a line, `#` begins a comment:

    # index name r g b word
    0 road       128 64 128
    1 person     220 20 60   thing
    2 "gate 7"   0 0 90
    3 ground     nothing
    11 unknown   0 0 0       void

index is the id on disk. The colour is optional (all classes or none) and is what colour masks are read through. The
word is optional: `thing` (countable), `stuff` (the default), `void` (unknown, no class: never counts), `nothing` (known
to be none of the classes); a row merely named void is void, too. A comment `# ignore index: 255` makes that id void as
well, also where a class line has it.
Without any index the lines are names, from id 0 on; `__ignore__` is then void (255).

classes.json holds `Classes.to_dict()`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.errors import ConfigError, DataError

Colour = tuple[int, int, int]
NAMES = ("classes.txt", "classes.json", "class_names.txt", "labels.txt")
LINE = re.compile(
    r'(?P<index>-?\d+)\s+(?P<name>"[^"]+"|\S.*?)(?P<rgb>(?:\s+\d+){3})?(?:\s+(?P<word>thing|stuff|void|nothing))?'
)
COMMENT = re.compile(r'^((?:[^"#]|"[^"]*"|"(?!.*"))*)#.*$')  # a # within quotes begins none
IGNORE = re.compile(r"ignore[\s_-]*(?:index|id|label)\s*[:=]?\s*(-?\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Table:
    """What the ids and colours on disk mean.

    classes  the classes; `classes.ids` are ids on disk
    nothing  ids on disk of pixels that are known to belong to no class
    colours  {(r, g, b): id on disk} for colour masks, with those of void and nothing; empty where none are given
    told_things  whether the table says which classes are things
    told_void    whether the table says what is void
    """

    classes: Classes
    nothing: tuple[int, ...] = ()
    colours: dict[Colour, int] = field(default_factory=dict)
    told_things: bool = False
    told_void: bool = False


def write_table(path: Path, classes: Classes, *, unknown: int | None, nothing: int | None) -> None:
    """Writes classes.txt so that `read_table` gives these classes back.

    unknown, nothing   ids on disk of pixels without a class; None where there are none
    Raises ConfigError for a name that holds a quotation mark or a line break.
    """
    for name in classes.names:
        if '"' in name or not name.isprintable():
            raise ConfigError(f"the class name {name!r} cannot stand in classes.txt: rename it without quotes.")
    things = {name: " thing" if name in classes.things else " stuff" for name in classes.names}
    rows = zip(classes.ids, classes.names, classes.colours)
    lines = ["# index name r g b word", *(f'{i} "{n}" {r} {g} {b}{things[n]}' for i, n, (r, g, b) in rows)]
    lines += [] if nothing is None else [f"{nothing} nothing nothing"]
    lines += [] if unknown is None else [f"# ignore index: {unknown}"]
    with atomic(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def free_ids(classes: Classes, most: int = 65535) -> tuple[int, int]:
    """(nothing, unknown): ids on disk for pixels without a class, that no class has.

    Unknown is the data's void id, or 255, or the first id after those of the classes; nothing is the first free id.
    """
    taken = set(classes.ids)
    wishes = [v for v in (*classes.void, 255) if 0 <= v <= most and v not in taken]
    unknown = wishes[0] if wishes else max(taken) + 1
    nothing = next(i for i in range(len(taken) + 2) if i not in taken and i != unknown)
    return nothing, unknown


def find_table(root: Path) -> Path | None:
    """The first class table beside the data, if there is one."""
    return next((root / name for name in NAMES if (root / name).is_file()), None)


def read_table(path: str | Path) -> Table:
    """Reads a class table. Raises DataError naming file and line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: the class table is no UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path}: the class table cannot be read ({error.strerror or error}).") from None
    try:
        return _from_json(text) if path.suffix == ".json" else _from_text(text)
    except (ConfigError, DataError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None


def from_classes(classes: Classes) -> Table:
    """A table from classes that someone made."""
    colours = dict(zip(classes.colours, classes.ids))
    return Table(classes=classes, colours=colours, told_things=bool(classes.things), told_void=True)


def named_classes(root: Path, told: Classes | str | Path | None, found: set[str], notes: list[str]) -> Classes:
    """The classes of shapes that carry names: of the table `told`, or one beside the data, or else the names found.

    All are things where no table says otherwise; what nobody drew is nothing. Raises DataError where there is no name.
    """
    path = None if told is not None else find_table(root)
    if told is None and path is None:
        if not found:
            raise DataError(f"{root}: no shape carries a name, so there is no class; write classes.txt there.")
        names = tuple(sorted(found))
        notes.append(f"No class table: the classes are the {len(names)} labels found, all things.")
        return Classes(names=names, things=names, nothing=True)
    table = from_classes(told) if isinstance(told, Classes) else read_table(told or path or "")
    classes = replace(table.classes, nothing=True)
    return classes if table.told_things else replace(classes, things=classes.names)


def _from_json(text: str) -> Table:
    data = json.loads(text)
    if not isinstance(data, dict) or "names" not in data:
        raise DataError('expected an object with "names" (and "things", "colours", "ids", "void", "nothing").')
    table = from_classes(Classes.from_dict(data))
    return table if data.get("colours") else Table(classes=table.classes, told_things=table.told_things, told_void=True)


def _from_text(text: str) -> Table:
    void = [int(i) for line in text.splitlines() if line.lstrip().startswith("#") for i in IGNORE.findall(line)]
    lines = [(n, COMMENT.sub(r"\1", line).strip()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in lines if line]
    if not lines:
        raise DataError("the class table names no class; write lines `index name r g b`.")
    if not any(re.match(r"-?\d", line) for _, line in lines):
        return _from_names([line for _, line in lines], void)
    rows = [_row(n, line) for n, line in lines]
    void += [index for index, _, _, word in rows if word == "void"]
    nothing = tuple(index for index, _, _, word in rows if word == "nothing" and index not in void)
    kept = [row for row in rows if row[0] not in void and row[0] not in nothing]
    coloured = [row for row in kept if row[2] is not None]
    if coloured and len(coloured) != len(kept):
        bare = next(name for _, name, colour, _ in kept if colour is None)
        raise DataError(f"some classes have a colour and '{bare}' has none; give all of them one, or none.")
    shared = Counter(
        colour for _, _, colour, _ in rows
    )  # such colours tell nothing, so colour masks with them are refused
    classes = Classes(
        names=tuple(name for _, name, _, _ in kept),
        things=tuple(name for _, name, _, word in kept if word == "thing"),
        colours=tuple(colour for _, _, colour, _ in coloured if colour is not None),
        ids=tuple(index for index, *_ in kept),
        void=tuple(dict.fromkeys(void)) or (255,),
        nothing=bool(nothing),
    )
    colours = {colour: index for index, _, colour, _ in rows if colour is not None and shared[colour] == 1}
    told = any(word in ("thing", "stuff") for _, _, _, word in kept)
    return Table(classes=classes, nothing=nothing, colours=colours, told_things=told, told_void=bool(void))


def _row(number: int, line: str) -> tuple[int, str, Colour | None, str | None]:
    match = LINE.fullmatch(line)
    if match is None:
        raise DataError(
            f"line {number} '{line}' is no class; expected `index name r g b`, then perhaps thing, stuff, void "
            "or nothing."
        )
    if re.match(r"\d+\s", match["name"]):
        raise DataError(
            f"line {number} '{line}': the name begins with a number; the order is `index name r g b` (quote the name "
            "if it is meant)."
        )
    rgb = match["rgb"]
    colour = tuple(int(v) for v in rgb.split()) if rgb else None
    if colour and max(colour) > 255:
        raise DataError(f"line {number}: the colour {colour} has a value above 255.")
    word = "void" if match["name"].lower() == "void" else match["word"]  # `255 void` names it and says it at once
    return int(match["index"]), match["name"].strip('"'), colour, word  # type: ignore[return-value]


def _from_names(names: list[str], void: list[int]) -> Table:
    """Names alone, as labelme and VOC tools write them."""
    unknown = [n for n in names if n == "__ignore__"]
    names = [n for n in names if n != "__ignore__"]
    return Table(classes=Classes(names=tuple(names), void=tuple(void) or (255,)), told_void=bool(void or unknown))
