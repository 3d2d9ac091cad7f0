"""Python imports this first of all where its folder is on PYTHONPATH."""

import no_network  # type: ignore[import-not-found]  # noqa: F401 - it lies beside this file
