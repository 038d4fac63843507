"""What the Papers-as-Packages packages share; each part is its own module, imported by name."""

from __future__ import annotations

from papercommons.errors import DataError
from papercommons.versions import installed_version

__version__ = installed_version("papercommons")
__all__ = ["DataError", "__version__"]
