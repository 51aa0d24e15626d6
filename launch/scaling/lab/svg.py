"""Pictures as SVG: shapes, numbers and axes. Colours are classes, so that one picture serves light and dark pages."""
from __future__ import annotations

import math
from xml.sax.saxutils import escape

# Okabe and Ito's colours, which colour-blind people tell apart; lighter ones of the same hues on dark ground.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#6E7781")
DARK = ("#4FA8E0", "#F4874B", "#2BC79A", "#E3A3C7", "#F2BB4A", "#9AD4F5", "#B08BCB", "#9AA4AF")
NUM_COLOURS = len(LIGHT)
MARKERS = ("circle", "square", "triangle", "diamond", "down", "pentagon", "circle", "square")


def _style(ground: str, ink: str, soft: str, grid: str, colours: tuple[str, ...]) -> str:
    rules = [
        f".bg{{fill:{ground}}}",
        f".ink{{fill:{ink}}}",
        f".soft{{fill:{soft}}}",
        f".grid{{stroke:{grid}}}",
        f".axis{{stroke:{soft}}}",
        f".ideal{{stroke:{soft}}}",
        f".hollow{{fill:{ground}}}",
        f".edge{{stroke:{ground}}}",
    ]
    for index, colour in enumerate(colours):
        rules.append(f".f{index}{{fill:{colour}}} .s{index}{{stroke:{colour}}}")
    return "".join(rules)


STYLE = (
    "svg.plot text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;font-size:12px}"
    + _style("#ffffff", "#1f2328", "#59636e", "#dde2e7", LIGHT)
    + "@media (prefers-color-scheme:dark){"
    + _style("#0d1117", "#e6edf3", "#9aa4af", "#2b323a", DARK)
    + "}"
)


def number(value: float) -> str:
    """Three digits or so: 12,345 123 12.3 1.23 0.0123."""
    size = abs(value)
    if size >= 99.95 or value == 0:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}".removesuffix(".0")
    if size >= 0.9995:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:.3g}" if size >= 1e-4 else f"{value:.2e}"


def linear_ticks(most: float, count: int = 5) -> list[float]:
    """From 0 to at least `most`, at 1, 2 or 5 times a power of ten."""
    if most <= 0 or not math.isfinite(most):
        return [0.0, 1.0]
    rough = most / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [index * step for index in range(math.ceil(most / step - 1e-9) + 1)]


def power_ticks(least: float, most: float) -> list[float]:
    """Powers of two around both."""
    low, high = math.floor(math.log2(least) + 1e-9), math.ceil(math.log2(most) - 1e-9)
    return [2.0**exponent for exponent in range(low, max(high, low + 1) + 1)]


class Chart:
    """A picture that is being drawn. Coordinates are pixels from the top left."""

    def __init__(self, title: str, width: float, height: float) -> None:
        self.title = title
        self.width = width
        self.height = height
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        css: str = "ink",
        anchor: str = "start",
        size: int = 12,
        bold: bool = False,
        turn: float = 0,
    ) -> None:
        style = (
            f' style="font-size:{size}px{";font-weight:600" if bold else ""}"' if size != 12 or bold else ""
        )
        turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}"{style}{turned}>'
            f"{escape(text)}</text>"
        )

    def line(
        self,
        points: list[tuple[float, float]],
        css: str,
        *,
        width: float = 1,
        dash: str = "",
        opacity: float = 1,
    ) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        faint = f' opacity="{opacity:g}"' if opacity != 1 else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" class="{css}" stroke-width="{width:g}"{dashes}'
            f'{faint} stroke-linejoin="round"/>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, css: str, tip: str = "", opacity: float = 1
    ) -> None:
        faint = f' opacity="{opacity:g}"' if opacity != 1 else ""
        self._parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width, 0):.2f}" height="{height:.2f}" '
            f'class="{css}"{faint}>{_tip(tip)}</rect>'
        )

    def marker(
        self,
        x: float,
        y: float,
        shape: str,
        colour: int,
        *,
        hollow: bool = False,
        tip: str = "",
        radius: float = 5,
    ) -> None:
        r = radius
        css = f'class="{"hollow" if hollow else f"f{colour}"} s{colour}" stroke-width="2"'
        outlines = {
            "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
            "triangle": [(0, -r * 1.2), (r * 1.1, r), (-r * 1.1, r)],
            "diamond": [(0, -r * 1.3), (r * 1.3, 0), (0, r * 1.3), (-r * 1.3, 0)],
            "down": [(0, r * 1.2), (r * 1.1, -r), (-r * 1.1, -r)],
            "pentagon": [
                (r * 1.1 * math.sin(a), -r * 1.1 * math.cos(a))
                for a in (2 * math.pi * k / 5 for k in range(5))
            ],
        }
        if shape == "cross":
            for sign in (1, -1):
                self.line([(x - r, y - sign * r), (x + r, y + sign * r)], f"s{colour}", width=2.2)
        elif shape == "plus":
            self.line([(x - r - 1, y), (x + r + 1, y)], f"s{colour}", width=2.2)
            self.line([(x, y - r - 1), (x, y + r + 1)], f"s{colour}", width=2.2)
        elif shape in outlines:
            corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in outlines[shape])
            self._parts.append(f'<polygon points="{corners}" {css}>{_tip(tip)}</polygon>')
        else:
            self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" {css}>{_tip(tip)}</circle>')

    def inline(self) -> str:
        """For a page that has STYLE."""
        return (
            f'<svg class="plot" viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" '
            f'height="{self.height:.0f}" role="img" xmlns="http://www.w3.org/2000/svg">'
            f"<title>{escape(self.title)}</title>{''.join(self._parts)}</svg>"
        )

    def standalone(self) -> str:
        inside = self.inline()
        begin = inside.index("</title>") + len("</title>")
        ground = f'<style>{STYLE}</style><rect width="100%" height="100%" class="bg"/>'
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{inside[:begin]}{ground}{inside[begin:]}\n'


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
