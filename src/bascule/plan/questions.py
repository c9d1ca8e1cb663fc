"""What is asked of a cell: its evaluations, each under a key that holds everything that can change the answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bascule.attack import Attack
from bascule.certify import Certifier
from bascule.core.catalog import describe
from bascule.core.errors import RequestError
from bascule.core.fingerprint import fingerprint
from bascule.data import Facts, Source
from bascule.plan.schema import Setup
from bascule.poison import Trigger

STRENGTHS = tuple(step / 10 for step in range(1, 10))
"""Shares of the trigger's full strength at which its success is measured, besides the full one."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """One evaluation of a cell; `key` names its column in the outcomes."""

    key: str
    kind: str
    settings: Any
    component: Any = None
    after: tuple[str, ...] = ()
    """Keys of the evaluations whose survivors this one works on."""
    trigger: Trigger | None = None
    """What test images are stamped with, where the evaluation compares them with and without it."""
    shown: Link | None = None
    """The evaluation whose stamped images this one works on; None: the images as they are."""
    target: int | None = None
    """The poison's target, where the evaluation is about it."""
    radii: tuple[tuple[str, float], ...] = ()
    """For a point of the security curve: what is known already, as (key, eps)."""
    value: float | None = None
    """The radius of a point of the security curve, the strength of a weakened trigger, the size of a scanner's set."""

    @property
    def reach(self) -> dict[str, Any] | None:
        """For attacks and certifiers: the ball they speak of, and whether of the model itself."""
        return reach_of(self.component) if isinstance(self.component, (Attack, Certifier)) else None


def reach_of(part: Attack | Certifier) -> dict[str, Any]:
    """The ball that an attack or a certifier speaks of, and what more there is to know for flags."""
    more = {"uses_gradient": part.uses_gradient} if isinstance(part, Attack) else {"of_model": part.of_model}
    return {"norm": part.norm, "eps": part.eps, **more}


def content_settings(source: Source) -> dict[str, Any]:
    """Settings of a source that change what is read; where it lies does not, its digest says what it holds."""
    return {key: value for key, value in describe(source).items() if key != "path"}


def links_of(
    setup: Setup, facts: Facts, trigger: Trigger | None, target: int | None, needs: Collection[str]
) -> tuple[Link, ...]:
    """Everything that a setup asks of its model.

    Args:
        setup: The recipe with its evaluations.
        facts: About its data.
        trigger: What is stamped on test images, if anything.
        target: Label that the trigger aims at.
        needs: Evaluations that the study's metrics want besides: see `Metric.needs`.
    """
    test = fingerprint("test", facts.digest, content_settings(setup.data))

    def link(kind: str, part: Any = None, after: Sequence[str] = (), **more: Any) -> Link:
        shown, radii = more.get("shown"), more.get("radii", ())
        about = {name: more[name] for name in ("target", "value") if more.get(name) is not None}
        sources = [*([shown.key] if shown else []), *(key for key, _ in radii), *filter(None, [more.get("trigger")])]
        key = f"{kind}:{fingerprint(kind, part, test, *after, *sources, *about.values())}"
        settings = {"name": kind, "parts": describe(part)} if isinstance(part, tuple) else describe(part)
        return Link(
            key=key,
            kind=kind,
            settings={**about, **(settings or {})} if about else settings,  # a component's own setting is not hidden
            component=part,
            after=tuple(after),
            **more,
        )

    def chain(kind: str, first: Link, **more: Any) -> list[Link]:
        """One link for each attack, each after all before it."""
        found = [first]
        for attack in setup.attack:
            for part in attack.parts():
                found.append(link(kind, part, [known.key for known in found], **more))
        return found[1:]

    clean = link("clean")
    attacks = chain("attack", clean)
    found = [clean]
    if trigger is not None:
        shown = link("triggered", trigger)
        found.append(shown)
        found += attacks
        if "attack-triggered" in needs:
            found += chain("attack-triggered", shown, shown=shown)
        if setup.attack:
            first = setup.attack[0].parts()[0]
            for kind in ("toward", "away"):
                if kind in needs:
                    found.append(link(kind, first, [shown.key], shown=shown, target=target))
        if "strength" in needs:
            found += [link("strength", trigger, value=share) for share in STRENGTHS]
    else:
        found += attacks
    found += _curve(setup, attacks, clean, link)
    found += [link("certify", certifier, [clean.key]) for certifier in setup.certify]
    if setup.inspect is not None:
        found.append(link("inspect", setup.inspect))
    if setup.scan is not None:
        found.append(link("scan", setup.scan, value=setup.defender, target=target, trigger=trigger))
    found += [link("explain", part, target=target, trigger=trigger) for part in setup.explain]
    return tuple(found)


def _curve(setup: Setup, attacks: Sequence[Link], clean: Link, link: Any) -> list[Link]:
    """Points of the security curve, outwards from the study's own radius, so that each starts from what is known."""
    if not setup.curve:
        return []
    balls = {(attack.norm, attack.eps) for attack in setup.attack}
    if len(balls) != 1:
        raise RequestError(
            f"a security curve needs attacks that share one norm and eps, got {len(balls)} balls", place=("curve",)
        )
    ((_, own),) = balls
    known = [(attack.key, own) for attack in attacks]
    found = []
    radii = sorted(set(setup.curve) - {own, 0.0})
    for eps in [*(r for r in radii if r > own), *(r for r in reversed(radii) if r < own)]:
        parts = tuple(_resized(part, eps) for attack in setup.attack for part in attack.parts())
        found.append(link("curve", parts, [clean.key], radii=tuple(known), value=eps))
        known.append((found[-1].key, eps))
    return found


def _resized(attack: Attack, eps: float) -> Attack:
    """The attack in another ball, with a step of the same share of its radius."""
    changes: dict[str, Any] = {"eps": eps}
    step = getattr(attack, "step_size", None)
    if step is not None and attack.eps:
        changes["step_size"] = step * eps / attack.eps
    return replace(attack, **changes)
