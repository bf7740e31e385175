"""The cards of models in the registry: kept with their model, and gone with it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import fields
from typing import Any

from pipeline.registry.database import Registry
from pipeline.registry.records import ModelCard, StoredModel

_EMPTY = ModelCard()
_FORM_OF: dict[type, Any] = {str: str, tuple: list, type(None): int | float, bool: bool}
"""How values are written in JSON, by the type of an empty field."""


def cards(registry: Registry) -> dict[int, ModelCard]:
    """The cards of all models by the models' ids; those of which nothing is known have none. Raises `RegistryError`."""
    return {row["model"]: card_from(json.loads(row["card"])) for row in registry.rows("SELECT model, card FROM cards")}


def card_of(registry: Registry, model: StoredModel) -> ModelCard:
    """The card of a model, empty if nothing is known of it. Raises `RegistryError`."""
    rows = registry.rows("SELECT card FROM cards WHERE model = ?", (model.id,))
    return card_from(json.loads(rows[0]["card"])) if rows else _EMPTY


def write_card(connection: sqlite3.Connection, model: int, card: ModelCard) -> None:
    """Keep the card of the model with this id instead of what was kept; an empty one takes no room."""
    if card == _EMPTY:
        connection.execute("DELETE FROM cards WHERE model = ?", (model,))
        return
    text = json.dumps(card_values(card), ensure_ascii=False, separators=(",", ":"))
    connection.execute("INSERT OR REPLACE INTO cards VALUES (?, ?)", (model, text))


def card_values(card: ModelCard) -> dict[str, Any]:
    """What is known of a card as plain values for JSON: counts and settings as objects, in their order."""
    known = {name: value for name in _FORMS if (value := getattr(card, name)) != getattr(_EMPTY, name)}
    return {name: dict(value) if name in _PAIRS else value for name, value in known.items()}


def card_from(values: Any) -> ModelCard:
    """The card in such values; fields that a later version has added are left out, and values of a wrong type."""
    if not isinstance(values, dict):
        return _EMPTY
    given: dict[str, Any] = {}
    for name, value in values.items():
        form = _FORMS.get(name)
        if form is not None and isinstance(value, form):
            given[name] = tuple(value.items()) if form is dict else tuple(map(str, value)) if form is list else value
    return ModelCard(**given)


_PAIRS = frozenset({"tag_counts", "settings"})
_FORMS: dict[str, Any] = {
    field.name: dict if field.name in _PAIRS else _FORM_OF[type(getattr(_EMPTY, field.name))]
    for field in fields(ModelCard)
}
