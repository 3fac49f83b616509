"""Endpoints, one file each: the requests, the answers and the routes. `serve_apps.api` lists the files."""
