"""The pods' door: an ASGI application of its own, reached only over the gateway's Unix socket."""
