"""One file an endpoint: its requests, its answers, its route."""
