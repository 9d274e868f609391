"""Write the synthetic sentences that the example ships: ``python -m examples.bert.generate [FOLDER] [--seed N]``.

Reviews of five kinds of thing in the format of SST-2: ``sentence<TAB>label``, 1 for praise and 0 for complaint. Six
patterns; in three of them (negation, contrast, concession) a word of the other polarity stands in the sentence, so that
counting words is not enough. Train, dev and test share templates and vocabulary but no sentence: accuracy on them says
that the model has learned this little grammar, and nothing about sentiment in general.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TypeVar

FOLDER = Path(__file__).parent / "data"
SEED = 7
ROWS = {"train": 1200, "dev": 200, "test": 200}

NOUNS = {
    "film": ("plot", "cast", "music", "ending", "dialogue", "photography", "opening", "acting"),
    "meal": ("soup", "bread", "dessert", "waiter", "wine", "starter", "coffee", "terrace"),
    "hotel": ("room", "bed", "breakfast", "reception", "view", "shower", "lobby", "garden"),
    "phone": ("screen", "battery", "speaker", "keyboard", "charger", "manual", "casing", "menu"),
    "journey": ("train", "seat", "timetable", "platform", "ticket", "guide", "bus", "ferry"),
}
GOOD = (
    "splendid", "delightful", "superb", "charming", "excellent", "warm", "brilliant", "lovely", "flawless", "refreshing",
    "generous", "graceful", "impressive", "thoughtful", "elegant", "reliable", "inviting", "polished", "memorable", "cheerful",
)  # fmt: skip
BAD = (
    "dreadful", "tedious", "shabby", "clumsy", "awful", "cold", "careless", "noisy", "broken", "stale",
    "stingy", "awkward", "disappointing", "thoughtless", "ugly", "unreliable", "gloomy", "sloppy", "forgettable", "dull",
)  # fmt: skip
DEGREES = ("", "", "really ", "very ", "quite ", "truly ", "rather ")
OPENERS = ("", "", "honestly , ", "in my view , ", "last week ", "once again ", "this time ", "all in all , ", "i must say ")
CLOSERS = ("", "", "", " throughout", " as usual", " by any measure", " from the start", " for the price")

T = TypeVar("T")


def _pick(chance: random.Random, choices: tuple[T, ...]) -> T:
    # Only random() is promised to give the same numbers in every version of Python; choice() and shuffle() are not.
    return choices[int(chance.random() * len(choices))]


def sentence(chance: random.Random, *, label: int) -> str:
    """One sentence whose verdict is ``label``: 1 praises, 0 complains."""
    same, other = (GOOD, BAD) if label else (BAD, GOOD)
    nouns = NOUNS[_pick(chance, tuple(NOUNS))]
    first = _pick(chance, nouns)
    second = _pick(chance, tuple(noun for noun in nouns if noun != first))
    degree, opener, closer = _pick(chance, DEGREES), _pick(chance, OPENERS), _pick(chance, CLOSERS)
    adjective, another, opposite = _pick(chance, same), _pick(chance, same), _pick(chance, other)
    pattern = _pick(
        chance,
        (
            # Twice, for a model from scratch has to learn what the words mean before it can learn what turns them round.
            f"the {first} was {degree}{adjective}",
            f"the {first} was {degree}{adjective}",
            f"the {first} was {adjective} and the {second} was {degree}{another}",
            f"we found the {first} {degree}{adjective} and even {another}",
            f"the {first} was not {opposite}",
            f"the {first} was {opposite} , but the {second} was {degree}{adjective}",
            f"although the {first} was {degree}{opposite} , the {second} was {adjective}",
        ),
    )
    return f"{opener}{pattern}{closer} ."


def generate(*, seed: int = SEED, rows: dict[str, int] | None = None) -> dict[str, list[tuple[str, int]]]:
    """Sentences with labels for each split, half of them praise, none twice."""
    chance = random.Random(seed)
    seen: set[str] = set()
    splits: dict[str, list[tuple[str, int]]] = {}
    for split, count in (rows or ROWS).items():
        splits[split] = []
        while len(splits[split]) < count:
            label = len(splits[split]) % 2
            text = sentence(chance, label=label)
            if text not in seen:
                seen.add(text)
                splits[split].append((text, label))
    return splits


def write(folder: Path, *, seed: int = SEED, rows: dict[str, int] | None = None) -> None:
    """Write ``train.tsv``, ``dev.tsv`` and ``test.tsv``; the same seed gives the same bytes on every platform."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, examples in generate(seed=seed, rows=rows).items():
        lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in examples)]
        (folder / f"{split}.tsv").write_bytes(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.bert.generate", description="Write the synthetic sentences.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where to write (default: the shipped folder)")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    write(arguments.folder, seed=arguments.seed)
