"""The yards of ``rush_hour``: what cars cover, how they slide, and the search for a shortest plan."""

from __future__ import annotations

from functools import cache
from itertools import pairwise, product

from .stream import Stream

Car = list  # [row, column, length, way]
Move = tuple[int, int]  # number of the car, cells

N, RED_ROW = 6, 2
EMPTY = 6  # largest number of free cells of a sampled yard
MOST_STATES = 1500  # a yard with more states is rarely hard
LETTERS = "ABCDEFGHIJKLMNO"


# -- the rules ---------------------------------------------------------------------------------------------------------
@cache
def mask(lane: int, length: int, way: str, place: int) -> int:
    """The cells of a car as bits. ``lane``: its row (H) or column (V). ``place``: its first cell in the lane."""
    return sum(1 << (lane * N + i if way == "H" else i * N + lane) for i in range(place, place + length))


@cache
def moves_in_lane(lane: int, length: int, way: str) -> list[dict[int, list[tuple[int, int]]]]:
    """For each place of a car and the occupied cells of its lane: the moves as (cells, the cells of the car before or
    after but not both). Moves to the right or down come first, then short ones."""
    spots = [mask(lane, length, way, place) for place in range(N - length + 1)]
    table: list[dict[int, list[tuple[int, int]]]] = [{} for _ in spots]
    for cells in product((0, 1), repeat=N):
        full = sum(mask(lane, 1, way, i) for i, is_full in enumerate(cells) if is_full)
        for place, own in enumerate(spots):
            if full & own == own:
                moves = table[place][full] = []
                for places in (range(place + 1, len(spots)), range(place - 1, -1, -1)):
                    for to in places:
                        if (full ^ own) & spots[to]:
                            break
                        moves.append((to - place, own ^ spots[to]))
    return table


def lane_of(car: Car) -> tuple[int, int, str, int]:
    row, column, length, way = car
    return (row, length, way, column) if way == "H" else (column, length, way, row)


def occupied(cars: list[Car]) -> int:
    return sum(mask(*lane_of(car)) for car in cars)


def slide_car(cars: list[Car], number: int, cells: int) -> list[Car] | None:
    """The state after a move. None if the car does not exist or a cell on its path is not free."""
    if not 0 <= number < len(cars) or not cells:
        return None
    lane, length, way, place = lane_of(cars[number])
    others = occupied(cars) ^ mask(lane, length, way, place)
    low, high = min(place, place + cells), max(place, place + cells) + length
    if low < 0 or high > N or others & mask(lane, high - low, way, low):
        return None
    moved = [lane, place + cells] if way == "H" else [place + cells, lane]
    return [[*moved, length, way] if i == number else car for i, car in enumerate(cars)]


def walk(cars: list[Car], moves: list[Move]) -> list[Car] | None:
    """The state after all moves. None if one of them is not legal."""
    for move in moves:
        after = slide_car(cars, *move)
        if after is None:
            return None
        cars = after
    return cars


def is_solved(cars: list[Car]) -> bool:
    return cars[0][1] == N - 2


class Space:
    """All states reachable from one state, each encoded as an integer with three bits per car.

    ``keys``: the states. ``beside[i]``: indices of the states one move from state i. The search stops after ``most``
    states; then ``whole`` is False.
    """

    def __init__(self, cars: list[Car], most: int):
        lanes = [lane_of(car) for car in cars]
        self.cars = cars
        self.keys = [sum(lane[3] << 3 * i for i, lane in enumerate(lanes))]
        self.beside: list[list[int]] = []
        index, taken = {self.keys[0]: 0}, [occupied(cars)]
        frames = [(3 * i, mask(lane[0], N, lane[2], 0), moves_in_lane(*lane[:3])) for i, lane in enumerate(lanes)]
        while len(self.beside) < len(self.keys) <= most:
            key, full, near = self.keys[len(self.beside)], taken[len(self.beside)], []
            for shift, lane, free in frames:
                for cells, changed in free[key >> shift & 7][full & lane]:
                    there = key + (cells << shift)
                    number = index.setdefault(there, len(index))
                    if number == len(self.keys):
                        self.keys.append(there)
                        taken.append(full ^ changed)
                    near.append(number)
            self.beside.append(near)
        self.whole = len(self.beside) == len(self.keys)

    def layers(self) -> list[list[int]]:
        """The states grouped by their distance from a solved state. Empty if no state can be solved."""
        frontier = [i for i, key in enumerate(self.keys) if key & 7 == N - 2]
        visited, layers = bytearray(len(self.keys)), []
        for i in frontier:
            visited[i] = 1
        while frontier:
            layers.append(frontier)
            frontier = []
            for i in layers[-1]:
                for j in self.beside[i]:
                    if not visited[j]:
                        visited[j] = 1
                        frontier.append(j)
        return layers

    def state(self, number: int) -> list[Car]:
        places = [self.keys[number] >> 3 * i & 7 for i in range(len(self.cars))]
        return [
            [row, p, length, way] if way == "H" else [p, column, length, way]
            for p, (row, column, length, way) in zip(places, self.cars, strict=True)
        ]


def solve(cars: list[Car]) -> list[Move] | None:
    """A shortest plan, None if there is none. Ties are broken in favor of the first car."""
    space = Space(cars, 10**6)
    distance = {number: d for d, layer in enumerate(space.layers()) for number in layer}
    if 0 not in distance:
        return None
    path = [0]
    while distance[path[-1]]:
        path.append(next(j for j in space.beside[path[-1]] if distance[j] == distance[path[-1]] - 1))
    plan = []
    for before, after in pairwise(space.state(number) for number in path):
        car = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
        plan.append((car, sum(after[car][:2]) - sum(before[car][:2])))
    return plan


def positions(length: int) -> list[tuple[Car, int]]:
    """All positions of a car of that length with its cells as bits, except horizontal ones in the red car's row."""
    cars = [
        [lane, p, length, way] if way == "H" else [p, lane, length, way]
        for way in "HV"
        for lane in range(N)
        for p in range(N - length + 1)
        if (lane, way) != (RED_ROW, "H")
    ]
    return [(car, occupied([car])) for car in cars]


SPOTS = {length: positions(length) for length in (2, 3)}


def fill_yard(cars: list[Car], stream: Stream) -> list[Car]:
    """Add random cars until at most ``EMPTY`` cells are free or no car fits."""
    cars, full = list(cars), occupied(cars)
    while N * N - full.bit_count() > EMPTY:
        length = 3 if stream.below(5) < 3 else 2
        free = [(spot, bits) for spot, bits in SPOTS[length] if not bits & full]
        if not free:
            length = 2
            free = [(spot, bits) for spot, bits in SPOTS[length] if not bits & full]
        if not free:
            break
        spot, bits = stream.choice(free)
        cars.append(spot)
        full |= bits
    return cars
