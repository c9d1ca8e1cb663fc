"""Study files are garbled; each is planned, or refused in one message."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

from faults.kills import TINY
from faults.trials import Trial, attempt

NONSENSE: list[object] = [
    *(
        0,
        -1,
        1e300,
        float("inf"),
        float("nan"),
        None,
        True,
        "",
        [],
        {},
        [1, [2, [3]]],
        {"name": "pgd"},
        "pgd",
        "digits",
    ),
    *(10**30, {"name": "pgd", "eps": [1]}, "sticker", "8/255", "1/0", "no", "010", "\u202eabc", "a\nb", "\x1b[31mred"),
    *("x" * 100_000, "2024-01-01", [None] * 1000, {"a": {"b": {"c": {}}}}, "../../x", 1_000_000_000, 0.05, [0.1, 0.2]),
]
WORDS = [
    *("0", "1e999", ".nan", "null", "~", "true", "010", "0x10", "8/255", "''", "[]", "{}", "{name: pgd}", "&a", "*a"),
    *("<<: *a", "!!python/object:os.system", "\u202e", "\x00", "'a", "-", "? |", "%", "@", "`", "1000000000"),
    *("[" * 16, "{a: " * 40),
]


def twisted(text: str, chance: random.Random) -> tuple[str, str]:
    """A study file with one or two of its values or keys replaced by nonsense, and where."""
    import yaml

    content = yaml.safe_load(text)
    done = twist(content, chance, NONSENSE)
    return yaml.safe_dump(content, allow_unicode=True), done


def twist(content: object, chance: random.Random, nonsense: Sequence[object]) -> str:
    """Put nonsense in the place of one or two values or keys, wherever they are; says where."""
    done = []
    for _ in range(chance.randint(1, 2)):
        holder, key, path = content, None, []
        value = content
        while isinstance(value, (dict, list)) and value and (not path or chance.random() < 0.9):
            holder = value
            key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
            value = value[key]
            path.append(str(key))
        other = copy.deepcopy(chance.choice(nonsense))
        if isinstance(holder, dict) and chance.random() < 0.2:
            holder[str(other)[:50]] = holder.pop(key)
        elif key is not None:
            holder[key] = other
        done.append(f"{'.'.join(path)} = {str(other)[:20]!r}")
    return ", ".join(done)


def garbled(text: str, chance: random.Random) -> tuple[str, str]:
    """A study file with a few changes, and what they are."""
    lines, done = text.splitlines(), []
    for _ in range(chance.randint(1, 4)):
        how = chance.choice(
            ["word", "word", "word", "drop", "double", "indent", "swap", "bytes", "cut", "nest", "join"]
        )
        place = chance.randrange(len(lines)) if lines else 0
        line = lines[place] if lines else ""
        if how == "word":
            key, colon, _ = line.partition(":")
            lines[place : place + 1] = [f"{key}{colon} {chance.choice(WORDS)}"]
        elif how == "drop":
            del lines[place : place + 1]
        elif how == "double":
            lines.insert(place, line)
        elif how == "indent":
            lines[place : place + 1] = [" " * chance.randint(0, 9) + line.lstrip()]
        elif how == "swap" and lines:
            other = chance.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        elif how == "bytes":
            raw = list(line)
            if raw:
                raw[chance.randrange(len(raw))] = chr(
                    chance.choice([0, 9, 27, 34, 39, 58, 91, 123, 125, 255, 8238, 65279])
                )
            lines[place : place + 1] = ["".join(raw)]
        elif how == "cut":
            lines[place : place + 1] = [line[: chance.randint(0, len(line))]]
        elif how == "nest":
            depth = chance.choice([3, 50, 5000])
            lines[place : place + 1] = [f"{line.partition(':')[0]}: {'[' * depth}{']' * depth}"]
        elif how == "join":
            lines[place : place + 2] = [" ".join(lines[place : place + 2])]
        done.append(f"{how} {place + 1}")
    return "\n".join(lines) + "\n", ", ".join(done)


def study_trial(seed: int) -> Trial:
    """Plan a garbled study."""
    from bascule.plan.document import BUILT_IN, parse_study
    from bascule.plan.overrides import parse_override
    from bascule.plan.resolve import make_plan

    chance = random.Random(seed)
    name, text = chance.choice([("tiny", TINY), ("tiny", TINY), ("digits", (BUILT_IN / "digits.yaml").read_text())])
    text, done = (twisted if chance.random() < 0.6 else garbled)(text, chance)
    changes = []
    if chance.random() < 0.2:
        key = chance.choice(["train.lr", "attack", "seeds", "vary.train.lr", "data"])
        changes.append(f"{key}={chance.choice(WORDS)}")

    def request() -> str:
        overrides = [parse_override(change, "--set") for change in changes]
        plan = make_plan(parse_study(text, name=name, source="garbled.yaml"), overrides=overrides)
        plan.recorded().as_dict()
        return "served"

    outcome, note = attempt(request)
    return Trial(outcome, f"{name}: {done}", note)
