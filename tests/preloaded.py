"""What processes of `tests.forked` find loaded: most of what a search needs."""

import tests.run.search_parts  # noqa: F401
