"""The parser's boxes, plain and with lines around them, become one line that a user understands."""

from __future__ import annotations

import pytest

from pixelwise.complaints import complaint

PLAIN = """
 Value error
 ----------------------------------------------------------------
  Error parsing --epochs: no type matching {None}|INT could be
  instantiated from ['1.5'].

  Got errors:
  - <class 'NoneType'>: ['1.5'] does not match choices ('None',)
  ----------------------------------------------------------------
  Argument helptext:
      --epochs {None}|INT
      Passes over the training images. (default: None)
  ----------------------------------------------------------------
  For full helptext, see pixelwise --help
"""
BOXED = """
╭─ Unrecognized options ─────────────────────╮
│ Unrecognized options: --weigths, x         │
│ ────────────────────────────────────────── │
│ Perhaps you meant:                         │
│     --weights {None}|PATH                  │
│         Start from a model file            │
│         in pixelwise train --help          │
│ ────────────────────────────────────────── │
│ For full helptext, run pixelwise --help    │
╰────────────────────────────────────────────╯
"""


@pytest.mark.parametrize(
    ("box", "line"),
    [
        (PLAIN, "--epochs is '1.5'; expected a whole number."),
        (
            BOXED,
            "Unrecognized options: --weigths, x. Perhaps you meant: --weights. All words: pixelwise --help",
        ),
        ("Error\n---\n Error parsing Settings: lr is -1; it\n must be above 0.", "lr is -1; it must be above 0."),
        ("╭─ Required ─╮\n│ Missing from pixelwise train: │\n│   PATH │\n╰──╯", "Missing from pixelwise train: PATH."),
        ("something else", "Something else."),
    ],
)  # fmt: skip
def test_a_box_becomes_a_line(box, line):
    assert str(complaint(box)) == line
