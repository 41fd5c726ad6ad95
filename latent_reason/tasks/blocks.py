"""Blocks world: find the moves that turn the stacks of one image into those of another (the blocks task of VSP,
arXiv 2407.01863, with rendered images). A sketch shows the table after each move except the last.

An arrangement is a list of slots from left to right, one per block. A slot holds the colors of a stack from the bottom,
or nothing. A block put on the table goes to the first empty slot. The order of stacks does not matter.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import ClassVar

from PIL import Image as PILImage

from . import canvas
from .canvas import LOOKS, Look
from .checkers import Check, boxed
from .drawn import DrawnTask
from .item import Item, Parsed, Rejected, Step
from .stream import Stream, canon

Slots = list[list[str]]
Move = tuple[str, str]  # (block, destination block or "table")

NAMES = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "magenta")  # all initial letters differ
LONGEST = {3: 4, 4: 5, 5: 6, 6: 7, 7: 9, 8: 10}  # longest sampled plan by number of blocks

QUESTIONS = (
    "Turn the stacks of the first picture into those of the second in as few moves as you can.",
    "Which moves lead from the first picture to the second? Use as few as possible.",
    "Move one block at a time until the first picture looks like the second. What is the shortest plan?",
    "The blocks stand as in the first picture and should stand as in the second. Plan the fewest moves.",
    "Find a shortest plan that rebuilds the first picture into the second.",
)
MOVES = (
    "Move {block} onto {dest}.",
    "Put {block} on {dest}.",
    "Take {block} and put it on {dest}.",
    "Place {block} on {dest}.",
    "Next {block} goes onto {dest}.",
    "Set {block} on {dest}.",
)
CLAUSES = (
    "From the bottom, its stack is now {stack}.",
    "Its stack reads {stack} from below.",
    "That stack, bottom first: {stack}.",
    "Now {stack} stand there, bottom first.",
    "This makes the stack {stack}.",
)
STATES = (
    "Stacks, bottom first: {stacks}.",
    "The stacks from below are: {stacks}.",
    "Table: {stacks}, bottom first.",
    "Read from the bottom, the table holds: {stacks}.",
    "Now the stacks, each from its bottom: {stacks}.",
)
_SAID = re.compile(rf"\b({'|'.join(NAMES)})\b(?: and put it| goes)? on(?:to)? (?:the )?({'|'.join(NAMES)}|table)\b")
_MOVE = re.compile(r"move\s*\(\s*([a-z])[a-z ]*,\s*([a-z])[a-z ]*\)", re.ASCII)


# -- the rules ---------------------------------------------------------------------------------------------------------
def apply_move(slots: Slots, block: str, dest: str) -> Slots | None:
    """The arrangement after a move. None if the move is illegal: a block is not on top, or nothing would change."""
    source = next((s for s in slots if s and s[-1] == block), None)
    target = next((s for s in slots if (s[-1] == dest if s else dest == "table")), None)
    if source is None or target is None or source is target or (dest == "table" and len(source) == 1):
        return None
    return [s[:-1] if s is source else [*s, block] if s is target else s for s in slots]


def after_legal(slots: Slots, move: Move) -> Slots:
    """The arrangement after a move that is known to be legal."""
    after = apply_move(slots, *move)
    assert after is not None
    return after


def legal_moves(slots: Slots) -> list[Move]:
    tops = [s[-1] for s in slots if s]
    return [(b, d) for b in tops for d in (*tops, "table") if apply_move(slots, b, d) is not None]


def arrangement(names: list[str], stream: Stream) -> Slots:
    """A random arrangement. Each block in turn goes on an existing stack or starts a new one."""
    stacks: Slots = []
    for name in names:
        k = stream.below(len(stacks) + 1)
        if k == len(stacks):
            stacks.append([])
        stacks[k].append(name)
    return [*stream.shuffle(stacks), *([] for _ in range(len(names) - len(stacks)))]


def stacks_of(slots: Slots) -> list[list[str]]:
    """The stacks in a canonical order that does not depend on the slots."""
    return sorted(s for s in slots if s)


def below(slots: Slots) -> dict[str, str]:
    """The support of each block: another block or the table."""
    return {block: under for stack in slots for under, block in pairwise(["table", *stack])}


def solve(begin: Slots, end: Slots) -> list[Move]:
    """A shortest plan.

    Moves that put a block in its final position come first, because they are never a loss. If there is none, a block
    must go to the table in between. The plan is shortest if the fewest blocks do so (Gupta and Nau 1992).
    """
    wanted = below(end)

    def finish(slots: Slots, spare: int) -> list[Move] | None:
        plan: list[Move] = []
        while True:
            right = {"table"}
            for stack in slots:
                for under, block in pairwise(["table", *stack]):
                    if wanted[block] != under:
                        break
                    right.add(block)
            tops = [s[-1] for s in slots if s]
            loose = [b for b in tops if b not in right]
            step = next(((b, wanted[b]) for b in loose if wanted[b] == "table" or wanted[b] in right & set(tops)), None)
            if step is None:
                break
            plan.append(step)
            slots = after_legal(slots, step)
        if not loose:
            return plan
        for block in loose if spare else ():
            after = apply_move(slots, block, "table")
            rest = None if after is None else finish(after, spare - 1)
            if rest is not None:
                return [*plan, (block, "table"), *rest]
        return None

    return next(plan for spare in range(len(wanted) + 1) if (plan := finish(begin, spare)) is not None)


def pieces(text: str) -> list[str] | None:
    """The moves as text: those of the boxed answer, else the lines after ``<Output>`` as the benchmark parses them."""
    content = boxed(text)
    if content is not None:
        moves = re.split(r"[;\n]", content)
    elif "<Output>" in text:
        moves = [line[2:] for line in text.split("<Output>", 1)[1].split("\n")[1:]]
    else:
        return None
    moves = [re.sub(r"[\"'.]", "", piece).strip().lower() for piece in moves]
    return [piece for piece in moves if piece.startswith("move")]


def follow(begin: Slots, said: list[str]) -> tuple[Slots, int]:
    """(arrangement after the written moves without illegal ones, number of illegal moves). The first letter identifies
    a block."""
    initials = {name[0]: name for name in (*below(begin), "table")}
    slots, skipped = begin, 0
    for piece in said:
        match = _MOVE.match(piece)
        names = [initials.get(letter) for letter in match.groups()] if match else [None]
        after = None if None in names else apply_move(slots, *names)
        slots, skipped = (slots, skipped + 1) if after is None else (after, skipped)
    return slots, skipped


class Blocks(DrawnTask):
    """Rebuild stacks of blocks. Level = length of a shortest plan, ``blocks`` = minimum and maximum number of blocks.

    The blocks have different colors out of eight, and there are enough of them for the level. A legal move takes a
    block from the top of a stack to the table or to the top of another stack.
    """

    name = "blocks"
    trained = (2, 3, 4, 5, 6)
    ood: ClassVar = {
        "size": {"blocks": (7, 8)},
        "skin": {"skin": "other"},
        "composition": {"level": (7, 8, 9, 10), "blocks": (7, 8)},
    }
    swaps = (NAMES,)
    invariant_to: ClassVar = ("flipped",)
    solve = staticmethod(solve)

    def __init__(self, *, blocks: tuple[int, int] = (4, 6), **options):
        super().__init__(**options)
        fewest, most = blocks
        if not 3 <= fewest <= most <= 8:
            raise ValueError(f"blocks is the minimum and maximum number of blocks, from 3 to 8; got {blocks}.")
        if min(self.levels) < 1 or max(self.levels) > LONGEST[most]:
            raise ValueError(
                f"the level is the number of moves, 1 to {LONGEST[most]} with up to {most} blocks; got {self.levels}"
            )
        self.blocks = blocks

    # -- items ---------------------------------------------------------------------------------------------------------
    def targets(self, level: int, stream: Stream) -> tuple[int, int]:
        """The number of blocks and the length of the plan."""
        return stream.choice([n for n in range(self.blocks[0], self.blocks[1] + 1) if LONGEST[n] >= level]), level

    def draw(self, level: int, targets: tuple[int, int], stream: Stream) -> dict:
        count = targets[0]
        names = stream.shuffle(NAMES)[:count]
        begin = end = arrangement(names, stream)
        if 2 * level <= count + 1:  # short plans are rare between two independent arrangements
            for _ in range(level):
                end = after_legal(end, stream.choice(legal_moves(end)))
            stacks = stream.shuffle(stacks_of(end))
            end = [*stacks, *([] for _ in range(count - len(stacks)))]
        else:
            end = arrangement(stream.shuffle(names), stream)
        return {"begin": begin, "end": end}

    def canon(self, puzzle: dict) -> str:
        return canon("blocks/1", [stacks_of(puzzle["begin"]), stacks_of(puzzle["end"])])

    def verify(self, puzzle: dict, targets: tuple[int, int]) -> None:
        if len(solve(puzzle["begin"], puzzle["end"])) != targets[1]:
            raise Rejected("other length of plan")

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        begin, end, stream = puzzle["begin"], puzzle["end"], self.stream(level, index, "text")
        question = stream.choice(QUESTIONS)
        plan = solve(begin, end)
        steps, slots = [], begin
        for number, (block, dest) in enumerate(plan):
            slots = after_legal(slots, (block, dest))
            text = stream.choice(MOVES).format(block=block, dest="the table" if dest == "table" else dest)
            last = number + 1 == len(plan)  # the second image shows the result of the last move
            if stream.unit() >= self.omit_state_p and not last:
                text = f"{text} {stream.choice(CLAUSES).format(stack=stack_of(slots, block))}"
            steps.append(Step(text, None if last else draw(slots, self.look), {"slots": slots}))
        meta = {"begin": begin, "end": end, "optimum": len(plan), "skin": self.skin, "checker": self.name}
        return self.make_item(
            level, index, puzzle, [draw(begin, self.look), draw(end, self.look)], question, steps, written(plan), meta
        )

    # -- answers -------------------------------------------------------------------------------------------------------
    def check(self, text: str, meta: dict) -> Check:
        """VSP's rule: illegal moves are skipped, and the final stacks must equal the goal stacks in any order.
        ``partial`` is the fraction of blocks with the correct support."""
        written = pieces(text)
        if not written:
            return Check(False, 0.0, "no_plan", written)
        slots, skipped = follow(meta["begin"], written)
        now, wanted = below(slots), below(meta["end"])
        right = sum(now[block] == under for block, under in wanted.items())
        return Check(
            now == wanted,
            right / len(wanted),
            f"{right} of {len(wanted)} blocks right, {skipped} moves skipped",
            written,
        )

    def score(self, text: str, meta: dict) -> dict[str, float]:
        """``strict``: solved without illegal moves. ``exact``: also with a shortest plan. ``placed``: the fraction of
        blocks with the correct support."""
        result = self.check(text, meta)
        strict = result.ok and follow(meta["begin"], result.parsed)[1] == 0
        exact = strict and len(result.parsed) == meta["optimum"]
        return {"success": float(result.ok), "strict": float(strict), "exact": float(exact), "placed": result.partial}

    def wrong(self, item: Item) -> list[str]:
        plan, meta = solve(item.meta["begin"], item.meta["end"]), item.meta
        tries = [
            plan[:-1],
            plan[1:],
            [(b, a) for a, b in plan],
            [*plan[:-1], (plan[-1][0], plan[-1][0])],
            *([*plan, move] for move in legal_moves(meta["end"])),
        ]
        near = [a for a in map(written, tries) if not self.check(f"\\boxed{{{a}}}", meta).ok]
        return [*near, "move(table,table)", f"{written(plan)};".replace("move", "go"), "none"]

    # -- words ---------------------------------------------------------------------------------------------------------
    def state_sentence(self, state: dict, stream: Stream) -> str:
        return stream.choice(STATES).format(stacks=format_slots(state["slots"]))

    def in_words(self, item: Item) -> str:
        """Both arrangements."""
        return (
            f"First picture, each stack from its bottom: {format_slots(item.meta['begin'])}. "
            f"Second picture: {format_slots(item.meta['end'])}."
        )

    def shown(self, item: Item) -> dict:
        return {"slots": item.meta["begin"]}

    def variables(self, state: dict) -> dict:
        """The block at each position above the table."""
        return {(slot, row): name for slot, stack in enumerate(state["slots"]) for row, name in enumerate(stack)}

    def state_said(self, item: Item, said: list[str]) -> dict:
        slots = item.meta["begin"]
        for move in moves_in(" ".join(said)):
            slots = apply_move(slots, *move) or slots
        return {"slots": slots}

    def same(self, one: dict | None, other: dict | None) -> bool:
        return None not in (one, other) and stacks_of(one["slots"]) == stacks_of(other["slots"])

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        moves, slots = moves_in(said), before and before["slots"]
        for move in moves:
            slots = slots and apply_move(slots, *move)
        return bool(moves and slots) and self.same({"slots": slots}, after)

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """1 if the moves written before and after the donor's sketch rebuild the donor's stacks."""
        plan = moves_in(" ".join([before, *after]))
        return self.score(f"\\boxed{{{written(plan)}}}", donor.meta)["success"]

    # -- pictures ------------------------------------------------------------------------------------------------------
    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return draw(state["slots"], LOOKS[item.meta["skin"]])

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        """Read the color of each cell by majority, stacks from the table up. Faults: blocks that float, are missing or
        occur twice."""
        look, count = LOOKS[meta["skin"]], len(meta["begin"])
        side = look.cell
        shades = [colour(name, look) for name in NAMES]
        label_map = canvas.labels(
            canvas.pixels(image, (count + 1) * side, count * side), [*shades, look["paper"], look["ink"]]
        )
        slots: Slots = []
        faults, confidence = set(), 1.0
        for slot in range(count):
            column = []
            for row in range(count):
                label, share = canvas.majority(label_map, top_of(row, count, side), slot * side, side, side)
                if not 0 <= label <= len(NAMES):
                    return Parsed(None, 0.0, ("cell that is neither a block nor empty",))
                confidence = min(confidence, share)
                column.append(NAMES[label] if label < len(NAMES) else None)
            stack = [name for name in column if name]
            if column[: len(stack)] != stack:
                faults.add("block that floats")
            slots.append(stack)
        names = [name for stack in slots for name in stack]
        if len(set(names)) < len(names):
            faults.add("block twice")
        if set(names) != set(below(meta["begin"])):
            faults.add("other blocks than in the problem")
        return Parsed({"slots": slots}, confidence, tuple(sorted(faults)))


# -- text and images ---------------------------------------------------------------------------------------------------
def written(plan: list[Move]) -> str:
    return ";".join(f"move({block},{dest})" for block, dest in plan)


def moves_in(text: str) -> list[Move]:
    """The moves that a text states in the wording of the steps, without its final answer."""
    return _SAID.findall(text)


def stack_of(slots: Slots, block: str) -> str:
    return " ".join(next(s for s in slots if block in s))


def format_slots(slots: Slots) -> str:
    """The slots in text from left to right. Empty slots are named if a stack is to their right."""
    last = max(i for i, stack in enumerate(slots) if stack)
    return ", ".join(" ".join(stack) or "empty" for stack in slots[: last + 1])


def colour(name: str, look: Look) -> canvas.Colour:
    return look["pink" if name == "magenta" else name]


def top_of(row: int, count: int, side: int) -> int:
    """The first pixel row of cells that are ``row`` blocks above the table."""
    return (count - row) * side - side // 2


def draw(slots: Slots, look: Look) -> PILImage.Image:
    """Render the stacks: n x n cells for n blocks, with half a cell of space above and half a cell of table below."""
    side, count = look.cell, len(slots)
    board = canvas.blank((count + 1) * side, count * side, look["paper"])
    canvas.rectangle(board, top_of(-1, count, side), 0, side, count * side, look["ink"])
    for number, stack in enumerate(slots):
        for row, name in enumerate(stack):
            place = top_of(row, count, side), number * side + look.line // 2, side, side - look.line
            canvas.rectangle(board, *place, colour(name, look))
            canvas.frame(board, *place, look.line // 2, look["ink"])
    return canvas.picture(board)
