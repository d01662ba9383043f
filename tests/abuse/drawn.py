"""Values to be drawn, and changed copies of records and of bytes."""

import json

from hypothesis import strategies as st

EDGES = (None, True, -1, 0, 2**63, 10**30, 1e308, -0.0, "", "a", "\0", "../..", [], {}, [[]])
scalars = st.one_of(
    st.sampled_from(EDGES), st.text(max_size=8), st.integers(), st.floats(), st.booleans()
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
names = st.text("abcde.0123456789_", min_size=1, max_size=6)
of_one_kind = st.sampled_from(
    (st.integers(-5, 400), st.floats(0.1, 8), st.text("xyz", min_size=1), st.booleans())
)
options = of_one_kind.flatmap(lambda kind: st.lists(kind, min_size=1, max_size=6, unique=True))


def changed(value, path, new):
    """Return a copy of JSON in which the entry at a path is another one, or gone."""
    if not path:
        return new
    (first, *rest), copy = path, json.loads(json.dumps(value))
    if isinstance(copy, dict) and copy:
        key = sorted(copy)[first % len(copy)]
    elif isinstance(copy, list) and copy:
        key = first % len(copy)
    else:
        return value if new is ... else new
    if rest or new is not ...:
        copy[key] = changed(copy[key], rest, new)
    else:
        del copy[key]
    return copy


changes = st.lists(
    st.tuples(
        st.lists(st.integers(0, 1000), min_size=1, max_size=5), st.one_of(st.just(...), anything)
    ),
    min_size=1,
    max_size=3,
)
damages = st.lists(
    st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 40)), min_size=1, max_size=3
)


def with_changes(record, made):
    for path, new in made:
        record = changed(record, path, new)
    return record


def with_damage(content, made):
    for where, new, cut in made:
        at = int(where * len(content))
        content = content[:at] + new + content[at + cut :]
    return content
