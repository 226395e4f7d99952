"""How each service is asked, and what a restart of it does: one file a service."""
