"""The benchmark tasks: ids, categories, data sets, environments, and the settings that were tuned for them."""

from guidedflow.suites.catalogue import Task, find_task, published_settings, tasks

__all__ = ["Task", "find_task", "published_settings", "tasks"]
