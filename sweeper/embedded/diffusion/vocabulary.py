"""The words that the procedural models know, and what each does to the features of a picture.

Any other word still counts: `text` gives it a small vector by hash. Data only; no code but the parsing of the tables.
"""

from __future__ import annotations

from typing import Any

# What an embedding is made of, one dimension each. `hash*` are the dimensions of unknown words.
_GROUPS = (
    "land sea forest mountain city desert snow space room field",  # where
    "animal bird fish person house tower tree flower boat car fruit orb thing",  # what
    "ears tail legs neck",  # what kind of animal
    "subject_y subject_u subject_v subject_colour tint_y tint_u tint_v tint",  # colours
    "dark warm saturation contrast fog stars sunset clouds rain size many symmetry",  # light and composition
    "facets strokes hatch flat glow paper sharp",  # style
)
HASHED = 12
FEATURES: tuple[str, ...] = (*" ".join(_GROUPS).split(), *(f"hash{i}" for i in range(HASHED)))
INDEX = {name: i for i, name in enumerate(FEATURES)}
BACKDROPS = tuple(_GROUPS[0].split())
SUBJECTS = tuple(_GROUPS[1].split())

_COLOURS = """
red 205 35 30, crimson 170 20 45, orange 240 130 25, golden 225 170 45, gold 225 170 45, yellow 245 215 50,
green 50 150 60, emerald 15 140 95, teal 20 140 145, turquoise 50 195 190, cyan 40 200 225, blue 35 85 205,
navy 20 35 95, indigo 65 35 150, purple 125 45 170, violet 145 75 205, magenta 215 35 150, pink 245 140 175,
brown 120 75 40, white 240 240 238, silver 185 190 195, grey 130 130 130, gray 130 130 130, black 25 25 30
"""
# word(s) = feature value, ...; a `colour R G B` entry is the colour that a subject has by itself.
_WORDS = """
landscape valley horizon hills hill = land 1
sea ocean underwater water lake river beach coast waves harbour harbor island = sea 1
forest woods jungle woodland = forest 1
mountain mountains alps peak cliff volcano canyon = mountain 1
city town street skyline tokyo york london urban downtown = city 1
desert dunes sahara mars = desert 1
snow snowy winter ice glacier arctic frozen = snow 1, warm -.25
space galaxy nebula cosmos cosmic universe starfield = space 1, stars 1, dark .15
room interior studio kitchen library portrait closeup = room 1
field meadow garden grass park lawn = field 1
fox = animal 1, ears .9, tail 1, legs .35, colour 214 106 36
cat kitten = animal 1, ears .7, tail .5, legs .25, colour 150 130 115
dog puppy = animal 1, ears -.3, tail .3, legs .45, colour 165 120 75
wolf = animal 1, ears .7, tail .7, legs .55, colour 120 122 128
rabbit bunny hare = animal 1, ears 1.8, tail -.6, legs .1, colour 190 180 170
bear = animal 1, ears -.1, tail -.6, legs .3, size .25, colour 92 64 45
horse unicorn = animal 1, ears .3, tail .6, legs 1.1, neck 1, colour 130 85 55
deer stag giraffe = animal 1, ears .5, tail -.4, legs 1.2, neck 1.3, colour 170 120 75
lion tiger = animal 1, ears -.1, tail .6, legs .5, size .2, colour 215 150 65
dragon dinosaur = animal 1, ears .6, tail 1.4, legs .5, neck 1, size .4, colour 60 130 75
mouse squirrel hedgehog animal = animal 1, ears .3, tail .9, legs .1, size -.2, colour 150 110 80
bird eagle owl crow raven parrot hummingbird = bird 1, colour 90 105 140
fish koi shark whale dolphin = fish 1, sea .6, colour 230 120 60
person man woman girl boy child king queen knight wizard astronaut face robot samurai = person 1, colour 64 88 135
house cottage cabin barn castle temple church = house 1, colour 190 165 140
lighthouse = tower 1, sea .7, colour 232 226 218
tower skyscraper windmill statue = tower 1, colour 170 165 165
tree oak pine palm bonsai = tree 1, colour 60 125 55
flower rose tulip sunflower flowers lotus daisy = flower 1, field .35, colour 225 60 95
boat ship sailboat yacht canoe = boat 1, sea .9, colour 150 85 50
car truck bus train motorcycle vehicle = car 1, colour 200 50 45
apple fruit lemon peach pumpkin teapot cup bottle egg = fruit 1, room .5, colour 215 60 45
moon planet ball sphere balloon orb = orb 1, colour 215 205 180
night midnight dark darkness = dark .85, stars .8, warm -.25
dawn sunrise morning = sunset .7, warm .35, clouds .3
sunset dusk evening golden-hour = sunset 1, warm .6, clouds .4
fog foggy mist misty haze = fog 1
storm stormy thunder dramatic = dark .5, clouds 1, contrast .35
cloud clouds cloudy = clouds 1
rain rainy = rain 1, dark .3, fog .3, warm -.2
sunny bright day summer light = dark -.5, warm .25
autumn fall = warm .7, forest .2, saturation .15
spring = field .4, saturation .15, dark -.2
giant huge big large close = size .5
tiny small little distant far = size -.5
two three many crowd group flock herd = many 1
symmetrical symmetric mandala centered = symmetry 1
abstract = thing .8, facets .3, saturation .3
oil painting impasto painterly = facets .8, strokes .9, saturation .2, contrast .12
impressionist impressionism monet gogh = facets 1.2, strokes 1.2, saturation .4
watercolor watercolour aquarelle = facets .5, paper 1, saturation -.1, contrast -.2, dark -.25, sharp -.15
ink sumi-e calligraphy woodcut engraving etching = saturation -.85, contrast .7, hatch .9, paper .8, sharp .2
pencil sketch charcoal drawing = saturation -.95, contrast .45, hatch 1, paper 1, dark .08
photo photograph photography photorealistic realistic dslr = facets -.3, sharp .3, saturation -.05
cinematic film = contrast .3, dark .2, facets -.2, warm .12
anime manga cartoon comic illustration = flat 1, saturation .4, contrast .2, sharp .2
vector poster minimalist flat = flat 1.2, contrast .2, facets -.6
pastel = saturation -.3, dark -.4, contrast -.25, paper .3
neon cyberpunk synthwave vaporwave = glow 1, dark .35, saturation .5, tint .8 190 60 200
vintage sepia retro old = saturation -.45, warm .5, contrast -.1, paper .4
monochrome noir grayscale greyscale = saturation -1
vivid vibrant colorful colourful saturated = saturation .6
muted desaturated dull = saturation -.4
blurry blurred blur soft bokeh = sharp -.9
sharp detailed detail intricate crisp masterpiece quality hd 4k 8k = sharp .5
contrast = contrast .4
"""
# Words that carry nothing.
_STOP_TEXT = """
a an the of in on at by with and or to from for into over under is are be it its this that as no not very low high worst
best
"""
STOP = frozenset(_STOP_TEXT.split())


def _parse(entry: str) -> tuple[dict[str, float], tuple[int, int, int] | None]:
    values: dict[str, float] = {}
    colour: tuple[int, int, int] | None = None
    for part in entry.split(","):
        name, *numbers = part.split()
        if name == "colour":
            colour = int(numbers[0]), int(numbers[1]), int(numbers[2])
        else:
            values[name] = float(numbers[0])
            if name == "tint" and len(numbers) == 4:
                y, u, v = yuv((int(numbers[1]), int(numbers[2]), int(numbers[3])))
                values |= {"tint_y": y * values[name], "tint_u": u * values[name], "tint_v": v * values[name]}
    return values, colour


def _parse_colours() -> dict[str, tuple[int, int, int]]:
    entries = (entry.split() for entry in _COLOURS.split(","))
    return {name: (int(red), int(green), int(blue)) for name, red, green, blue in entries}


COLOURS = _parse_colours()  # sRGB, 0-255


def yuv(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """`to_yuv` of a colour 0-255."""
    y, u, v = to_yuv(*(value / 255 for value in rgb))
    return y, u, v


def to_yuv(red: Any, green: Any, blue: Any) -> tuple[Any, Any, Any]:
    """From sRGB 0-1 to Y in -0.5 .. 0.5 and U, V (BT.601 weights, analogue scaling)."""
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma - 0.5, 0.492 * (blue - luma), 0.877 * (red - luma)


def _table() -> dict[str, tuple[dict[str, float], tuple[int, int, int] | None]]:
    table = {}
    for line in _WORDS.strip().splitlines():
        words, _, entry = line.partition(" = ")
        for word in words.split():
            table[word] = _parse(entry)
    return table


WORDS = _table()


def yuv_to_rgb(planes: Any) -> Any:
    """Inverse of `to_yuv` for an array [3, ...]: Y in -0.5 .. 0.5, U, V to R, G, B, 0-1 where in gamut."""
    luma = planes[0] + 0.5
    red, blue = luma + planes[2] / 0.877, luma + planes[1] / 0.492
    result = planes.copy()
    result[0], result[1], result[2] = red, (luma - 0.299 * red - 0.114 * blue) / 0.587, blue
    return result
