"""Image operations as code ("Thinking with Programming Vision", CodeVision; paper 29 of the list): the model turns, crops,
enhances or measures the picture with code of its own, and errors come back as text.

The source trains this with SFT and RL and a dense reward. Here it is asked for by instructions. The code has the last picture
of the item, or the last one that it made, as ``image``. There are no demonstrations.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.turns.code import CodeBaseline


@dataclass(frozen=True)
class CodeTools(CodeBaseline):
    PAPER = "Thinking with Programming Vision"
    GETS_PICTURE = True
    SUMMARY = "changes and measures the picture with code of its own"
    INSTRUCTIONS = (
        "Think step by step. To rotate, crop, enhance or measure the last picture, write Python code in ```python fences and "
        "stop. The picture is the Pillow image `image`; numpy is there; show(picture) shows a picture to you, print a value."
    )
