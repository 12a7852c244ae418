"""Local environments of atoms as vectors, patches of the frame around them, and groups of both."""

from adatom.features.descriptors.environments import EnvironmentOptions, Environments, environments
from adatom.features.descriptors.groups import GroupOptions, Groups, fit_groups
from adatom.features.descriptors.patches import patches
from adatom.features.descriptors.steps import group_changes

__all__ = [
    "EnvironmentOptions",
    "Environments",
    "GroupOptions",
    "Groups",
    "environments",
    "fit_groups",
    "group_changes",
    "patches",
]
