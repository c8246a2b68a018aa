"""The routes of the server."""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from scipy.special import expit
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from stages import __version__
from stages.api import Classifier
from stages.bands import Bands
from stages.classifier import sentences
from stages.serve import audit, messages, metrics, review
from stages.serve.batches import RefusedError, Result, Worker
from stages.serve.guard import ApiError, Guard, Rates, read_body
from stages.serve.messages import parse, require_texts
from stages.serve.settings import Settings

PAGE = Path(__file__).parent / "page"
MOST_SHOWN = 200  # texts of the queue in an answer
TIDY_SECONDS = 3600
DESCRIPTION = 'Classifies texts as fraud or not. Errors are `{"error": sentence}`.'
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": messages.ErrorAnswer, "description": meaning}
    for status, meaning in {
        401: "No token, or a wrong one",
        408: "The body came too slowly",
        413: "Body, text or number of texts too large",
        415: "Not application/json",
        421: "Not a name of this server in the header Host",
        422: "The request can't be used",
        429: "Too many texts from this address: Retry-After",
        503: "No model yet, queue full, not scored in time, or audit log not writable: Retry-After",
    }.items()
}


class Server:
    """All that the routes share.

    Args:
        settings: of the server.
        load: loads the classifier. It runs in the worker's thread.
        identity: returns `id`, `kind` and `base` of the model; also in that thread.
        points: returns the figures of valid behind the page's slider; also there.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Classifier],
        identity: Callable[[], dict[str, Any]],
        points: Callable[[], dict[str, Any]],
    ):
        self.settings = settings
        self.about: dict[str, Any] = {"id": "", "kind": "", "base": ""}
        self.points: dict[str, Any] = {"missing": "the model is not loaded yet"}
        self.rates = Rates(settings.client_rate)
        self.log = (
            None
            if settings.audit == "off"
            else audit.AuditLog(settings.audit_folder, settings.audit, settings.audit_bytes, settings.retention_days)
        )
        self.verdicts = None if settings.verdicts is None else review.Verdicts(settings.verdicts, settings.audit_folder)
        self.metrics = metrics.Metrics(lambda: self.worker.cost, lambda: self.worker.is_ready)

        def load_all() -> Classifier:
            classifier = load()
            self.about, self.points = identity(), points()
            self.metrics.model.labels(self.about["id"], str(self.about["kind"])).set(1)
            return classifier

        limits = {key: getattr(settings, key) for key in ("max_waiting", "batch_tokens", "batch_wait")}
        self.worker = Worker(load_all, self.record, self.metrics.observe_batch, **limits)

    def record(self, scored: list[tuple[Any, str, Result]]) -> None:
        """Counts verdicts and writes them to the audit log. Raises OSError if they can't be written."""
        lines, flagged, model = [], 0, self.about["id"]
        bands = self.worker.classifier.bands if self.worker.classifier else None
        for (request_id, threshold), text, result in scored:
            probability = float(expit(result.log_odds))
            label = probability >= threshold
            flagged += label
            self.metrics.probability.observe(probability)
            known = {"probability": probability, "label": label, "threshold": threshold, "model": model}
            if bands:
                known["band"] = bands.name(probability)
            lines.append((text, {"id": request_id, **known}))
        if self.log and lines:
            self.log.write(lines)
        self.metrics.texts.labels("fraud").inc(flagged)
        self.metrics.texts.labels("legitimate").inc(len(scored) - flagged)
        self.metrics.truncated.inc(sum(result.truncated for _, _, result in scored))

    async def score(self, texts: list[str], threshold: float, explain: bool, request_id: str) -> list[Result]:
        """The results of a request's texts, in their order. Raises ApiError if the queue is full or time is over.

        Args:
            texts: checked texts.
            threshold: the probability from which on a text is called fraud.
            explain: whether their sentences are wanted.
            request_id: for the audit log.
        """
        costs = [len(sentences.split(text)) + 2 if explain else 1 for text in texts]
        try:
            future = self.worker.submit(texts, costs, explain, (request_id, threshold))
        except RefusedError as refused:
            raise ApiError(503, refused.reason, refused.seconds) from None
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await asyncio.wrap_future(future)  # given up, it cancels the other
        except TimeoutError:
            seconds = self.worker.seconds_to_empty()
            raise ApiError(503, f"not scored within {self.settings.timeout:g} s: try again", seconds) from None
        except OSError as error:
            raise ApiError(
                503, f"the audit log can't be written ({error.strerror}), so no verdict is given", 10
            ) from error

    async def tidy(self) -> None:
        """Keeps the audit log's promise of retention, also where nothing is asked."""
        while self.log:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.log.tidy)
            await asyncio.sleep(TIDY_SECONDS)


def create_app(server: Server) -> Guard:
    """The application of a server. The worker starts with it, and ends after the last answer."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.worker.start()
        tidying = asyncio.create_task(server.tidy())
        yield
        tidying.cancel()
        await asyncio.to_thread(server.worker.close)

    app = FastAPI(
        title="Fraud or not", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )  # fmt: skip
    app.add_exception_handler(ApiError, answer_error)
    app.add_exception_handler(HTTPException, answer_error)
    app.add_exception_handler(RequestValidationError, answer_error)
    app.add_exception_handler(Exception, answer_crash)
    add_state_routes(app, server)
    add_classify_routes(app, server)
    if server.verdicts:
        add_review_routes(app, server, server.verdicts)
    add_page_routes(app)
    return Guard(app, server.settings, server.metrics, {getattr(route, "path", "") for route in app.routes})


async def answer_error(request: Request, error: Exception) -> Response:
    """An error as JSON with one sentence."""
    if isinstance(error, ApiError):
        return JSONResponse({"error": error.sentence}, error.status, error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        sentence = f"{first['loc'][-1]}: {first['msg']}; found {messages.shorten(first['input'])}"
        return JSONResponse({"error": sentence}, 422)
    assert isinstance(error, HTTPException)
    sentence = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def answer_crash(request: Request, error: Exception) -> Response:
    """An error of the server's own: its log has more."""
    return JSONResponse({"error": f"an error in the server: its log has request {request.state.request_id}"}, 500)


def body_of(kind: type[messages.Request]) -> dict[str, Any]:
    """The OpenAPI description of a body that a route reads itself."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def read(request: Request, kind: type[messages.R], settings: Settings) -> messages.R:
    """The request in a body. Raises ApiError."""
    body = await read_body(request.receive, request.headers, settings.max_body_bytes)
    return parse(kind, body, request.headers.get("content-type", ""))


def add_state_routes(app: FastAPI, server: Server) -> None:
    """Health, readiness, metrics, and what is served."""

    @app.get("/healthz", tags=["state"], summary="Whether the process works: restart it if not")
    async def healthz() -> Response:
        return JSONResponse({"alive": server.worker.is_alive}, 200 if server.worker.is_alive else 503)

    @app.get("/readyz", tags=["state"], summary="Whether the model is loaded and the queue has room")
    async def readyz() -> Response:
        worker = server.worker
        ready = worker.is_ready and not worker.closing and worker.cost < worker.max_waiting
        return JSONResponse({"ready": ready, "waiting": worker.cost}, 200 if ready else 503)

    @app.get("/metrics", tags=["state"], summary="Figures for Prometheus")
    async def prometheus() -> Response:
        return Response(server.metrics.text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/v1/model", tags=["state"], summary="The model, its threshold, limits, and the figures of valid")
    async def model() -> Response:
        settings, classifier = server.settings, server.worker.classifier
        limits = {key: getattr(settings, key) for key in ("max_body_bytes", "max_texts", "max_characters")}
        return JSONResponse(
            {
                **server.about,
                "ready": server.worker.is_ready,
                "threshold": classifier and float(classifier.threshold),
                **({"bands": classifier.bands.as_dict()} if classifier and classifier.bands else {}),
                "limits": {**limits, "max_explained": settings.max_explained},
                "review": server.verdicts is not None,
                "texts_kept": settings.audit == "text",
                "valid": server.points,
            }
        )


def add_classify_routes(app: FastAPI, server: Server) -> None:
    settings = server.settings

    @app.post(
        "/v1/classify", tags=["classify"], summary="Classifies one text or several", responses=ERRORS,
        response_model=messages.ClassifyAnswer, openapi_extra=body_of(messages.ClassifyRequest),
    )  # fmt: skip
    async def classify(request: Request) -> Response:
        wanted = await read(request, messages.ClassifyRequest, settings)
        require_texts(wanted.texts, settings.max_texts, settings.max_characters)
        if wanted.explain and len(wanted.texts) > settings.max_explained:
            raise ApiError(413, f"{len(wanted.texts)} texts; expected at most {settings.max_explained} with explain")
        client = request.client.host if request.client else ""
        server.rates.take(client, len(wanted.texts), time.monotonic())
        if server.worker.classifier is None:
            raise ApiError(503, "the model is not loaded yet", 5)
        own, bands = float(server.worker.classifier.threshold), server.worker.classifier.bands
        threshold = own if wanted.threshold is None else wanted.threshold
        request_id = request.state.request_id
        results = await server.score(wanted.texts, threshold, wanted.explain, request_id)
        found = [answer_of(result, threshold, bands) for result in results]
        return JSONResponse({"id": request_id, "model": server.about["id"], "threshold": threshold, "results": found})


def answer_of(result: Result, threshold: float, bands: Bands | None) -> dict[str, Any]:
    """A result as JSON.

    result: of a text. threshold: the request's, or the model's. bands: the model's.
    """
    probability = float(expit(result.log_odds))
    found: dict[str, Any] = {
        "label": probability >= threshold,
        "probability": probability,
        "log_odds": result.log_odds,
        "truncated": result.truncated,
    }
    if bands:
        found["band"] = bands.name(probability)
    if result.sentences is not None:
        names = messages.SentenceAnswer.model_fields
        found["sentences"] = [{name: getattr(each, name) for name in names} for each in result.sentences]
    return found


def add_review_routes(app: FastAPI, server: Server, verdicts: review.Verdicts) -> None:
    """The queue of texts that wait for a person's verdict, and the verdicts."""
    settings = server.settings

    @app.post(
        "/v1/verdicts", tags=["review"], summary="Keeps a person's verdict, in place of an earlier one",
        responses=ERRORS, response_model=messages.VerdictsAnswer, openapi_extra=body_of(messages.VerdictRequest),
    )  # fmt: skip
    async def add(request: Request) -> Response:
        wanted = await read(request, messages.VerdictRequest, settings)
        require_texts([wanted.input], 1, settings.max_characters)
        require_name(wanted.group)
        rows = await write(verdicts.add, wanted.input, wanted.label, wanted.source, wanted.group, wanted.probability)
        server.metrics.verdicts.labels("fraud" if wanted.label else "legitimate").inc()
        return JSONResponse({"verdicts": rows})

    @app.delete(
        "/v1/verdicts", tags=["review"], summary="Takes a verdict back", responses=ERRORS,
        response_model=messages.VerdictsAnswer, openapi_extra=body_of(messages.ForgetVerdictRequest),
    )  # fmt: skip
    async def remove(request: Request) -> Response:
        wanted = await read(request, messages.ForgetVerdictRequest, settings)
        if not await write(verdicts.remove, wanted.input):
            raise ApiError(404, "this text has no verdict")
        return JSONResponse({"verdicts": len(await asyncio.to_thread(verdicts.labels))})

    @app.post(
        "/v1/verdicts/known", tags=["review"], summary="Which texts have a verdict", responses=ERRORS,
        response_model=messages.KnownAnswer, openapi_extra=body_of(messages.KnownRequest),
    )  # fmt: skip
    async def known(request: Request) -> Response:
        wanted = await read(request, messages.KnownRequest, settings)
        labels = await asyncio.to_thread(verdicts.labels)
        return JSONResponse({"labels": [labels.get(review.fingerprint(text)) for text in wanted.input]})

    @app.get(
        "/v1/queue", tags=["review"], summary="Texts that wait for a verdict", responses=ERRORS,
        response_model=messages.QueueAnswer,
    )  # fmt: skip
    async def queue(
        low: messages.Probability = 0.0,
        high: messages.Probability = 1.0,
        order: messages.Order = "informative",
    ) -> Response:
        classifier = server.worker.classifier
        threshold = float(classifier.threshold) if classifier else 0.5
        found = await asyncio.to_thread(waiting_texts, server, verdicts, low, high, order, threshold)
        return JSONResponse({"waiting": len(found), "texts": [vars(row) for row in found[:MOST_SHOWN]]})


def waiting_texts(
    server: Server, verdicts: review.Verdicts, low: float, high: float, order: str, threshold: float
) -> list[review.Waiting]:
    """The texts of the files of the queue, and of the audit log if it keeps texts. Arguments as of `review.choose`."""
    settings = server.settings
    logs = sorted(settings.audit_folder.glob(audit.FILES)) if settings.audit == "text" else []
    read_rows = review.read_waiting([*settings.queues, *logs])
    return review.choose(read_rows, verdicts.labels(), low, high, order, threshold)


def require_name(group: str) -> None:
    """Raises ApiError for a group that prepare would reject."""
    try:
        review.identifier({"group": group}, "group")
        messages.require_encodable(group)
    except ValueError as error:
        raise ApiError(422, str(error)) from None


async def write(change: Callable, *arguments: Any) -> Any:
    """Runs a change of the verdicts in a thread. Raises ApiError if the disk refuses it."""
    try:
        return await asyncio.to_thread(functools.partial(change, *arguments))
    except OSError as error:
        raise ApiError(503, f"the verdict can't be written ({error.strerror})", 10) from error


def add_page_routes(app: FastAPI) -> None:
    """The page for people and the one of the API, with their files."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html")

    app.mount("/static", StaticFiles(directory=PAGE), name="static")
    make = app.openapi

    def with_requests() -> dict[str, Any]:
        """FastAPI's document, with the bodies that routes read themselves."""
        document = make()
        kinds = (
            messages.ClassifyRequest,
            messages.VerdictRequest,
            messages.ForgetVerdictRequest,
            messages.KnownRequest,
        )
        document.setdefault("components", {}).setdefault("schemas", {}).update(
            {kind.__name__: kind.model_json_schema() for kind in kinds}
        )
        return document

    app.openapi = with_requests  # type: ignore[method-assign]
