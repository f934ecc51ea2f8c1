"""ASGI middleware, outermost first: authorisation and timing, then load shedding."""
