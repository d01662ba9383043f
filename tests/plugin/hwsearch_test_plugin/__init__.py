"""A package outside of hwsearch: two supernets, a device without a clock, and tasks for both."""

from typing import Any

__all__ = ["image_task", "token_task"]


def __getattr__(name: str) -> Any:
    """Import a task when it is asked for: its supernet imports torch, the device does not."""
    if name not in __all__:
        raise AttributeError(name)
    from hwsearch_test_plugin import tasks

    return getattr(tasks, name)
