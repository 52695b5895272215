"""The description of every route in OpenAPI 3.1, at `/docs/openapi.json`."""
