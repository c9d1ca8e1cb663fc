"""What a study must say, or a model be given, before there is anything that a metric could be made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bascule.core.text import joined
from bascule.metrics.contract import AIM, OF_BASE, OF_TWIN

_POISON, _TWIN = "poison", "twin"
_ASKED_BY: Mapping[str, tuple[str, ...]] = {
    AIM: (_POISON,),
    "clean": (),
    "triggered": (_POISON,),
    "triggered-others": ("several",),
    "strength": (_POISON,),
    "attack": ("attack",),
    "curve": ("attack", "curve"),
    **dict.fromkeys(("attack-triggered", "attack-then-trigger", "toward", "away"), ("attack", _POISON)),
    **dict.fromkeys(("retuned", "retuned-triggered"), ("retune", _POISON)),
    **{kind: (kind,) for kind in ("certify", "inspect", "scan", "detect", "explain")},
}
"""By kind of question the keys of a row without which it is not asked, whatever a metric wants."""
_WORDS = {
    "several": "several poisons (`poison: {name: several, ...}`)",
    _TWIN: "a twin (`twin: true`, of a model that the study trains)",
    "inspect": "`filter:` or `inspect:`",
}
"""What keys are called where the key alone does not say it; they are named last."""


def keys_of(needs: Iterable[str]) -> tuple[str, ...]:
    """The keys of a row without which these needs (`Metric.needs`) are not met, each once.

    Raises:
        KeyError: There is no such kind of question.
    """
    keys: list[str] = []
    for need in needs:
        kind = need.removeprefix(OF_TWIN).removeprefix(OF_BASE)
        keys += _ASKED_BY[kind]
        keys += [_POISON, _TWIN] if need.startswith(OF_TWIN) else []
        keys += ["repair"] if need.startswith(OF_BASE) else []
    return tuple(key for key in dict.fromkeys(keys) if not (key == _POISON and "several" in keys))


def in_words(keys: Sequence[str]) -> str:
    """Keys of a study as a sentence names them: "`attack:` and `poison:`"."""
    plain = [f"`{key}:`" for key in keys if key not in _WORDS]
    told = [word for key, word in _WORDS.items() if key in keys]
    if plain and told:  # these are long, and may hold an `or`
        return f"{', '.join([*plain, *told[:-1]])}, and {told[-1]}"
    return joined([*plain, *told])
