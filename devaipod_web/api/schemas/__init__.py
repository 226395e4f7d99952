"""What the API takes and answers, one module a room.

Costs are US dollars as decimal strings, times RFC 3339, ids public keys. Each field has a description and an example, of which
the OpenAPI document is made (a test looks at all of them).
"""
