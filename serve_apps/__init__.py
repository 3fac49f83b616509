"""The HTTP endpoints: one Ray Serve application of three deployments.

`Gateway` (HTTP, image decoding, index search) asks `Encoder` (the model, batched over requests);
`Rollout` follows the registry's alias and moves both to a new version together.
"""
