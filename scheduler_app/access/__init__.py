"""Who may call: keys, scopes, sessions and origins, for the API and the dashboard alike.

Each view says what it needs with a decorator of `views`. A view that says nothing keeps the application from starting.
With BACKBEAT_API_KEY set, or a key in the database that is not revoked, every call that is not open needs a key. The
API takes it as a header. The dashboard takes a session, which a key has opened. Without any key, only this machine's
own programs and pages are answered.
"""

from scheduler_app.access.door import register_access
from scheduler_app.access.guard import guard
from scheduler_app.access.pages import COOKIE, PAGES, SignInNeeded
from scheduler_app.access.views import for_signing_in, is_open, needs, open_to_all, scope_of

__all__ = [
    "COOKIE",
    "PAGES",
    "SignInNeeded",
    "for_signing_in",
    "guard",
    "is_open",
    "needs",
    "open_to_all",
    "register_access",
    "scope_of",
]
