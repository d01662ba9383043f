"""A package outside of hwsearch: two supernets, a device without a clock, and tasks for both."""

from hwsearch_test_plugin.tasks import image_task, token_task

__all__ = ["image_task", "token_task"]
