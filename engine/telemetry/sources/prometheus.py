"""Prometheus endpoint: read over HTTP; its kind is recognised by its metric names."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import aiohttp

from kvdeck.engine.telemetry.address import checked_url
from kvdeck.engine.telemetry.source import Kind, Reading, Series, SourceGone
from kvdeck.engine.telemetry.sources.credentials import token_for
from kvdeck.engine.telemetry.sources.exposition import Exposition, Parser
from kvdeck.engine.telemetry.sources.local_source import now_ns
from kvdeck.sessions.model.metric_names import BARE
from kvdeck.sessions.units import number_text, size_text

TIMEOUT_S = 2.0
"""Shortest timeout of an answer, in seconds."""
LONGEST_S = 10.0
"""Longest timeout of an answer, and that of the first one."""
SLOWNESS = 4.0
"""How much longer than its last answer a source may take."""
MAX_BODY = 8 << 20
"""Maximum response body in bytes, after decompression."""
MAX_REDIRECTS = 3
SKEW_S = 3.0
"""Difference in seconds up to which two clocks count as equal."""
_MARKS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("kvbm", ("kvbm_", "dynamo_kvbm_")),
    ("dynamo", ("dynamo_",)),
    ("vllm", ("vllm:", "ray_vllm_")),
    ("sglang", ("sglang:", "sglang_")),
    ("trtllm", ("trtllm_",)),
    ("triton", ("nv_trt_llm_", "nv_inference_")),
    ("lmcache", ("lmcache:", "lmcache_mp_")),
    ("mooncake", ("master_put_start_", "master_total_capacity_bytes")),
    ("router", ("inference_objective_", "inference_model_", "inference_pool_", "inference_extension_")),
    ("dcgm", ("DCGM_FI_",)),
    ("nixl", ("agent_tx_", "agent_rx_", "agent_xfer_")),
)


_STARTED = Series("process_start_time_seconds", counter=False)


def recognise(exposition: Exposition) -> Kind:
    """Return the first kind whose prefix a metric name has, in the order of `_MARKS`."""
    names = {series.name for series in exposition.values}
    for kind, prefixes in _MARKS:
        if any(name.startswith(prefixes) for name in names):
            return kind
    return "kvbm" if names & BARE else "prometheus"


class Endpoint:
    """One Prometheus endpoint.

    Args:
        url: `http://host:port/path`; the default path is `/metrics`. User and password are refused: credentials never
            come from a command line.
        patience_s: Timeout of one answer, in seconds. None follows the source's own pace: SLOWNESS times its last
            answer, from TIMEOUT_S to LONGEST_S, and twice as long after each answer that didn't come in time.

    Raises:
        UsageError: The URL is invalid (see `checked_url`).
    """

    kind: Kind = "prometheus"
    least_period_s = 0.1

    def __init__(self, url: str, patience_s: float | None = None) -> None:
        self.url = self.name = checked_url(url)
        self.patience_s = patience_s
        self._pace_s = LONGEST_S
        self._parser = Parser()
        self._recognised: Kind = "prometheus"
        self._last_ns = 0
        self._ahead_s = 0.0
        self._session: aiohttp.ClientSession | None = None

    async def read(self) -> Reading:
        """Send one request, following redirects on the same host.

        Raises:
            SourceGone: No connection, no complete response in time, an HTTP error, or no metrics in the response.
            UsageError: The tokens file is invalid (see `token_for`).
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "gzip;q=0.1, identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        allowed_s = self.patience_s or self._pace_s
        begun = now_ns()
        try:
            text = await self._ask(self._session, self.url, allowed_s)
        except (asyncio.TimeoutError, aiohttp.ServerTimeoutError):
            self._pace_s = min(2 * self._pace_s, LONGEST_S)
            raise SourceGone(f"no complete answer within {number_text(allowed_s)} s") from None
        except aiohttp.ClientConnectorDNSError as error:
            raise SourceGone(f"cannot find the host: {error.os_error.strerror or error.os_error}") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise SourceGone(_untrusted(error), "set SSL_CERT_FILE to the issuer's certificate") from None
        except aiohttp.ClientConnectorError as error:
            raise SourceGone(f"cannot connect: {error.os_error.strerror or error.os_error}") from None
        except aiohttp.ClientError as error:
            raise SourceGone(f"{type(error).__name__}: {error}"[:200]) from None
        except (ValueError, OSError) as error:
            raise SourceGone(f"not HTTP: {error}"[:200]) from None
        took_s = (now_ns() - begun) / 1e9
        self._pace_s = min(max(SLOWNESS * took_s, TIMEOUT_S), LONGEST_S)
        return replace(self._reading(text), took_s=took_s)

    async def _ask(self, session: aiohttp.ClientSession, url: str, allowed_s: float) -> str:
        end = aiohttp.ClientTimeout(total=allowed_s)
        for _ in range(MAX_REDIRECTS + 1):
            token = token_for(url)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with session.get(url, allow_redirects=False, headers=headers, timeout=end) as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    url = _same_host(url, answer)
                    continue
                _check_status(answer, url)
                self._ahead_s = _ahead_s(answer.headers.get("Date", ""))
                return await _body(answer)
        raise SourceGone(f"redirected more than {MAX_REDIRECTS} times")

    def _reading(self, text: str) -> Reading:
        found = self._parser.parse(text)
        if not found.values:
            if text.lstrip()[:15].lower().startswith(("<!doctype", "<html")):
                raise SourceGone("serves a web page, not metrics")
            if found.unread:
                raise SourceGone("does not serve metrics")
        missing = []
        if found.torn:
            missing.append("the last line is incomplete")
        if found.unread:
            missing.append(f"{found.unread} lines are not Prometheus text")
        if not found.values:
            missing.append("endpoint is up but exports no samples yet")
        if found.changed is None:
            self._recognised = recognise(found)
        since, self._last_ns = self._last_ns, now_ns()
        return Reading(
            self._last_ns,
            found.values,
            self._recognised,
            ", ".join(missing),
            changed=found.changed,
            changed_since=since,
            started=found.values.get(_STARTED),
            created=self._parser.created,
            ahead_s=self._ahead_s,
        )

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _untrusted(error: aiohttp.ClientConnectorCertificateError) -> str:
    reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
    return f"its certificate is not trusted: {reason}"[:200]


def _ahead_s(date: str) -> float:
    """Return how far an answer's `Date`, which has whole seconds, is ahead of this host's clock; 0 if it may agree."""
    try:
        ahead = parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return ahead if abs(ahead) > SKEW_S else 0.0


def _same_host(url: str, answer: aiohttp.ClientResponse) -> str:
    target = urljoin(url, answer.headers.get("Location", ""))
    if urlsplit(target)[:2] != urlsplit(url)[:2]:
        raise SourceGone(f"redirects to another host ({urlsplit(target).netloc[:80]}): not followed")
    return target


def _check_status(answer: aiohttp.ClientResponse, url: str) -> None:
    if answer.status in (401, 403):
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        raise SourceGone(
            f"HTTP {answer.status}: credentials needed", f"set KVDECK_MONITOR_TOKENS='{origin}=TOKEN' or a file"
        )
    if answer.status != 200:
        raise SourceGone(f"HTTP {answer.status} {(answer.reason or '')[:60]}".strip())


async def _body(answer: aiohttp.ClientResponse) -> str:
    parts, size = [], 0
    try:
        async for part in answer.content.iter_chunked(1 << 18):
            parts.append(part)
            size += len(part)
            if size > MAX_BODY:
                answer.close()
                raise SourceGone(f"the answer is larger than {size_text(MAX_BODY)}")
    except aiohttp.ClientPayloadError:
        if not parts:
            raise
        # The connection broke: use the complete lines. Without its newline the parser marks the last line as torn.
        return b"".join(parts).decode("utf-8", "replace").rstrip("\n")
    return b"".join(parts).decode("utf-8", "replace")
