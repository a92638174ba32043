"""Writes docs/models.md: every net with its paper, parameters and GFLOPs, from the files in src/pixelwise/models."""

from __future__ import annotations

from pathlib import Path

from pixelwise.listing import page

if __name__ == "__main__":
    path = Path(__file__).parent / "models.md"
    path.write_text(page(), encoding="utf-8")
    print(path)
