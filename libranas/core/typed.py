"""Typed settings: a dataclass says by type hints and :func:`setting` which values its fields take; one check for all.

A number may be text, like ``1e-3`` in YAML and all that is nested in ``--config`` of Snakemake; a whole number may be
a float without a fraction, like ``1e2``. :func:`reader` does the same for a command line.
"""

import difflib
import math
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from datetime import date
from functools import cache
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from libranas.core.errors import LibranasError
from libranas.core.text import literal


class BadSetting(LibranasError, ValueError):
    """A key that does not exist or is missing, or a value that its key does not accept."""


def setting(description: str, default=MISSING, **limits) -> Field:
    """Return a dataclass field that says what it accepts besides its type.

    Parameters
    ----------
    description : for the list of all keys
    default : value where the key is not given; without a default it must be given
    limits : ``least``, ``most``, ``above``, ``below`` of each number; ``length`` (fewest and most entries) and
        ``unique`` of a list; ``pattern`` (a regular expression, and in words) and ``choices`` of each text; of a
        section ``partial`` (it is not filled with defaults) and ``keys`` (a function from its value to its keys)
    """
    return field(default=default, metadata={"description": description, **limits})


@dataclass(frozen=True)
class Key:
    """A key of a section: the type of its value, its default (MISSING: none), and the arguments of :func:`setting`."""

    hint: Any
    default: Any
    limits: Mapping

    def words(self, full: bool = False) -> str:
        """Say what the key accepts: types and names; `full`: limits too."""
        return " or ".join(_words(kind, self.limits, full) for kind in _alternatives(self.hint))


@cache
def keys_of(section: type) -> Mapping[str, Key]:
    """Return the keys of a section, which are the fields of its dataclass."""
    hints = get_type_hints(section)
    return {f.name: Key(hints[f.name], f.default, dict(f.metadata)) for f in fields(section)}


def read(keys: Mapping[str, Key], given: Mapping, prefix: str = "", partial: bool = False) -> dict:
    """Return the values of a section with the types of their keys; sequences are lists.

    BadSetting has a line for each problem: the key, what is expected and what was found.

    Parameters
    ----------
    prefix : what stands before the names of keys in messages, such as ``"data."``
    partial : do not fill in defaults
    """
    problems: list[str] = []
    values = _section(keys, given, prefix, partial, problems)
    if problems:
        raise BadSetting("\n".join(problems))
    return values


#: The limits of a key that names a device.
DEVICE = {"pattern": ("auto|cpu|cuda(:[0-9]+)?", "auto, cpu, cuda or cuda:NUMBER")}


def reader(kind: type, **limits) -> Callable[[str], Any]:
    """Return what reads a text as a value of this kind, within the limits of :func:`setting`; BadSetting otherwise."""

    def of(text: str):
        problems: list[str] = []
        value = _value(Key(kind, MISSING, limits), text, "", problems)
        if problems:
            raise BadSetting(problems[0].removeprefix(": "))
        return value

    return of


def check_fields(instance, prefix: str) -> None:
    """Check the fields of a frozen dataclass in its ``__post_init__``, and give them their types."""
    for name, value in read(keys_of(type(instance)), vars(instance), prefix).items():
        object.__setattr__(instance, name, _nested(value, tuple))


def _section(keys: Mapping[str, Key], given: Mapping, prefix: str, partial: bool, problems: list[str]) -> dict:
    for name in given:
        if name not in keys:
            close = [f"did you mean {prefix}{known}?" for known in _like(name, keys)]
            hint = close[0] if close else f"known keys: {', '.join(sorted(keys))}"
            problems.append(f"{prefix}{name}: unknown key; {hint}")
    values = {}
    for name, key in keys.items():
        if name in given:
            values[name] = _value(key, given[name], f"{prefix}{name}", problems)
        elif is_dataclass(key.hint):
            values[name] = _value(key, {}, f"{prefix}{name}", problems)
        elif key.default is MISSING:
            problems.append(f"{prefix.rstrip('. ') or 'the top level'}: '{name}' is missing")
        elif not partial:
            values[name] = _nested(key.default, list)
    return values


def _value(key: Key, value, where: str, problems: list[str]):
    """Return `value` with the type of the first alternative that takes it; note what is wrong."""
    limits, kinds = key.limits, _alternatives(key.hint)
    if value == "null" and NoneType in kinds:  # all that is nested in --config is text
        return None
    kind, taken = next(((kind, t) for kind in kinds if (t := _taken(kind, value)) is not MISSING), (None, value))
    if isinstance(taken, Mapping) and kind:
        keys = limits["keys"](taken) if "keys" in limits else keys_of(kind)
        return _section(keys, taken, f"{where}.", limits.get("partial", False), problems)
    if kind is None:
        wrong = key.words()
    elif isinstance(taken, list):
        wrong = _wrong_list(kind, taken, limits)
        taken = [_value(_entry(kind, limits), v, f"{where}.{i}", problems) for i, v in enumerate(taken)]
    else:
        wrong = _wrong_scalar(taken, limits)
    if wrong:
        close = _like(value, [*limits.get("choices", ()), *(name for kind in kinds for name in _named(kind))])
        hint = "".join(f"; did you mean {c}?" for c in close)
        if kind is None and str in kinds and isinstance(value, Real | date):
            hint = "; a number or date that is to be text needs quotes in a file, and a letter on a command line"
        number = literal(value) if isinstance(value, str) else value
        if kind is None and isinstance(number, Real) and abs(number) > _LARGEST[int]:
            hint = "; that is too large"
        problems.append(f"{where}: expected {wrong}, got {repr(value)[:200]}{hint}")
    return taken


def _like(name, known: Iterable) -> list[str]:
    """The known name that may be meant, if one is similar."""
    return difflib.get_close_matches(str(name), map(str, known), 1)


def _alternatives(hint) -> list:
    """The types of a union, null last: text stays text where both are possible."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return sorted(kinds, key=lambda kind: kind is NoneType)


def _named(kind) -> tuple:
    return get_args(kind) if get_origin(kind) is Literal else ()


#: Numbers are such as tensors and files can hold.
_LARGEST = {int: 2**63 - 1, float: sys.float_info.max}


def _taken(kind, value):
    """`value` as `kind` has it, MISSING if it has no such value; entries of lists and sections are not looked at."""
    if get_origin(kind) is Literal:
        return next((name for name in get_args(kind) if _taken(type(name), value) == name), MISSING)
    if isinstance(value, str) and kind is not str:
        value = literal(value)
    if kind in (int, float):
        number = isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= _LARGEST[kind]
        return kind(value) if number and (kind is float or value == int(value)) else MISSING
    if get_origin(kind) in (list, tuple):
        return list(value) if isinstance(value, (list, tuple)) else MISSING
    return value if isinstance(value, Mapping if is_dataclass(kind) else kind) else MISSING


def _is_fixed(kind) -> bool:
    """Return whether `kind` is a tuple of so many entries."""
    return get_origin(kind) is tuple and ... not in get_args(kind)


def _length(kind, limits: Mapping) -> tuple[float, float]:
    """Fewest and most entries."""
    return (len(get_args(kind)),) * 2 if _is_fixed(kind) else limits.get("length", (0, math.inf))


def _entry(kind, limits: Mapping) -> Key:
    """The key of each entry of a list. In a tuple of so many lists, ``length`` is that of these lists."""
    own = ("unique",) if _is_fixed(kind) else ("unique", "length")
    return Key(get_args(kind)[0], MISSING, {name: limit for name, limit in limits.items() if name not in own})


def _wrong_list(kind, value: list, limits: Mapping) -> str:
    """Return what is expected in place of the list `value`, "" if that is right."""
    least, most = _length(kind, limits)
    if not least <= len(value) <= most:
        bound = f"at least {least}" if len(value) < least else f"at most {most}"
        return f"a list of {least if least == most else bound}"
    return "a list without repetitions" if limits.get("unique") and len(set(map(repr, value))) < len(value) else ""


_BOUNDS = {
    "least": ("at least", operator.ge),
    "above": ("more than", operator.gt),
    "most": ("at most", operator.le),
    "below": ("less than", operator.lt),
}


def _wrong_scalar(value, limits: Mapping) -> str:
    """Return what is expected in place of the number or text `value`, "" if that is right."""
    if isinstance(value, str):
        known = value in limits.get("choices", (value,)) and re.fullmatch(limits.get("pattern", ["(?s).*"])[0], value)
        return "" if known else _words(str, limits)
    if value is None or isinstance(value, bool):
        return ""
    broken = [name for name, (_, holds) in _BOUNDS.items() if name in limits and not holds(value, limits[name])]
    return f"{_BOUNDS[broken[0]][0]} {limits[broken[0]]}" if broken else ""


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
    dict: "a section",
}


def _words(kind, limits: Mapping, full: bool = False) -> str:
    if names := limits["choices"] if kind is str and "choices" in limits else _named(kind):
        return f"{'one of ' if len(names) > 1 else ''}{', '.join(map(str, names))}"
    if kind is str and "pattern" in limits:
        return limits["pattern"][1]
    if get_origin(kind) in (list, tuple):
        least, most = _length(kind, limits)
        many = f" of at least {least}" * (least > 0) if most == math.inf else f" of {least} to {most}"
        many = f" of {least}" if least == most else many
        return f"a list{many}, each {_entry(kind, limits).words(full)}" if full else "a list"
    bounds = [f"{words} {limits[name]}" for name, (words, _) in _BOUNDS.items() if name in limits]
    bounds = f" of {' and '.join(bounds)}" if full and bounds and kind in (int, float) else ""
    return "a section" if is_dataclass(kind) else _KINDS[kind] + bounds


def _nested(value, sequence: type):
    """`value` with its lists and tuples, at any depth, turned into `sequence`."""
    return sequence(_nested(v, sequence) for v in value) if isinstance(value, (list, tuple)) else value
