"""A store as pages and JSON, made when they are asked for. The server is in :mod:`pipelines.browse_app`."""
