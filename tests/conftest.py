"""Numeric libraries use one thread in tests as in production; set before anything imports them."""

from headrace.runtime.threads import limit_threads

limit_threads()
