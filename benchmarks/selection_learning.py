"""Choosing by rules and ratings, for simulated users: how far below the best model for each look the picked ones stay.

Each of 40 users has a hidden taste: 12 models in 6 looks, an offset for each model and one for each model in each look.
The rules tell only whether a model suits a look better than most, and are right in 75 % of the cells. A user asks for
one look after the other at random, the model with the highest score is taken, and the picture gets 1 to 5 stars with a
noise of 0.7; what was learned counts from the next batch of five on. Regret is in stars a pick.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

from benchmarks.measuring import Row, Scale
from pipeline.learning.preferences import NO_PREFERENCES, Preferences, learn
from pipeline.learning.rated_pictures import MODEL, RatedPicture, credit

USERS, MODELS, LOOKS = 40, 12, 6
PICKS, FROM, BATCH = 200, 150, 5
"""So many pictures are rated by each user, and regret is counted from there on; learned from in batches."""

OFFSET, INTERACTION, NOISE = 0.4, 0.7, 0.7
"""Standard deviations, in stars."""

RIGHT, SUITS = 0.75, 0.5
"""Share of cells in which the rules are right, and the points that they give and take."""

MOST_OF_RULES = 0.4
"""Promised: at most this share of the regret of rules alone."""


@dataclass(frozen=True, slots=True)
class Regret:
    """Mean regret of the counted picks: of rules and ratings, of rules alone, of the model that is best on average."""

    learned: float
    rules: float
    best_single: float


@dataclass(frozen=True, slots=True)
class User:
    """Stars by model and look that the user would give without noise, and what the rules take for them."""

    taste: tuple[tuple[float, ...], ...]
    rules: tuple[tuple[float, ...], ...]

    @classmethod
    def drawn(cls, chance: random.Random) -> User:
        taste = _taste(chance)
        middle = [sorted(look)[MODELS // 2] for look in zip(*taste, strict=True)]
        rules = tuple(
            tuple(
                SUITS if (stars >= half) == (chance.random() < RIGHT) else -SUITS
                for stars, half in zip(row, middle, strict=True)
            )
            for row in taste
        )
        return cls(taste, rules)

    def pick(self, look: int, preferences: Preferences) -> int:
        """The model with the highest score, the first of equal ones."""
        scores = [row[look] + preferences.effect(MODEL, str(model), str(look)) for model, row in enumerate(self.rules)]
        return scores.index(max(scores))

    def regret(self, model: int, look: int) -> float:
        """Stars that a pick stays below the best for this look."""
        return max(row[look] for row in self.taste) - self.taste[model][look]


def simulate(users: int = USERS, picks: int = PICKS, seed: int = 0) -> Regret:
    """Mean regrets over all users of the picks from `FROM` on."""
    chance = random.Random(seed)
    learned: list[float] = []
    rules: list[float] = []
    single: list[float] = []
    for _ in range(users):
        user = User.drawn(chance)
        best = max(range(MODELS), key=lambda model: mean(user.taste[model]))
        for look, model in _picks(user, picks, chance):
            learned.append(user.regret(model, look))
            rules.append(user.regret(user.pick(look, NO_PREFERENCES), look))
            single.append(user.regret(best, look))
    return Regret(mean(learned), mean(rules), mean(single))


def _picks(user: User, picks: int, chance: random.Random) -> list[tuple[int, int]]:
    """Look and model of the counted picks of a user whose pictures are all rated."""
    seen: list[RatedPicture] = []
    made: list[tuple[int, int]] = []
    preferences = NO_PREFERENCES
    for pick in range(picks):
        if pick % BATCH == 0:
            preferences = learn(seen)
        look = chance.randrange(LOOKS)
        model = user.pick(look, preferences)
        made.append((look, model))
        stars = min(max(round(user.taste[model][look] + chance.gauss(0, NOISE)), 1), 5)
        shares = credit(str(model), 1.0, ())
        seen.append(RatedPicture(stars, 0.0, None, str(look), shares, "Euler", 5.0, user.rules[model][look]))
    return made[FROM:]


def _taste(chance: random.Random) -> tuple[tuple[float, ...], ...]:
    rows = []
    for _ in range(MODELS):
        offset = chance.gauss(0, OFFSET)
        rows.append(tuple(3 + offset + chance.gauss(0, INTERACTION) for _ in range(LOOKS)))
    return tuple(rows)


def learning(scale: Scale) -> Iterator[Row]:
    """Regret with ratings against rules alone, and against the best single model."""
    users = scale.of(USERS)
    regret = simulate(users)
    shown = f"{regret.learned:.2f} stars a pick; rules alone {regret.rules:.2f}, best single {regret.best_single:.2f}"
    yield Row(
        "selection.learning_rules",
        f"{users} simulated users, picks {FROM} to {PICKS}: regret against that of rules alone",
        regret.learned / regret.rules,
        "x",
        MOST_OF_RULES,
        shown,
    )
    yield Row(
        "selection.learning_single",
        "the same against that of the best single model",
        regret.learned / regret.best_single,
        "x",
        1.0,
        shown,
    )
