"""Drawn dogs: breeds as rows of a table, each drawing with its own pose, light and background.

Positions are in dog units: x to the head, y up, the dog about 2 long, its feet on y = 0.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance
from tqdm import tqdm

from cliptune.files import whole_folder
from cliptune.language import translated

Color = tuple[int, int, int]
OVERSAMPLING = 3  # drawn three times as large, then reduced, for smooth edges

GOLD, CREAM, WHITE, BLACK = (214, 160, 82), (240, 218, 170), (245, 243, 238), (48, 44, 46)
BROWN, RED, GREY, TAN = (140, 90, 50), (186, 98, 46), (128, 132, 140), (196, 146, 92)
CHOCOLATE = (88, 56, 38)


@dataclass(frozen=True)
class Breed:
    """What all drawings of one breed share."""

    coat: Color
    second: Color
    pattern: str  # plain, saddle, spots, patches, mask, collar, points
    ears: str  # floppy, pointed, folded
    tail: str  # curled, straight, bushy, short
    legs: float  # length
    body: float  # length
    muzzle: float  # length
    fluff: float  # 0 smooth to 1 woolly

    def words(self) -> tuple[str, ...]:
        """Plain words for what can be seen, for captions."""
        return (
            f"{self.ears} ears",
            f"{self.tail} tail",
            f"{self.pattern} coat",
            "short legs" if self.legs < 0.4 else "long legs" if self.legs > 0.75 else "strong legs",
            "fluffy fur" if self.fluff > 0.5 else "smooth fur",
        )


BREEDS: dict[str, Breed] = {
    "golden_retriever": Breed(GOLD, CREAM, "plain", "floppy", "bushy", 0.62, 1.0, 0.30, 0.7),
    "labrador": Breed((222, 186, 120), CREAM, "plain", "floppy", "straight", 0.64, 1.0, 0.28, 0.0),
    "german_shepherd": Breed(TAN, BLACK, "saddle", "pointed", "bushy", 0.68, 1.1, 0.38, 0.3),
    "siberian_husky": Breed(GREY, WHITE, "mask", "pointed", "curled", 0.64, 0.95, 0.28, 0.5),
    "malamute": Breed(BLACK, WHITE, "mask", "pointed", "curled", 0.68, 1.05, 0.26, 0.9),
    "beagle": Breed(BROWN, WHITE, "collar", "floppy", "straight", 0.46, 0.85, 0.26, 0.0),
    "dalmatian": Breed(WHITE, BLACK, "spots", "floppy", "straight", 0.76, 1.0, 0.30, 0.0),
    "dachshund": Breed(RED, CHOCOLATE, "plain", "floppy", "straight", 0.24, 1.35, 0.38, 0.0),
    "corgi": Breed(RED, WHITE, "collar", "pointed", "short", 0.26, 1.15, 0.26, 0.4),
    "border_collie": Breed(BLACK, WHITE, "collar", "folded", "bushy", 0.62, 1.0, 0.30, 0.8),
    # Further breeds, which only pretraining sees:
    "poodle": Breed(WHITE, CREAM, "plain", "floppy", "short", 0.74, 0.85, 0.30, 1.0),
    "rottweiler": Breed(BLACK, BROWN, "points", "floppy", "short", 0.62, 1.05, 0.20, 0.0),
    "doberman": Breed(BLACK, BROWN, "points", "pointed", "short", 0.84, 1.0, 0.38, 0.0),
    "chihuahua": Breed(CREAM, WHITE, "plain", "pointed", "curled", 0.42, 0.65, 0.14, 0.0),
    "pug": Breed(CREAM, BLACK, "points", "folded", "curled", 0.40, 0.75, 0.06, 0.0),
    "samoyed": Breed(WHITE, CREAM, "plain", "pointed", "curled", 0.60, 0.95, 0.26, 1.0),
    "newfoundland": Breed(BLACK, CHOCOLATE, "plain", "floppy", "bushy", 0.60, 1.15, 0.22, 1.0),
    "greyhound": Breed(GREY, WHITE, "plain", "folded", "straight", 0.95, 1.1, 0.42, 0.0),
    "saint_bernard": Breed(WHITE, RED, "patches", "floppy", "bushy", 0.66, 1.15, 0.20, 0.7),
    "pointer": Breed(WHITE, CHOCOLATE, "patches", "floppy", "straight", 0.78, 1.0, 0.34, 0.0),
    "shiba": Breed(RED, WHITE, "mask", "pointed", "curled", 0.54, 0.85, 0.24, 0.3),
    "airedale": Breed(TAN, BLACK, "saddle", "folded", "short", 0.72, 0.95, 0.36, 0.8),
    "basset": Breed(WHITE, BROWN, "saddle", "floppy", "straight", 0.24, 1.25, 0.30, 0.0),
    "weimaraner": Breed(GREY, GREY, "plain", "floppy", "short", 0.80, 1.0, 0.32, 0.0),
}
DEMO_BREEDS = tuple(BREEDS)[:10]


def draw_dog(breed: str, *, rng: np.random.Generator, size: int = 64) -> Image.Image:
    """One drawing, RGB, `size` × `size`. Raises `ValueError` for a breed not in `BREEDS`."""
    if breed not in BREEDS:
        raise ValueError(f"breed {breed!r}; expected one of {', '.join(BREEDS)}")
    large = size * OVERSAMPLING
    image = _background(large, rng)
    coat, mask, face = _Dog(BREEDS[breed], large, rng).draw()
    image.paste(coat, mask=mask)
    image.paste(face, mask=face.getchannel("A"))
    if rng.random() < 0.2:
        _occlude(image, rng)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.resize((size, size), Image.Resampling.BOX)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.2))
    return ImageEnhance.Color(image).enhance(rng.uniform(0.6, 1.2))


def draw_dataset(
    output_dir: Path,
    *,
    counts: Mapping[str, int],
    breeds: Sequence[str] = DEMO_BREEDS,
    seed: int = 42,
    size: int = 64,
    progress: bool = True,
) -> None:
    """Write `output_dir/<split>/<breed>/<breed>_0001.png`, `counts[split]` of each breed.

    Each drawing depends on the seed, its split, breed and number alone. The folder appears whole.
    """
    jobs = [(s, b, i) for s, count in counts.items() for b in breeds for i in range(count)]
    hidden = None if progress else True  # None: shown on a terminal only
    with whole_folder(output_dir) as partial:
        for split, breed, index in tqdm(
            jobs, translated("drawing"), unit="img", leave=False, disable=hidden
        ):
            key = [seed, zlib.crc32(split.encode()), zlib.crc32(breed.encode()), index]
            path = partial / split / breed / f"{breed}_{index + 1:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_dog(breed, rng=np.random.default_rng(key), size=size).save(path)


class _Dog:
    """One dog on a canvas: silhouette as a mask, coat as colours, face on top."""

    def __init__(self, breed: Breed, canvas: int, rng: np.random.Generator) -> None:
        self.breed, self.rng = breed, rng
        self.scale = canvas * rng.uniform(0.34, 0.46) / (0.75 + 0.35 * breed.body)
        self.x0 = canvas * rng.uniform(0.42, 0.52)
        self.y0 = canvas * rng.uniform(0.80, 0.92)
        self.tilt = rng.uniform(-0.10, 0.28)  # how much the rear is lower: towards sitting
        jitter = rng.uniform(0.88, 1.12) * rng.uniform(0.94, 1.06, 3)
        self.coat = _scaled(breed.coat, jitter)
        self.second = _scaled(breed.second, rng.uniform(0.92, 1.06))
        self.colors = Image.new("RGB", (canvas, canvas), self.coat)
        self.mask = Image.new("L", (canvas, canvas), 0)
        self.face = Image.new("RGBA", (canvas, canvas), (0, 0, 0, 0))
        self.on_colors, self.on_mask = ImageDraw.Draw(self.colors), ImageDraw.Draw(self.mask)
        self.on_face = ImageDraw.Draw(self.face)
        # Joints.
        length, height = breed.body, breed.legs + 0.30
        self.chest = (length / 2, height)
        self.rump = (-length / 2, height - self.tilt)
        lift = rng.uniform(0.30, 0.52)
        self.head = (length / 2 + rng.uniform(0.20, 0.34), height + lift)
        self.depth = 0.33 + 0.06 * breed.fluff  # of the trunk
        self.skull = 0.25

    def draw(self) -> tuple[Image.Image, Image.Image, Image.Image]:
        """(coat RGB, silhouette L, face RGBA)."""
        self._tail()
        self._legs()
        self._trunk()
        self._paint_coat()
        self._head()
        return self.colors, self.mask, self.face

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self.x0 + x * self.scale, self.y0 - y * self.scale

    def _disc(
        self, on: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: object
    ) -> None:
        (left, top), (right, bottom) = self._at(x - rx, y + ry), self._at(x + rx, y - ry)
        on.ellipse((left, top, right, bottom), fill=fill)  # type: ignore[arg-type]

    def _limb(self, points: list[tuple[float, float]], width: float) -> None:
        pixels = [self._at(*point) for point in points]
        self.on_mask.line(pixels, fill=255, width=max(2, int(width * self.scale)), joint="curve")
        for x, y in (points[0], points[-1]):
            self._disc(self.on_mask, x, y, width / 2, width / 2, 255)

    def _tail(self) -> None:
        x, y = self.rump
        x -= 0.25
        if self.breed.tail == "curled":
            angles = np.linspace(-0.5, 4.2, 12)
            points = [(x + 0.1 - 0.2 * np.sin(a), y + 0.42 - 0.2 * np.cos(a)) for a in angles]
            self._limb([(x + 0.1, y), *points], 0.13)
            return
        length, width = {"straight": (0.62, 0.08), "bushy": (0.62, 0.2), "short": (0.16, 0.1)}[
            self.breed.tail
        ]
        rise = self.rng.uniform(-0.5, 0.8)
        middle, tip = (x - length / 2, y + rise * length / 3), (x - length, y + rise * length)
        self._limb([(x + 0.1, y), middle, tip], width)

    def _legs(self) -> None:
        stride = self.rng.uniform(0.02, 0.22)
        width = 0.15 + 0.05 * self.breed.fluff
        for joint, side in ((self.chest, 1), (self.chest, -1), (self.rump, 1), (self.rump, -1)):
            x, y = joint
            foot = x + side * stride * (1 if joint is self.chest else -1)
            self._limb([(x, y - 0.1), ((x + foot) / 2, y / 2), (foot, 0.06)], width)
            self._disc(self.on_mask, foot + 0.06, 0.06, 0.13, 0.07, 255)

    def _trunk(self) -> None:
        (ax, ay), (bx, by) = self.rump, self.chest
        for t in np.linspace(0, 1, 14):
            waist = 1 - 0.18 * np.sin(np.pi * t) * (1 - self.breed.fluff)
            x, y = ax + t * (bx - ax), ay + t * (by - ay)
            self._disc(self.on_mask, x, y, 0.30, self.depth * waist, 255)
        self._limb([(bx + 0.05, by + 0.05), self.head], 0.34 + 0.12 * self.breed.fluff)
        if self.breed.fluff > 0.2:  # tufts along the outline
            for t in self.rng.uniform(0, 1, int(46 * self.breed.fluff)):
                x, y = ax + t * (bx - ax), ay + t * (by - ay)
                side = self.rng.choice([-1, 1])
                self._disc(self.on_mask, x, y + side * self.depth, 0.09, 0.12, 255)

    def _paint_coat(self) -> None:
        (ax, ay), (bx, by) = self.rump, self.chest
        middle, d, rng = (ay + by) / 2, self.depth, self.rng
        match self.breed.pattern:
            case "saddle":
                half = self.breed.body * 0.62
                self._disc(self.on_colors, -0.08, middle + 0.16, half, 0.34, self.second)
            case "spots":
                for _ in range(60):
                    r = rng.uniform(0.03, 0.075)
                    x, y = rng.uniform(ax - 0.6, self.head[0] + 0.2), rng.uniform(0, self.head[1])
                    self._disc(self.on_colors, x, y, r, r, self.second)
            case "patches":
                for _ in range(5):
                    r = rng.uniform(0.14, 0.28)
                    x, y = rng.uniform(ax - 0.2, bx), middle + rng.uniform(-0.2, 0.3)
                    self._disc(self.on_colors, x, y, r, r * 0.8, self.second)
            case "mask":  # pale belly, legs and chest
                self._disc(self.on_colors, 0, middle - 0.62 - d / 3, 3, 0.6, self.second)
                self._disc(self.on_colors, bx + 0.3, by - 0.05, 0.26, 0.3, self.second)
            case "collar":  # pale chest, neck and feet
                self._disc(self.on_colors, bx + 0.24, by + 0.04, 0.26, 0.42, self.second)
                self._disc(self.on_colors, 0, -0.1, 3, 0.3 + 0.2 * self.breed.legs, self.second)
            case "points":  # the second colour on feet and chest
                self._disc(self.on_colors, 0, -0.1, 3, 0.36, self.second)
                self._disc(self.on_colors, bx + 0.3, by - 0.1, 0.12, 0.2, self.second)
        # Shadow under the belly, light along the back.
        shade = Image.new("L", self.colors.size, 0)
        left, bottom = self._at(-3, middle - d * 0.2)
        ImageDraw.Draw(shade).rectangle((left, bottom, *self._at(3, -1)), fill=36)
        self.colors.paste((0, 0, 0), mask=shade)

    def _head(self) -> None:
        breed, (x, y), r = self.breed, self.head, self.skull
        nod = self.rng.uniform(-0.12, 0.08)
        fill, dark = self.coat, _scaled(self.coat, 0.78)
        self._ear(x - 0.10, y, dark)
        self._disc(self.on_face, x, y, r, r, fill)
        tip = (x + r * 0.7 + breed.muzzle * 0.7, y - 0.08 + nod)
        snout = self.second if breed.pattern in ("mask", "collar", "points") else fill
        for t in np.linspace(0, 1, 8):
            mx, my = x + 0.1 + t * (tip[0] - x - 0.1), y - 0.05 + t * (tip[1] - y + 0.05)
            self._disc(self.on_face, mx, my, 0.13, 0.15 - 0.045 * t, snout)
        if breed.pattern == "mask":
            self._disc(self.on_face, x + 0.10, y - 0.06, 0.16, 0.13, self.second)
            self._disc(self.on_face, x + 0.12, y + 0.13, 0.05, 0.04, self.second)
        if breed.pattern == "spots":
            for _ in range(5):
                sx, sy = x + self.rng.uniform(-0.15, 0.15), y + self.rng.uniform(-0.15, 0.15)
                self._disc(self.on_face, sx, sy, 0.035, 0.035, self.second)
        self._disc(self.on_face, tip[0] + 0.09, tip[1] + 0.05, 0.055, 0.05, (25, 22, 24))
        eye = (110, 170, 220) if breed.pattern == "mask" else (35, 25, 20)
        self._disc(self.on_face, x + 0.11, y + 0.07, 0.045, 0.05, eye)
        self._disc(self.on_face, x + 0.125, y + 0.085, 0.015, 0.018, (255, 255, 255))
        self._ear(x - 0.04, y, dark if breed.pattern != "spots" else self.second)

    def _ear(self, x: float, y: float, fill: Color) -> None:
        if self.breed.ears == "pointed":
            points = [(x - 0.13, y + 0.12), (x - 0.04, y + 0.50), (x + 0.12, y + 0.18)]
            self.on_face.polygon([self._at(*point) for point in points], fill=fill)
        elif self.breed.ears == "folded":
            points = [(x - 0.14, y + 0.12), (x - 0.02, y + 0.34), (x + 0.10, y + 0.12)]
            self.on_face.polygon([self._at(*point) for point in points], fill=fill)
            self._disc(self.on_face, x + 0.04, y + 0.22, 0.09, 0.06, fill)
        else:
            self._disc(self.on_face, x - 0.06, y - 0.08, 0.11, 0.27, fill)


def _background(size: int, rng: np.random.Generator) -> Image.Image:
    scenes: list[tuple[Color, Color]] = [
        ((150, 200, 240), (110, 170, 80)),  # meadow
        ((205, 220, 235), (238, 242, 248)),  # snow
        ((226, 205, 178), (150, 110, 80)),  # room
        ((140, 200, 230), (226, 205, 150)),  # beach
        ((235, 200, 170), (120, 120, 126)),  # street at dusk
        ((70, 110, 80), (92, 84, 60)),  # wood
    ]
    sky, ground = scenes[rng.integers(len(scenes))]
    sky, ground = (_scaled(c, rng.uniform(0.8, 1.1)) for c in (sky, ground))
    image = Image.new("RGB", (size, size), sky)
    draw = ImageDraw.Draw(image)
    horizon = int(size * rng.uniform(0.45, 0.75))
    draw.rectangle((0, horizon, size, size), fill=ground)
    for _ in range(rng.integers(4, 14)):
        x, y = rng.uniform(0, size, 2)
        w, h = size * rng.uniform(0.03, 0.25), size * rng.uniform(0.02, 0.08)
        fill = _scaled(sky if y < horizon else ground, rng.uniform(0.82, 1.14))
        draw.ellipse((x - w, y - h, x + w, y + h), fill=fill)
    return image


def _occlude(image: Image.Image, rng: np.random.Generator) -> None:
    """A bush, a ball or a fence before the dog."""
    draw, size = ImageDraw.Draw(image), image.width
    kind = rng.integers(3)
    x = size * rng.uniform(0.1, 0.9)
    if kind == 0:
        for _ in range(16):
            bx, by = x + size * rng.normal(0, 0.07), size * rng.uniform(0.75, 1.0)
            r = size * rng.uniform(0.04, 0.08)
            green = _scaled((70, 130, 60), rng.uniform(0.8, 1.2))
            draw.ellipse((bx - r, by - r, bx + r, by + r), fill=green)
    elif kind == 1:
        r, y = size * rng.uniform(0.06, 0.1), size * rng.uniform(0.78, 0.92)
        color = tuple(int(c) for c in rng.integers(60, 255, 3))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
    else:
        for post in range(4):
            left = size * (0.1 + 0.25 * post) + size * rng.uniform(-0.03, 0.03)
            draw.rectangle((left, size * 0.62, left + size * 0.035, size), fill=(150, 120, 90))


def _scaled(color: Color, factor: object) -> Color:
    red, green, blue = (int(c) for c in np.clip(np.array(color) * np.asarray(factor), 0, 255))
    return red, green, blue
