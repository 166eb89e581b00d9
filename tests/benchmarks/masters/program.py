"""A worker for those that start programs and not functions."""

from __future__ import annotations

from work import work

work()
