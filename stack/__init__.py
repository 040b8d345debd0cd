"""Runs the embedded stack: every service that the platform needs, on this machine, without Docker."""
