"""Reports a person wants to look at: one HTML file per training and per evaluation, which needs nothing but itself."""

from __future__ import annotations

from pixelwise.report.examples import examples_of_scores, examples_of_split
from pixelwise.report.page import write_evaluation_report, write_training_report
from pixelwise.report.pictures import Example

__all__ = ["Example", "examples_of_scores", "examples_of_split", "write_evaluation_report", "write_training_report"]
