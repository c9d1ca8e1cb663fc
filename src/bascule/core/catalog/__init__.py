"""The catalogue: components are found by scanning their room's folder and built from plain settings.

A component is a frozen, keyword-only dataclass whose fields are its whole configuration, so every field can change its
result. It is a `@component` class named after its file: `filters/spectral_signatures.py` holds `SpectralSignatures`,
the component `filter/spectral-signatures`. The other files of a room, such as `filters/run.py`, hold none. Other
packages add components through entry points in the group `bascule.<room>`, under names that are not built in. Names and
descriptions are read from the source text: listing imports nothing.

A component class may name one of its fields in a class variable `variant`: `torchvision:resnet18` then is the component
`torchvision` with that field set to `resnet18`.
"""

from bascule.core.catalog.building import Of, build, construct, construct_one_of, describe
from bascule.core.catalog.component import component, contract, is_named
from bascule.core.catalog.consent import ForeignCodeError, names_in, recorded_code, remember_named
from bascule.core.catalog.documentation import (
    Documentation,
    documentation,
    documentation_of,
    documentation_read,
    summary,
)
from bascule.core.catalog.identity import (
    changes_noted,
    check_code,
    code_named,
    code_of,
    codes_in,
    has_code,
    is_foreign,
    origin_of_code,
    recall,
)
from bascule.core.catalog.names import (
    BUILT_IN,
    PACKAGES,
    ROOMS,
    changed_in,
    is_built_in,
    kind_hint,
    load,
    meant_by,
    name_of,
    named_settings,
    names,
    origin,
    plugins_of,
    unknown_kind,
    unknown_name,
)
from bascule.core.catalog.numbers import plain_number
from bascule.core.catalog.terms import TERMS, Term, term_for
from bascule.core.fields import FieldDoc

__all__ = [
    "BUILT_IN",
    "PACKAGES",
    "ROOMS",
    "TERMS",
    "Documentation",
    "FieldDoc",
    "ForeignCodeError",
    "Of",
    "Term",
    "build",
    "changed_in",
    "changes_noted",
    "check_code",
    "code_named",
    "code_of",
    "codes_in",
    "component",
    "construct",
    "construct_one_of",
    "contract",
    "describe",
    "documentation",
    "documentation_of",
    "documentation_read",
    "has_code",
    "is_built_in",
    "is_foreign",
    "is_named",
    "kind_hint",
    "load",
    "meant_by",
    "name_of",
    "named_settings",
    "names",
    "names_in",
    "origin",
    "origin_of_code",
    "plain_number",
    "plugins_of",
    "recall",
    "recorded_code",
    "remember_named",
    "summary",
    "term_for",
    "unknown_kind",
    "unknown_name",
]
