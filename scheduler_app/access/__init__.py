"""Who may call: keys, scopes and origins, for the API and the dashboard alike.

Each view says what it needs with a decorator of `views`. A view that says nothing keeps the application from starting.
With BACKBEAT_API_KEY set, or a key in the database that is not revoked, every call that is not open needs a key.
Without any, only this machine's own programs and pages are answered.
"""

from scheduler_app.access.guard import register_guard
from scheduler_app.access.views import is_open, needs, open_to_all, scope_of

__all__ = ["is_open", "needs", "open_to_all", "register_guard", "scope_of"]
