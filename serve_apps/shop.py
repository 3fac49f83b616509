"""The application that `serve deploy` runs: `import_path: serve_apps.shop:app` in a cluster file.

No `from __future__ import annotations` here: Ray Serve, and `shoplens up` before it, read the type of `args` from the
signature. What runs is imported when it is built, so that reading it does not load a model's libraries.
"""

from ray import serve
from ray.serve import Application

from serve_apps.settings import Settings


def app(args: Settings) -> Application:
    """HTTP -> Gateway -> Encoder, and Rollout beside them. A cluster file may override any option below.

    Admission in the Gateway bounds what is worked on; the queues here are a second wall.
    """
    from serve_apps.encoder import STUCK_AFTER_S, Encoder
    from serve_apps.gateway import Gateway
    from serve_apps.rollout import Rollout

    overload = {"status_code": 503, "retry_after_s": 2}
    rollout = serve.deployment(
        Rollout, name="Rollout", num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0}
    ).bind(args)
    encoder = serve.deployment(
        Encoder,
        name="Encoder",
        max_ongoing_requests=512,
        max_queued_requests=512,
        backpressure_config=overload,
        ray_actor_options={"num_cpus": 0.1},
        health_check_period_s=10,
        health_check_timeout_s=STUCK_AFTER_S + 10,
    ).bind(args, rollout)
    return serve.deployment(
        serve.ingress()(Gateway),
        name="Gateway",
        max_ongoing_requests=512,
        max_queued_requests=512,
        backpressure_config=overload,
        ray_actor_options={"num_cpus": 0.1},
    ).bind(args, encoder, rollout)
