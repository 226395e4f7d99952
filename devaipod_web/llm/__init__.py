"""Models: providers, the proxy that adds their credentials, the scripted demo, and what was used."""
