"""What characters can be made of: attributes with values and phrases, a template, constraints; as data, and checked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError
from pipeline.ranges import text_fault

MAX_VALUE_LENGTH = 60
MAX_PHRASE_LENGTH = 500
MAX_ATTRIBUTES = 24
MAX_CONSTRAINTS = 100

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_VALUE = re.compile(r"[^\s,;:](?:[^,;:\n\r\t]*[^\s,;:])?")
"""Values become tags, which are told apart by commas and semicolons."""

_PLACE = re.compile(r"\{([^{}]*)\}")
_PART = re.compile(r"\[([^\[\]]*\{[^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Constraint:
    """A row that has one of the values of every attribute in `when` has one of those of every attribute in `then`."""

    when: Mapping[str, frozenset[str]]
    then: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Attributes, each with its values and the phrase that stands for a value where the template has `{attribute}`.

    A part of the template in square brackets is left out where none of its attributes has a phrase.
    """

    template: str
    attributes: Mapping[str, Mapping[str, str]]
    constraints: tuple[Constraint, ...] = ()

    def prompt(self, row: Sequence[str]) -> str:
        """The template with a row's phrases; spaces that an empty phrase leaves behind are tidied up."""
        phrases = {name: phrase[value] for (name, phrase), value in zip(self.attributes.items(), row, strict=True)}

        def phrase_of(place: re.Match[str]) -> str:
            return phrases.get(place[1], "")

        def part_of(part: re.Match[str]) -> str:
            return part[1] if any(map(phrase_of, _PLACE.finditer(part[1]))) else ""

        text = _PLACE.sub(phrase_of, _PART.sub(part_of, self.template))
        return re.sub(r" {2,}", " ", text).strip()


def changed(
    vocabulary: Vocabulary,
    template: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    constraints: Sequence[Any] = (),
) -> Vocabulary:
    """The vocabulary with a user's additions.

    `attributes`: NAME to a list of values, to a mapping of values to phrases, or to None, which leaves the attribute
    out. What the vocabulary's own template does not place is added at its end; a `template` must place all. Constraints
    are added; of the vocabulary's own ones, what speaks of attributes and values that are gone no longer counts.

    Raises `ConfigError` with all faults, each after its place.
    """
    faults: list[str] = []
    merged = dict(vocabulary.attributes)
    for name, values in (attributes or {}).items():
        place = f"attributes.{name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            faults.append(f"{place}: must be a name of small letters, digits and _ (up to 40), such as hair_colour")
        elif values is None:
            if merged.pop(name, None) is None:
                faults.append(
                    f"{place}: is null, but there is no such attribute{_nearest(name, vocabulary.attributes)}"
                )
        else:
            merged[name] = _values(values, place, faults)
    if not 2 <= len(merged) <= MAX_ATTRIBUTES and not faults:
        faults.append(f"attributes: must be 2 to {MAX_ATTRIBUTES} (there are {len(merged)})")
    kept = [one for one in (_reduced(one, merged) for one in vocabulary.constraints) if one is not None]
    if len(constraints) > MAX_CONSTRAINTS:
        faults.append(f"constraints: must be at most {MAX_CONSTRAINTS} (there are {len(constraints)})")
    elif not faults:
        added = [_constraint(one, f"constraints[{number}]", merged, faults) for number, one in enumerate(constraints)]
        kept += [one for one in added if one is not None]
    text = _template(vocabulary, template, merged, faults)
    if faults:
        raise ConfigError(faults)
    return Vocabulary(text, merged, tuple(kept))


def _values(values: Any, place: str, faults: list[str]) -> dict[str, str]:
    """Values and their phrases; in a list a value is its own phrase."""
    if isinstance(values, str) or not isinstance(values, Mapping | Sequence):
        faults.append(f"{place}: must be a list of values, or a mapping of values to phrases (got {values!r})")
        return {}
    pairs = list(values.items()) if isinstance(values, Mapping) else [(value, value) for value in values]
    if not pairs:
        faults.append(f"{place}: is empty; null leaves the attribute out")
    found: dict[str, str] = {}
    for value, phrase in pairs:
        if fault := _value_fault(value):
            faults.append(f"{place}: {value!r}: {fault}")
        elif not isinstance(phrase, str):
            faults.append(f"{place}.{value}: must be text; put it in quotes (got {phrase!r})")
        elif fault := text_fault(phrase):
            faults.append(f"{place}.{value}: {fault}")
        elif len(phrase) > MAX_PHRASE_LENGTH:
            faults.append(f"{place}.{value}: {_too_long(MAX_PHRASE_LENGTH)}")
        elif value in found:
            faults.append(f"{place}: {value!r}: is there twice")
        else:
            found[value] = phrase
    return found


def _value_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be text; put it in quotes"
    if fault := text_fault(value):
        return fault
    if len(value) > MAX_VALUE_LENGTH:
        return f"{_too_long(MAX_VALUE_LENGTH)}; give it a short name: {{name: phrase}}"
    if not _VALUE.fullmatch(value):
        return "becomes a tag and takes no commas, semicolons, colons or outer spaces; give it a name: {name: phrase}"
    return None


def _too_long(most: int) -> str:
    return f"is longer than {most} characters"


def _reduced(constraint: Constraint, attributes: Mapping[str, Mapping[str, str]]) -> Constraint | None:
    """What a constraint still says of the attributes that are left; None if nothing.

    Where a user has replaced all values that it allows, it allows the new ones: it cannot know them.
    """
    when = {name: values.intersection(attributes.get(name, ())) for name, values in constraint.when.items()}
    then = {name: values.intersection(attributes.get(name, ())) for name, values in constraint.then.items()}
    then = {name: values for name, values in then.items() if values}
    return Constraint(when, then) if all(when.values()) and then else None


def _constraint(
    item: Any, place: str, attributes: Mapping[str, Mapping[str, str]], faults: list[str]
) -> Constraint | None:
    if not isinstance(item, Mapping) or set(item) != {"if", "then"}:
        faults.append(f"{place}: must have the keys if and then, such as {{if: {{pose: [sitting]}}, then: {{...}}}}")
        return None
    sides: list[dict[str, frozenset[str]]] = []
    before = len(faults)
    for key in ("if", "then"):
        side: dict[str, frozenset[str]] = {}
        if not isinstance(item[key], Mapping) or not item[key]:
            faults.append(f"{place}.{key}: must be a mapping of attributes to lists of values")
            continue
        for name, values in item[key].items():
            if name not in attributes:
                faults.append(f"{place}.{key}: {name!r}: there is no such attribute{_nearest(name, attributes)}")
                continue
            listed = [values] if isinstance(values, str) else values
            if not isinstance(listed, Sequence) or not listed:
                faults.append(f"{place}.{key}.{name}: must be a list of values (got {values!r})")
                continue
            faults += [
                f"{place}.{key}.{name}: {value!r}: there is no such value{_nearest(value, attributes[name])}"
                for value in listed
                if not isinstance(value, str) or value not in attributes[name]
            ]
            side[name] = frozenset(value for value in listed if isinstance(value, str))
        sides.append(side)
    return Constraint(*sides) if len(faults) == before else None


def _template(vocabulary: Vocabulary, template: str | None, attributes: Mapping[str, Any], faults: list[str]) -> str:
    if template is None:
        placed = set(_PLACE.findall(vocabulary.template))
        added = [name for name in attributes if name not in placed]
        return "".join([vocabulary.template, *(f", {{{name}}}" for name in added)])
    if fault := text_fault(template):
        faults.append(f"template: {fault}")
        return ""
    placed = set(_PLACE.findall(template))
    faults += [
        f"template: {{{name}}}: there is no such attribute{_nearest(name, attributes)}"
        for name in sorted(placed - set(attributes))
    ]
    lacking = [name for name in attributes if name not in placed]
    if lacking:  # a picture would carry as a tag what nobody asked of the model
        places = ", ".join(f"{{{name}}}" for name in lacking)
        faults.append(f"template: lacks {places}; place them, or leave the attributes out ({lacking[0]}: null)")
    return template


def _nearest(word: Any, choices: Iterable[str]) -> str:
    known = list(choices)
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
