"""Memory and time of the contrastive loss, against its dense form and open_clip's `ClipLoss`.

    python benchmarks/contrastive_loss.py [--device cuda] [--batches 8192 32768 ...] [--dim 512] [--out result.json]

It measures one forward and backward pass. `ours` and `dense` use e-CLIP's soft labels by catalog; `dense` keeps the N x N
matrix, as the formula is usually written. `open_clip` supports one text a photo only.

Every measurement runs in a process of its own; forms alternate. Memory is the peak above inputs and their gradients: allocated bytes on
CUDA, resident bytes on a CPU. Time is the median of --repeats passes after one to warm up. With --workers W the batch is
split over W processes. open_clip then uses its local loss (local_loss, gather_with_grad), and worker 0 is measured.

Duration at the default size on 2 cores: about 2 minutes (estimate), after the download of open_clip.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORMS = ("ours", "dense", "open_clip")


def measure(rank: int, options: argparse.Namespace, dtype: str, meet: str) -> None:
    """Prints {peak_mb, seconds, loss} of one form; runs in every worker.

    meet   file where the workers find each other
    """
    import torch
    from torch import distributed
    from torch.nn import functional

    form, device, dim, workers = options.form, options.device, options.dim, options.workers
    n = options.batches[0] // workers
    if device == "cuda":
        torch.cuda.set_device(rank)
    if workers > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
        backend = "nccl" if device == "cuda" else "gloo"
        distributed.init_process_group(backend, init_method=f"file://{meet}", rank=rank, world_size=workers)
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    torch.manual_seed(rank)
    kind = getattr(torch, dtype)
    image, text = (functional.normalize(torch.randn(n, dim), dim=1).to(device, kind).requires_grad_() for _ in range(2))
    catalog = torch.randint(n // 2, (n,), device=device)
    scale = torch.tensor(20.0, device=device, requires_grad=True)

    def loss() -> torch.Tensor:
        if form == "ours":
            from shoplens.objectives.contrastive import ObjectiveConfig, contrastive

            return contrastive(image, text, catalog, scale, ObjectiveConfig()).loss
        if form == "open_clip":
            from open_clip.loss import ClipLoss

            shared = {"local_loss": True, "gather_with_grad": True, "rank": rank, "world_size": workers}
            return ClipLoss(**(shared if workers > 1 else {}))(image, text, scale.to(kind))
        same = (catalog[:, None] == catalog[None, :]).to(kind)
        target = same / same.sum(1, keepdim=True)
        logits = scale.to(kind) * image @ text.T
        by_image = -(target * logits.log_softmax(1)).sum(1)
        by_text = -(target * logits.T.log_softmax(1)).sum(1)
        return (by_image + by_text).mean() / 2

    def step() -> float:
        value = loss()
        value.backward()
        image.grad = text.grad = scale.grad = None
        if device == "cuda":
            torch.cuda.synchronize()
        return float(value)

    small = slice(0, min(n, 256))
    whole = image, text, catalog
    image, text, catalog = (rows[small].detach().requires_grad_(rows.is_floating_point()) for rows in whole)
    step()
    image, text, catalog = whole
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = torch.cuda.memory_allocated() if device == "cuda" else resident("VmRSS")
    value = step()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    gradients = 2 * n * dim * image.element_size()
    if rank == 0:
        figures = {"peak_mb": (peak - before - gradients) / 1e6, "seconds": statistics.median(seconds), "loss": value}
        print(json.dumps(figures), flush=True)


def resident(which: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (the peak) of this process."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(which)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 2048, 4096, 8192], help="global batches")
    parser.add_argument("--dim", type=int, default=512, help="length of a vector")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: bfloat16 on cuda, float32 on cpu")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the batch")
    parser.add_argument("--largest-dense", type=int, help="largest batch of the forms other than ours")
    parser.add_argument("--out", type=Path, help="file of the result (JSON); it is also printed")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtype = options.dtype or ("bfloat16" if options.device == "cuda" else "float32")
    if options.form:
        from torch import multiprocessing

        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(measure, (options, dtype, f"{folder}/meet"), nprocs=options.workers)
        return

    from peers import OPEN_CLIP, environment

    pythons = {"ours": sys.executable, "dense": sys.executable, "open_clip": environment("open_clip", OPEN_CLIP)}
    rows = []
    for n in options.batches:
        row: dict[str, object] = {"batch": n}
        for form in FORMS:
            if form != "ours" and n > (options.largest_dense or n) or form == "dense" and options.workers > 1:
                continue
            flags = ["--device", options.device, "--dim", options.dim, "--dtype", dtype, "--repeats", options.repeats]
            flags += ["--workers", options.workers]
            command = [pythons[form], __file__, "--form", form, "--batches", n, *flags]
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
            failed = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            row[form] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": failed[0]}
            print(n, form, row[form], flush=True)
        rows.append(row)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "dim": options.dim,
        "dtype": dtype,
        "workers": options.workers,
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "device": device_name(options.device)},
        "batches": rows,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
