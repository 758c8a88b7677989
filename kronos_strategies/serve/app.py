"""The page's addresses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from kronos.utils import MissingExtra, csv_text, package_version
from kronos_strategies.forecast_view.summary import forecast_steps
from kronos_strategies.report.figures.base import CONFIG, plotly_js
from kronos_strategies.report.figures.forecast import draw
from kronos_strategies.serve.data import RECENT, Data
from kronos_strategies.serve.forecasts import (
    MAX_HORIZON,
    MAX_SAMPLES,
    ForecastRequest,
    ForecastResult,
    Forecasts,
)
from kronos_strategies.serve.jobs import BusyError, Event, Job, JobRunner
from kronos_strategies.serve.reports import Reports
from kronos_strategies.serve.server import LocalOnly

try:
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.types import ASGIApp
except ImportError as error:
    raise MissingExtra("The page needs FastAPI: pip install 'kronos-strategies[serve]'") from error

STATIC = Path(__file__).parent / "static"
FILES = {
    "page.css": (Path(__file__).parents[1] / "report" / "templates" / "page.css", "text/css"),
    "serve.css": (STATIC / "serve.css", "text/css"),
    "serve.js": (STATIC / "serve.js", "text/javascript"),
}
# Saved pages have scripts of their own: these run without an origin, and reach neither this server nor another.
SAVED_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def make_app(forecasts: Forecasts, reports: Reports, runner: JobRunner, port: int) -> ASGIApp:
    """The application, which answers only requests of this machine's own page."""
    app = FastAPI(title="Kronos", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    _add_errors(app)
    _add_files(app, reports)
    _add_choices(app, forecasts)
    _add_forecasts(app, forecasts, runner)
    return LocalOnly(app, port)


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


def _add_errors(app: FastAPI) -> None:
    """Errors as one sentence."""

    @app.exception_handler(StarletteHTTPException)  # the base of FastAPI's
    def refused(request: Request, error: StarletteHTTPException) -> Response:
        unknown = error.status_code == 404 and error.detail == "Not Found"
        return _error(error.status_code, "There is nothing at this address." if unknown else error.detail)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _error(422, f"{first['loc'][-1]}: {first['msg']}.")

    @app.exception_handler(ValueError)
    def wrong(request: Request, error: ValueError) -> Response:
        return _error(422, str(error))

    @app.exception_handler(OSError)
    def unreadable(request: Request, error: OSError) -> Response:
        return _error(422, str(error))

    @app.exception_handler(BusyError)
    def busy(request: Request, error: BusyError) -> Response:
        return _error(409, str(error))


def _add_files(app: FastAPI, reports: Reports) -> None:
    """The page, its style and scripts, and saved pages."""

    @app.get("/")
    def index() -> Response:
        return FileResponse(STATIC / "index.html", media_type="text/html; charset=utf-8")

    @app.get("/static/plotly.js")
    def plotly() -> Response:
        kept = {"cache-control": "max-age=86400"}
        return Response(plotly_js(), media_type="text/javascript; charset=utf-8", headers=kept)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in FILES:
            raise HTTPException(404, "There is no such file.")
        path, kind = FILES[name]
        return FileResponse(path, media_type=f"{kind}; charset=utf-8")

    @app.get("/api/reports")
    def listed() -> dict[str, Any]:
        found, notes = reports.pages()
        return {"pages": [page.as_dict() for page in found], "notes": notes}

    @app.get("/reports/{key}/{path:path}")
    def saved(key: str, path: str) -> Response:
        file = reports.find(key, path)
        if file is None:
            raise HTTPException(404, "There is no such page. Load the list of reports again.")
        return FileResponse(file, headers={"content-security-policy": SAVED_POLICY})


def _add_choices(app: FastAPI, forecasts: Forecasts) -> None:
    """What there is to choose from."""

    def data_of(key: str) -> Data:
        if key not in forecasts.data:
            raise HTTPException(404, "There are no such data.")
        return forecasts.data[key]

    @app.get("/api/choices")
    def choices() -> dict[str, Any]:
        return {
            "data": [{"key": key, "label": data.label} for key, data in forecasts.data.items()],
            "models": forecasts.models,
            "calibrations": forecasts.calibrations,
            "limits": {"horizon": MAX_HORIZON, "samples": MAX_SAMPLES},
            "plotly": CONFIG,
            "version": package_version(),
        }

    @app.get("/api/data/{key}")
    def instruments(key: str) -> dict[str, Any]:
        spans, intraday, notes = data_of(key).listing()
        listed = [[span.instrument, _minute(span.first), _minute(span.last)] for span in spans]
        return {"instruments": listed, "intraday": intraday, "notes": notes}

    @app.get("/api/data/{key}/times")
    def times(key: str, instrument: str) -> list[str]:
        bars = data_of(key).read([instrument]).bars[instrument]
        return [_minute(time) for time in bars.index[-RECENT:]]


def _minute(time: Any) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _add_forecasts(app: FastAPI, forecasts: Forecasts, runner: JobRunner) -> None:
    """Start, follow, cancel and read forecasts."""

    def job_of(key: str) -> Job:
        job = runner.get(key)
        if job is None:
            raise HTTPException(404, "This forecast is no longer kept. Make it again.")
        return job

    def result_of(key: str) -> ForecastResult:
        result = job_of(key).result
        if not isinstance(result, ForecastResult):
            raise HTTPException(409, "This forecast has nothing to show. Make it again.")
        return result

    def csv(frame: Any, name: str) -> Response:
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(csv_text(frame.reset_index()), media_type="text/csv", headers=headers)

    @app.post("/api/forecasts", status_code=202)
    def start(asked: ForecastRequest, request: Request) -> dict[str, str]:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "A forecast is asked for as application/json.")
        forecasts.check(asked)
        return {"id": runner.start(lambda job: forecasts.run(asked, job)).id}

    @app.delete("/api/forecasts/{key}", status_code=202)
    def cancel(key: str) -> dict[str, str]:
        job_of(key).cancel()
        return {"id": key}

    @app.get("/api/forecasts/{key}/events")
    async def events(key: str, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        follow = job_of(key).follow(int(last) + 1 if last.isdecimal() else 0)
        return StreamingResponse(_stream(follow), media_type="text/event-stream")

    @app.get("/api/forecasts/{key}")
    def result(key: str) -> dict[str, Any]:
        return result_of(key).as_dict()

    @app.get("/api/forecasts/{key}/chart")
    def chart(key: str, instrument: str) -> Response:
        drawn = result_of(key).whole.chart(instrument)
        figure = draw(drawn).update_layout(title=None, margin={"t": 30})
        content = f'{{"title": {json.dumps(drawn.title)}, "figure": {figure.to_json()}}}'
        return Response(content, media_type="application/json")

    @app.get("/api/forecasts/{key}/table.csv")
    def table(key: str) -> Response:
        return csv(result_of(key).whole.table, "forecast.csv")

    @app.get("/api/forecasts/{key}/steps.csv")
    def steps(key: str) -> Response:
        made = result_of(key).whole
        return csv(forecast_steps(made.forecast, made.bars.held_back), "steps.csv")


async def _stream(events: AsyncIterator[tuple[int, Event | None]]) -> AsyncIterator[str]:
    """Server-sent events."""
    async for number, event in events:
        if event is None:
            yield ": still running\n\n"
        else:
            yield f"id: {number}\nevent: {event.name}\ndata: {json.dumps(event.values)}\n\n"
