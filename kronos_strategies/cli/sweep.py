"""`kronos sweep`: many settings of portfolio rules on the same stored forecasts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    pass

BEST = "best"  # folder of the report of the best setting


def sweep(
    config: Path,
    /,
    *,
    store: str | None = None,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    output: Path | None = None,
    workers: int | None = None,
) -> None:
    """Backtest many settings of portfolio rules on stored forecasts, and report how likely the best one is luck.

    Signals are computed once and shared by all settings. Finished settings are kept in the output folder: a sweep
    that was stopped resumes, and a longer list costs the new settings only.

    For example: `kronos sweep configs/sweep.yaml --store ~/forecasts --data ~/csi300 --output out/sweep`

    Args:
        config: YAML file with the settings to search; `kronos init configs` writes sweep.yaml.
        store: forecast store in place of that of the file.
        data: Qlib data directory, or file or folder of bars, in place of that of the file.
        output: folder of the results in place of that of the file.
        workers: processes; as many as there are cores when omitted.
    """
    from kronos.utils import usable_cpus
    from kronos_strategies.backtest.search import read_config
    from kronos_strategies.backtest.sweep import Sweep
    from kronos_strategies.report.export import save_report
    from kronos_strategies.report.report import build_report
    from kronos_strategies.report.sweep import save_sweep, show_sweep
    from kronos_strategies.run_artifacts import ARTIFACTS

    settings = read_config(config)
    settings = replace(
        settings, store=store or settings.store, data=data or settings.data, output=output or settings.output
    )
    opened = Sweep(settings)
    result = opened.run(usable_cpus() if workers is None else workers)
    folder = settings.output.expanduser()
    written = save_sweep(result, folder, settings.heat_map)
    artifacts = opened.artifacts(result.best)
    report = save_report(build_report(artifacts), folder / BEST)
    show_sweep(result, [*written, report[0], artifacts.write(folder / BEST / ARTIFACTS)])
