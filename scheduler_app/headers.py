"""What every answer tells browsers and caches, also one that does not reach the application."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # what a task holds is for its caller, not for a cache on the way
}
