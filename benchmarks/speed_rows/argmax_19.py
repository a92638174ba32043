"""Labels of 19 classes, four times enlarged to 1024 x 2048, beside F.interpolate and argmax; see argmax_150."""

from __future__ import annotations

from speed_rows.argmax_150 import row

ROW = row(19, 50)
