"""Stands for Python's ``turtle`` in the sandbox: the same calls draw on a Pillow image of 512 x 512, without a window.

The origin is the centre, x grows to the right and y up. Headings are degrees against the clock, 0 is right. The drawn
turtle itself, animation, events and undo are left out: their calls do nothing.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

from PIL import Image, ImageColor, ImageDraw

SIZE = 512
MAX_SIDE = 1024
STEP = 6  # degrees of a circle for one line


class _Canvas:
    def __init__(self) -> None:
        self.color_range, self.background = 1.0, (255, 255, 255)
        self.reset(SIZE, SIZE)

    def reset(self, width: int, height: int) -> None:
        self.image, self.is_drawn = Image.new("RGBA", (width, height)), False

    def pen(self) -> ImageDraw.ImageDraw:
        self.is_drawn = True
        return ImageDraw.Draw(self.image)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        return self.image.width / 2 + x, self.image.height / 2 - y

    def read_color(self, *color) -> tuple[int, ...]:
        """RGB of a name, of ``#rrggbb``, or of three numbers up to ``colormode``."""
        if len(color) == 1:
            color = color[0]
        if isinstance(color, str):
            return ImageColor.getrgb(color)[:3]
        return tuple(round(255 * part / self.color_range) for part in color)


_canvas = _Canvas()


def drawn() -> Image.Image | None:
    """The picture, if anything was drawn."""
    if not _canvas.is_drawn:
        return None
    return Image.alpha_composite(Image.new("RGBA", _canvas.image.size, _canvas.background), _canvas.image)


class Turtle:
    def __init__(self, *args, **kwargs) -> None:
        self._start()

    def _start(self) -> None:
        self._x = self._y = self._heading = 0.0
        self._is_down, self._width = True, 1
        self._line = self._fill = (0, 0, 0)
        self._corners: list[tuple[float, float]] | None = None

    def clear(self) -> None:
        _canvas.reset(*_canvas.image.size)

    def reset(self) -> None:
        self.clear()
        self._start()

    # motion

    def goto(self, x, y: float | None = None) -> None:
        x, y = x if y is None else (x, y)
        start, end = _canvas.place(self._x, self._y), _canvas.place(x, y)
        if self._is_down:
            pen, half = _canvas.pen(), (self._width - 1) / 2
            pen.line([start, end], fill=self._line, width=self._width)
            if self._width > 2:  # round ends
                for a, b in (start, end):
                    pen.ellipse([a - half, b - half, a + half, b + half], fill=self._line)
        self._x, self._y = float(x), float(y)
        if self._corners is not None:
            self._corners.append(end)

    def forward(self, distance: float) -> None:
        angle = math.radians(self._heading)
        self.goto(self._x + distance * math.cos(angle), self._y + distance * math.sin(angle))

    def backward(self, distance: float) -> None:
        self.forward(-distance)

    def left(self, angle: float) -> None:
        self._heading = (self._heading + angle) % 360

    def right(self, angle: float) -> None:
        self.left(-angle)

    def setheading(self, angle: float) -> None:
        self._heading = angle % 360

    def setx(self, x: float) -> None:
        self.goto(x, self._y)

    def sety(self, y: float) -> None:
        self.goto(self._x, y)

    def home(self) -> None:
        self.goto(0, 0)
        self.setheading(0)

    def teleport(self, x: float | None = None, y: float | None = None, *, fill_gap: bool = False) -> None:
        is_down, self._is_down = self._is_down, False
        self.goto(self._x if x is None else x, self._y if y is None else y)
        self._is_down = is_down

    def circle(self, radius: float, extent: float | None = None, steps: int | None = None) -> None:
        """A circle or an arc whose centre lies ``radius`` to the left, or to the right if it is negative."""
        extent = 360 if extent is None else extent
        steps = steps or max(1, math.ceil(abs(extent) / STEP))
        turn = extent / steps * (1 if radius >= 0 else -1)
        length = 2 * abs(radius) * math.sin(math.radians(extent / steps) / 2)
        self.left(turn / 2)
        for _ in range(steps):
            self.forward(length)
            self.left(turn)
        self.left(-turn / 2)

    # pen

    def penup(self) -> None:
        self._is_down = False

    def pendown(self) -> None:
        self._is_down = True

    def isdown(self) -> bool:
        return self._is_down

    def pensize(self, width: float | None = None) -> int | None:
        if width is None:
            return self._width
        self._width = max(1, round(width))

    def color(self, *colors) -> None:
        """One color for lines and areas, or two."""
        first, second = colors if len(colors) == 2 else (colors, colors)
        self.pencolor(*(first if isinstance(first, tuple) else (first,)))
        self.fillcolor(*(second if isinstance(second, tuple) else (second,)))

    def pencolor(self, *color) -> None:
        self._line = _canvas.read_color(*color)

    def fillcolor(self, *color) -> None:
        self._fill = _canvas.read_color(*color)

    def begin_fill(self) -> None:
        self._corners = [_canvas.place(self._x, self._y)]

    def end_fill(self) -> None:
        """Fill the area of the way since ``begin_fill``. Its lines are drawn again on top if the pen is down."""
        corners, self._corners = self._corners or [], None
        if len(corners) > 2:
            pen = _canvas.pen()
            pen.polygon(corners, fill=self._fill)
            if self._is_down:
                pen.line([*corners, corners[0]] if corners[0] == corners[-1] else corners, self._line, self._width)

    def dot(self, size: float | None = None, *color) -> None:
        half = (size or max(self._width + 4, 2 * self._width)) / 2
        x, y = _canvas.place(self._x, self._y)
        fill = _canvas.read_color(*color) if color else self._line
        _canvas.pen().ellipse([x - half, y - half, x + half, y + half], fill=fill)

    def write(self, text, move: bool = False, align: str = "left", font=("Arial", 8, "normal")) -> None:
        anchor = {"left": "ls", "center": "ms", "right": "rs"}[align]
        size = font[1] if len(font) > 1 else 8
        _canvas.pen().text(
            _canvas.place(self._x, self._y), str(text), fill=self._line, anchor=anchor, font_size=size * 4 / 3
        )  # points of 72 to an inch, on a screen of 96

    # state

    def position(self) -> tuple[float, float]:
        return self._x, self._y

    def xcor(self) -> float:
        return self._x

    def ycor(self) -> float:
        return self._y

    def heading(self) -> float:
        return self._heading

    def distance(self, x, y: float | None = None) -> float:
        x, y = self._point(x, y)
        return math.hypot(x - self._x, y - self._y)

    def towards(self, x, y: float | None = None) -> float:
        x, y = self._point(x, y)
        return math.degrees(math.atan2(y - self._y, x - self._x)) % 360

    def _point(self, x, y: float | None) -> tuple[float, float]:
        if isinstance(x, Turtle):
            return x.position()
        return x if y is None else (x, y)

    # what only a window has

    def speed(self, *args, **kwargs) -> None:
        """Nothing: there is no animation and no window. So are the calls below."""

    hideturtle = showturtle = shape = shapesize = stamp = ht = st = speed
    fd, bk, back, lt, rt, seth = forward, backward, backward, left, right, setheading
    setpos = setposition = goto
    pu, up, pd, down, width, pos = penup, penup, pendown, pendown, pensize, position


def setup(width: float = SIZE, height: float = SIZE, *place) -> None:
    """The size of the picture in pixels; shares of a screen of 1,024 if at most 1. What was drawn is gone."""
    sides = [side * MAX_SIDE if side <= 1 else side for side in (width, height)]
    _canvas.reset(*(min(MAX_SIDE, max(1, round(side))) for side in sides))


def bgcolor(*color) -> None:
    if color:
        _canvas.background = _canvas.read_color(*color)


def colormode(most: float) -> None:
    _canvas.color_range = most


def done(*args, **kwargs) -> None:
    """Nothing: there is no window. So are the calls below."""


screensize = mainloop = exitonclick = bye = title = tracer = update = delay = listen = onkey = onclick = ontimer = done
RawTurtle = Pen = Turtle
#: the functions of this module draw with one turtle, as those of Python's do
_turtle = Turtle()
_SCREEN = (
    "setup screensize bgcolor clear colormode done mainloop exitonclick bye title tracer update delay listen onkey onclick "
    "ontimer"
)
for _name in dir(Turtle):
    if not _name.startswith("_"):
        globals()[_name] = getattr(_turtle, _name)


def Screen() -> SimpleNamespace:
    return SimpleNamespace(**{name: globals()[name] for name in _SCREEN.split()}, clearscreen=_turtle.clear)


getscreen = Screen
