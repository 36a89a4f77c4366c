"""Values that pages share; see services/shared.py."""

from scheduler_app.services.shared import Shared, shared

__all__ = ["Shared", "shared"]
