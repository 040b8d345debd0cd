"""The embedded stack: runs every service that the platform needs on this machine, without Docker."""
