"""Work that is shared among processes of this machine or workers of a Ray cluster.

shards.py hands out shards of dates and survives workers that die. processes.py and ray_cluster.py are the two kinds
of workers; they know neither the store nor the model, only a task that they open once and call with each shard.
"""

from __future__ import annotations

from kronos_strategies.distributed.shards import WorkerPool

__all__ = ["WorkerPool", "worker_pool"]


def worker_pool(workers: int = 1, ray: str | None = None, gpus_per_worker: float = 0.0) -> WorkerPool | None:
    """The workers that these settings name; None for this process alone.

    Args:
        workers: number of processes, or of Ray actors.
        ray: "auto" for the Ray cluster that this machine belongs to, "local" to start Ray here, the address of a
            cluster, or None (or "") for processes of this machine.
        gpus_per_worker: GPUs of each Ray actor, may be a fraction; 0 computes on the CPU.

    Raises:
        ValueError: less than one worker, or GPUs without Ray.
        MissingExtra: Ray is not installed.
    """
    if isinstance(workers, bool) or workers != int(workers) or workers < 1:
        raise ValueError(f"workers={workers} cannot compute. Pass 1 or more.")
    if gpus_per_worker < 0:
        raise ValueError(f"gpus_per_worker={gpus_per_worker} is negative. Pass 0 for the CPU.")
    if ray:
        from kronos_strategies.distributed.ray_cluster import RayWorkers

        return RayWorkers(int(workers), ray, gpus_per_worker)
    if gpus_per_worker:
        raise ValueError(
            f"gpus_per_worker={gpus_per_worker} is for Ray, which assigns GPUs. Set ray='local' for those of this "
            "machine."
        )
    if workers == 1:
        return None
    from kronos_strategies.distributed.processes import Processes

    return Processes(int(workers))
