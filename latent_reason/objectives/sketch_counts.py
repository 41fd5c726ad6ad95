"""Counts sketches of training data that decoding cannot draw as the data hold them."""

from __future__ import annotations

import math
from itertools import pairwise

from ..model.reasoner import LatentReasoner
from ..trace import Image, Sketch, Text, Trace

COUNTED = ("sketches", "other_number", "too_long", "traces", "too_many", "adjacent")


class SketchCounts:
    """Counts over prepared traces (:meth:`~.objective.Objective.prepare_example`).

    Example:
        >>> counts = SketchCounts(reasoner)
        >>> counts.add(objective.prepare_example(reasoner, trace))
        >>> print(*counts.sentences(), sep="\\n")
    """

    def __init__(self, reasoner: LatentReasoner):
        self.processor, self.switch = reasoner.processor, reasoner.switch
        self.max_spans = 1 if self.switch.start == "first" else self.switch.max_spans
        self.sketches = self.other_number = self.too_long = self.traces = self.too_many = self.adjacent = 0

    def add(self, trace: Trace) -> None:
        """Count one trace."""
        image = None
        for part in (part for message in trace.messages for part in message.content):
            if isinstance(part, Image):
                image = part.image
            elif isinstance(part, Sketch):
                own, used = (grid(part, image) for grid in (self.processor.own_grid, self.processor.span_grid))
                size = None if image is None else self.processor.backbone.token_grid(image)
                number, planned = own[0] * own[1], math.prod(self.processor.planned_grid(size))
                self.sketches += 1
                self.other_number += number != used[0] * used[1]
                learns_number = self.switch.stop != "count"
                self.too_long += learns_number and number > max(1, int(planned * self.switch.cap))
        last = trace.messages[-1].content
        drawn = sum(isinstance(part, Sketch) for part in last)
        spoken = [part for part in last if isinstance(part, Sketch) or (isinstance(part, Text) and part.text)]
        self.traces += bool(drawn)
        self.too_many += drawn > self.max_spans
        self.adjacent += any(isinstance(a, Sketch) and isinstance(b, Sketch) for a, b in pairwise(spoken))

    def numbers(self) -> dict[str, int]:
        """What was counted, by name."""
        return {name: getattr(self, name) for name in COUNTED}

    def set_numbers(self, numbers: dict[str, int]) -> None:
        """Replace what was counted, by sums over processes that counted other traces."""
        for name in COUNTED:
            setattr(self, name, numbers[name])

    def sentences(self) -> list[str]:
        """What to tell the user before training; empty if decoding can draw everything."""
        said = []
        if self.too_long:
            said.append(
                f"{self.too_long:,} of {self.sketches:,} sketches have more latents than decoding may draw: at most "
                f"{self.switch.cap:g} times the number for the image before them. Raise the method's cap, or make images of "
                "sketches smaller."
            )
        if self.other_number:
            said.append(
                f"{self.other_number:,} of {self.sketches:,} sketches would have another number of latents by themselves "
                "(their image has another size than the image before them, they are regions, or the record names k). They are taught with "
                "the number that decoding draws, which follows from the image before them. To keep their own number, "
                "choose a method that learns when to stop."
            )
        if self.too_many:
            said.append(
                f"{self.too_many:,} of {self.traces:,} traces have more sketches than decoding may draw "
                f"({self.max_spans}). Raise method.options.max_spans, or use shorter traces."
            )
        if self.adjacent:
            said.append(
                f"{self.adjacent:,} of {self.traces:,} traces have two sketches without text between them. Decoding "
                "opens a span only after text, so it cannot draw the second."
            )
        return said
