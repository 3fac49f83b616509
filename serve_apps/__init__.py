"""The HTTP endpoints: one Ray Serve application of three deployments.

`Gateway` (HTTP, image decoding, index search) calls `Encoder` (the models, batched over requests).
`Rollout` follows the aliases of the registry and moves both to a new version together.
"""
