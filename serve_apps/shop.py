"""The application that `serve deploy` runs: `import_path: serve_apps.shop:app` in a cluster file.

No `from __future__ import annotations` here: Ray Serve, and `shoplens up` before it, read the type of `args` from the
signature. `app` imports the deployments itself, so that reading the signature does not load torch.
"""

from ray import serve
from ray.serve import Application

from serve_apps.settings import Settings


def app(args: Settings) -> Application:
    """HTTP -> Gateway -> Encoder, and Rollout beside them. A cluster file may override any option below.

    Admission in the Gateway limits the work; the bounded queues here are a second limit.
    """
    from serve_apps.api import Ingress
    from serve_apps.encoder import STUCK_AFTER_S, Encoder
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
        serve.ingress()(Ingress),
        name="Gateway",
        max_ongoing_requests=512,
        max_queued_requests=512,
        backpressure_config=overload,
        ray_actor_options={"num_cpus": 0.1},
    ).bind(args, encoder, rollout)
