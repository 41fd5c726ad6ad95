"""Plots as thoughts (CodePlot-CoT, 2510.11718): plotting code inside the chain of thought, each figure fed back.

The source trains a model on chains with Matplotlib code for mathematics. Here the same turns are asked for by instructions:
code of figures, drawn from the question, as often as ``turns`` allows. There are no demonstrations.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.turns.code import CodeBaseline


@dataclass(frozen=True)
class CodePlot(CodeBaseline):
    PAPER = "arXiv 2510.11718"
    SUMMARY = "writes plotting code inside its chain of thought, and sees each figure"
    INSTRUCTIONS = (
        "Think step by step. Where a figure helps, write Matplotlib code for it in ```python fences, end with plt.show() and "
        "stop. The figure is then shown to you, and you go on."
    )
