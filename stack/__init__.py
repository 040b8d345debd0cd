"""The embedded stack: every service the platform needs, on this machine, without Docker."""
