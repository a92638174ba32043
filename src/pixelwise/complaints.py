"""What is wrong with a command line in one line: the parser's boxed text, put in words that a user knows."""

from __future__ import annotations

import re

from pixelwise.errors import ConfigError

KINDS = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path"}
PREFIX = re.compile(r"^Error parsing [^:]+: ")
TYPE = re.compile(r"^Error parsing (?P<name>--?[\w.-]+):.*?\[?'(?P<value>[^']*)'\]?\.?$")
HELP = re.compile(r"For full helptext, (?:run|see):? (.+)$")
NAME = re.compile(r" (--(?!help\b)[a-z][\w.-]*)")
METAVAR = re.compile(r"^(?:--[\w.-]+ )?\[?(?:\{None\}\|)?(?P<kind>[A-Z]+)")


def complaint(box: str) -> ConfigError:
    """The parser's box of several paragraphs -> one error. A text that is no box stays as it is, on one line.

    >>> str(complaint("Value error\\n----\\nError parsing --seed: invalid literal: 'a'\\n----\\n--seed INT"))
    "--seed is 'a'; expected a whole number."
    """
    parts = _paragraphs(box)
    what = parts[0] if parts else ""
    wrong_type = TYPE.match(what)
    if wrong_type is not None:
        kinds = [match["kind"] for part in parts for match in [METAVAR.match(part)] if match and match["kind"] in KINDS]
        expected = KINDS[kinds[0]] if kinds else "another kind of value"
        return ConfigError(f"{wrong_type['name']} is '{wrong_type['value']}'; expected {expected}.")
    if PREFIX.match(what):  # a value that its own setting refuses, with all that is to be said
        return ConfigError(PREFIX.sub("", what))
    what = what.removesuffix(" (required)").replace("Expected 1 values", "Expected 1 value")
    return ConfigError(" ".join([what[:1].upper() + what[1:].rstrip(".:") + ".", *_hints(parts)]))


def _paragraphs(box: str) -> list[str]:
    """The text between rules, each paragraph on one line; the title and the edges are dropped."""
    parts: list[list[str]] = [[]]
    for edged in box.splitlines():
        line = edged.strip("│╭╮╰╯─ \t")
        if not line.strip("- ") or line.endswith("helptext:"):
            parts.append([])
        else:
            parts[-1].append(line)
        if edged.lstrip().startswith("╭"):  # the title stands in the edge, without a rule below it
            parts.append([])
    joined = [" ".join(part) for part in parts if part]
    return joined[1:] if len(joined) > 1 else joined


def _hints(parts: list[str]) -> list[str]:
    """The nearest words, and where to read more."""
    found = []
    for part in parts[1:]:
        more = HELP.search(part)
        if part.startswith("Perhaps you meant:"):
            found.append(f"Perhaps you meant: {', '.join(dict.fromkeys(NAME.findall(part)))}.")
        elif part.startswith("Available subcommands:"):
            found.append(part + ".")
        elif more is not None:
            found.append(f"All words: {more[1]}")
    return found
