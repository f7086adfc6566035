"""What the simulated shop sells: products written by a small grammar for each category.

All names are made up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Category:
    """How its products are called and bought. `peak_month`: when it sells most (0: all year).

    `lasts_days`: when a consumable is bought again (0: it is not).
    """

    path: str
    nouns: tuple[str, ...]
    words: tuple[str, ...]
    sizes: tuple[str, ...]
    price: float
    peak_month: int = 0
    lasts_days: int = 0


CATEGORIES = (
    Category(
        "Home > Lighting",
        ("Table Lamp", "Floor Lamp", "Lantern", "Fairy Lights", "Pendant"),
        ("Brass", "Linen", "Smoked Glass", "Folding", "Rattan", "Dimmable"),
        ("small", "medium", "large"),
        38,
        11,
    ),
    Category(
        "Home > Candles",
        ("Pillar Candle", "Scented Candle", "Tealights", "Taper Candles"),
        ("Beeswax", "Cedar", "Vanilla", "Fig", "Unscented", "Sea Salt"),
        ("set of 2", "set of 6", "40 hours"),
        9,
        12,
        21,
    ),
    Category(
        "Kitchen > Mugs",
        ("Mug", "Espresso Cup", "Travel Mug", "Teacup"),
        ("Stoneware", "Enamel", "Speckled", "Porcelain", "Striped", "Hand-Thrown"),
        ("200 ml", "300 ml", "450 ml"),
        12,
    ),
    Category(
        "Kitchen > Coffee",
        ("Coffee Beans", "Ground Coffee", "Coffee Capsules", "Decaf Beans"),
        ("Ethiopian", "Dark Roast", "Single-Origin", "House Blend", "Organic", "Colombian"),
        ("250 g", "500 g", "1 kg"),
        13,
        0,
        14,
    ),
    Category(
        "Kitchen > Tea",
        ("Green Tea", "Breakfast Tea", "Chai", "Peppermint Tea", "Oolong"),
        ("Loose-Leaf", "Organic", "First-Flush", "Smoked", "Jasmine", "Ginger"),
        ("20 bags", "80 bags", "100 g"),
        7,
        0,
        20,
    ),
    Category(
        "Garden > Seeds",
        ("Tomato Seeds", "Wildflower Mix", "Basil Seeds", "Sunflower Seeds", "Chilli Seeds"),
        ("Heirloom", "Organic", "Dwarf", "Early", "Bee-Friendly", "Giant"),
        ("packet", "box of 5"),
        4,
        4,
    ),
    Category(
        "Garden > Tools",
        ("Hand Trowel", "Secateurs", "Watering Can", "Garden Fork", "Kneeler"),
        ("Stainless", "Ash-Handled", "Compact", "Galvanised", "Left-Handed", "Forged"),
        ("short", "long"),
        24,
        5,
    ),
    Category(
        "Clothing > Scarves",
        ("Scarf", "Snood", "Shawl", "Bandana"),
        ("Merino", "Checked", "Cashmere", "Cable-Knit", "Silk", "Fringed"),
        ("one size", "wide"),
        29,
        12,
    ),
    Category(
        "Clothing > T-Shirts",
        ("T-Shirt", "Long-Sleeve Top", "Henley", "Vest"),
        ("Organic Cotton", "Slub", "Striped", "Heavyweight", "Linen", "Garment-Dyed"),
        ("S", "M", "L", "XL"),
        19,
        7,
    ),
    Category(
        "Toys > Puzzles",
        ("Jigsaw", "Wooden Puzzle", "Puzzle Cube", "Floor Puzzle"),
        ("Lighthouse", "World Map", "Botanical", "Dinosaur", "Night Sky", "Steam Train"),
        ("100 pieces", "500 pieces", "1000 pieces"),
        16,
        12,
    ),
    Category(
        "Toys > Soft Toys",
        ("Bear", "Rabbit", "Fox", "Whale", "Hedgehog"),
        ("Corduroy", "Knitted", "Velvet", "Sleepy", "Tiny", "Patchwork"),
        ("20 cm", "35 cm"),
        18,
        12,
    ),
    Category(
        "Office > Notebooks",
        ("Notebook", "Sketchbook", "Planner", "Index Cards"),
        ("Dotted", "Ruled", "Clothbound", "Recycled", "Spiral", "Pocket"),
        ("A6", "A5", "A4"),
        11,
        9,
    ),
    Category(
        "Pets > Dog Food",
        ("Dry Dog Food", "Dog Treats", "Wet Dog Food", "Dental Chews"),
        ("Salmon", "Grain-Free", "Lamb", "Puppy", "Senior", "Turkey"),
        ("400 g", "2 kg", "6 kg"),
        22,
        0,
        18,
    ),
    Category(
        "Beauty > Soap",
        ("Bar Soap", "Hand Wash", "Shampoo Bar", "Body Wash"),
        ("Olive Oil", "Oat", "Charcoal", "Lavender", "Rosemary", "Goat Milk"),
        ("100 g", "250 ml", "500 ml"),
        6,
        0,
        25,
    ),
    Category(
        "Outdoor > Camping",
        ("Tent", "Sleeping Mat", "Headlamp", "Camp Stove", "Water Bottle"),
        ("Ultralight", "Two-Person", "Insulated", "Waterproof", "Packable", "All-Season"),
        ("regular", "long"),
        65,
        6,
    ),
)

BRANDS = (
    "Alder & Finch", "Brightwater", "Copperhill", "Dunmore", "Elmstead", "Fairlight", "Greyfell", "Harbourne",
    "Inkwell Lane", "Juniper Row", "Kestrel", "Larkfield", "Millbrook", "Northquay", "Oakmere", "Pebble & Pine",
    "Quillon", "Redwater", "Saltmarsh", "Thistledown", "Underhill", "Verity", "Westering", "Yarrow",
)  # fmt: skip

_BRANDS_PER_CATEGORY = 6
_SHARE_LAUNCHED_LATER = 0.15


@dataclass(frozen=True)
class Catalogue:
    """Products in columns; they lie by category: those of category c are first[c] .. first[c + 1]."""

    ids: list[str]
    titles: list[str]
    category: Ints
    first: Ints
    brand: Ints
    price: Floats
    cost: Floats
    quality: Floats
    appeal: Floats
    launch_day: Ints


def make_catalogue(rng: np.random.Generator, products: int, days: int) -> Catalogue:
    """`products` of them, at least one a category; some come on sale during the `days`."""
    category = np.sort(np.arange(products) % len(CATEGORIES))
    brand = _brands(rng, category)
    base = np.array([entry.price for entry in CATEGORIES])[category]
    quality = rng.normal(0.0, 0.6, products)
    price = np.round(base * np.exp(rng.normal(0.0, 0.4, products) + 0.15 * quality), 2) + 0.01
    is_later = rng.random(products) < _SHARE_LAUNCHED_LATER
    return Catalogue(
        ids=[f"p{number:05d}" for number in range(products)],
        titles=_titles(rng, category, brand),
        category=category,
        first=np.searchsorted(category, np.arange(len(CATEGORIES) + 1)),
        brand=brand,
        price=price,
        cost=np.round(price * rng.uniform(0.35, 0.7, products), 2),
        quality=quality,
        # a few products draw most looks, as in every shop
        appeal=rng.pareto(1.2, products) + 0.3,
        launch_day=np.where(is_later, rng.integers(1, max(days, 2), products), 0),
    )


def _brands(rng: np.random.Generator, category: Ints) -> Ints:
    of_category = np.array([rng.permutation(len(BRANDS))[:_BRANDS_PER_CATEGORY] for _ in CATEGORIES])
    return np.asarray(of_category[category, rng.integers(0, _BRANDS_PER_CATEGORY, len(category))], dtype=np.int64)


def _titles(rng: np.random.Generator, category: Ints, brand: Ints) -> list[str]:
    titles: list[str] = []
    taken: dict[str, int] = {}
    draws = rng.random((len(category), 3))
    for kind, maker, (noun, word, size) in zip(category, brand, draws, strict=True):
        words = CATEGORIES[kind]
        title = f"{BRANDS[maker]} {_pick(words.words, word)} {_pick(words.nouns, noun)}, {_pick(words.sizes, size)}"
        taken[title] = taken.get(title, 0) + 1
        titles.append(title if taken[title] == 1 else f"{title}, No. {taken[title]}")
    return titles


def _pick(choices: tuple[str, ...], draw: float) -> str:
    return choices[int(draw * len(choices))]
