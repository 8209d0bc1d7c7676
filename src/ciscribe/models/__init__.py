"""One published architecture a file; create one by name, save it, load it or one from elsewhere."""

from ciscribe.models.hub import export_folder, load
from ciscribe.models.registry import card, create, names, save

__all__ = ["card", "create", "export_folder", "load", "names", "save"]
