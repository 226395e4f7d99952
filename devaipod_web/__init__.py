"""devaipod web: the control plane for sandboxed AI coding agents."""

__version__ = "0.1.0"
