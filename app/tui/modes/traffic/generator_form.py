"""The form of the generator: a model, both sides' workers and the requests, and the files made of them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kvdeck.app.tui.form_fields import Field, not_taken
from kvdeck.engine.planning.model_files import catalogue, find_model
from kvdeck.engine.planning.parallelism import Parallelism
from kvdeck.engine.planning.precision import PRECISIONS, parse_precision
from kvdeck.engine.quantities import parse_count
from kvdeck.engine.traffic.deployment import Workers, check_workers, rail_order
from kvdeck.engine.traffic.pattern_set import make_patterns, write_patterns
from kvdeck.engine.traffic.serving_traffic import HandOver
from kvdeck.engine.traffic.upstream_generator import batches
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.units import count_text, many

DEFAULT_MODEL = "llama-3.1-8b"
MOST = 4096
"""Largest number in the form; a matrix has as many cells as ranks squared."""
MOST_RANKS = 1024
MOST_REQUESTS = 10_000
MOST_BATCH_BYTES = 100e9
"""KV bytes that close a batch; upstream's default."""

COLUMNS = (
    (
        Field("model", "model", "choice", "space: next of the catalogue · Enter: choose, or type a file's path"),
        Field("precision", "KV precision", "choice", "element type of the KV cache", tuple(PRECISIONS)),
        Field("lengths", "ISLs", "text", "input tokens of each request, with commas: 4096, 9000; 4096x10 repeats"),
        Field("batch_size", "batch", "number", "requests that a prefill worker hands over together"),
        Field("page_size", "page size", "number", "tokens of a page; pages are dealt to the CP ranks"),
    ),
    (
        Field("prefill_nodes", "nodes", "number", "nodes of the prefill side"),
        Field("prefill_tp", "TP", "number", "KV heads of the prefill side are split over this many ranks"),
        Field("prefill_pp", "PP", "number", "layers of the prefill side are split over this many stages"),
        Field("prefill_cp", "CP", "number", "pages of the prefill side are split over this many ranks"),
        Field("ppn", "ranks/node", "number", "ranks of a node, on both sides"),
    ),
    (
        Field("decode_nodes", "nodes", "number", "nodes of the decode side"),
        Field("decode_tp", "TP", "number", "KV heads of the decode side are split over this many ranks"),
        Field("decode_pp", "PP", "number", "layers of the decode side are split over this many stages"),
        Field("decode_cp", "CP", "number", "pages of the decode side are split over this many ranks"),
        Field("rail", "rail order", "choice", "yes: prefill rank k sends on its own rail", ("no", "yes")),
    ),
)


@dataclass(frozen=True, slots=True)
class GeneratorForm:
    """The form's values; immutable, each change returns a new form."""

    model: str = DEFAULT_MODEL
    precision: str = "bf16"
    lengths: str = "4096,9000,2048,16000"
    batch_size: int = 1
    page_size: int = 16
    prefill_nodes: int = 1
    prefill_tp: int = 2
    prefill_pp: int = 1
    prefill_cp: int = 1
    ppn: int = 4
    decode_nodes: int = 1
    decode_tp: int = 4
    decode_pp: int = 1
    decode_cp: int = 1
    rail: str = "no"

    def text(self, item: Field) -> str:
        """Return a field's display text."""
        value = getattr(self, item.key)
        return count_text(value) if isinstance(value, int) else str(value)

    def toggled(self, item: Field) -> GeneratorForm:
        """Return the form with a choice's next option."""
        return self.stepped(item, 1)

    def stepped(self, item: Field, by: int) -> GeneratorForm:
        """Return the form with the next or previous option; a number is doubled or halved."""
        value = getattr(self, item.key)
        if item.kind == "number":
            return self._with(item.key, max(1, min(MOST, value * 2 if by > 0 else value // 2)))
        options = tuple(catalogue()) if item.key == "model" else item.options
        if not options:
            return self
        at = options.index(value) + by if value in options else 0
        return self._with(item.key, options[at % len(options)])

    def typed(self, item: Field, text: str) -> GeneratorForm:
        """Return the form with a typed number or text; unchanged if it is invalid or out of range."""
        if item.kind == "text":
            return self._with(item.key, text.strip()) if text.strip() else self
        if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MOST:
            return self
        return self._with(item.key, int(text))

    def refusal(self, item: Field, text: str) -> str:
        """Return why `typed` doesn't take a text, and the fix; "" if it does."""
        if item.kind == "text" or not text or (re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= MOST):
            return ""
        return not_taken(item, text, 1)

    def with_model(self, name: str) -> GeneratorForm:
        """Return the form with another model; with its files' KV precision if they say one.

        Raises:
            UsageError: There is no such model.
        """
        model = find_model(name)
        return replace(self, model=name, precision=model.precision or self.precision)

    def _with(self, key: str, value: Any) -> GeneratorForm:
        return replace(self, **{key: value})

    def hint(self, item: Field) -> str:
        """Return a one-line hint for a field."""
        return PRECISIONS[self.precision].said if item.key == "precision" else item.hint

    @property
    def prefill(self) -> Workers:
        return Workers(self.prefill_tp, self.prefill_pp, self.prefill_cp, self.prefill_nodes, self.ppn)

    @property
    def decode(self) -> Workers:
        first = self.prefill.ranks
        return Workers(self.decode_tp, self.decode_pp, self.decode_cp, self.decode_nodes, self.ppn, first)

    @property
    def requests(self) -> tuple[int, ...]:
        """Input tokens of each request.

        Raises:
            UsageError: A length is invalid, or there are none or too many.
        """
        found: list[int] = []
        for part in filter(None, (part.strip() for part in self.lengths.split(","))):
            length, _, times = part.partition("x")
            count = parse_count(times.strip()) if times else 1
            if len(found) + count > MOST_REQUESTS:
                raise UsageError(f"more than {many(MOST_REQUESTS, 'request')}", "give fewer lengths")
            found += [parse_count(length.strip())] * count
        if not found:
            raise UsageError("there are no lengths", "give one at least: 4096")
        return tuple(found)

    def problem(self) -> str:
        """Return why no patterns can be made, or ""."""
        try:
            check_workers(self.prefill, self.decode)
            if self.rail == "yes":
                rail_order(self.prefill_tp, self.decode_tp)
            ranks = self.prefill.ranks + self.decode.ranks
            if ranks > MOST_RANKS:
                return f"{many(ranks, 'rank')}: at most {count_text(MOST_RANKS)} in this form · fix: kvdeck matgen"
            _ = self.requests
        except UsageError as error:
            return f"{error.what} · fix: {error.fix}" if error.fix else error.what
        return ""

    def derived(self) -> str:
        """Return who sends to whom, in one line."""
        return (
            f"{many(len(self.requests), 'request')} · prefill {count_text(self.prefill.count)}×{self.prefill.size} "
            f"ranks → decode {count_text(self.decode.count)}×{self.decode.size} · "
            f"{many(self.prefill.ranks + self.decode.ranks, 'rank')} in all"
        )

    @property
    def title(self) -> str:
        """Name of the folder that the files are written to."""
        sides = (f"tp{side.tp}pp{side.pp}cp{side.cp}x{side.count}" for side in (self.prefill, self.decode))
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(self.model).name).strip(".-") or "model"
        return "-".join((name, *sides))


def generate(form: GeneratorForm, folder: Path) -> Path:
    """Write the matrices of a form, as `kvdeck matgen generate` does, and return the path of their YAML file.

    Raises:
        KvdeckError: The model can't be divided so, or a file can't be written.
    """
    model = find_model(form.model)
    precision = parse_precision(form.precision)
    prefill, decode = form.prefill, form.decode
    source, target = (Parallelism(side.tp, side.pp, cp=side.cp) for side in (prefill, decode))
    made = batches(form.requests, form.batch_size, model.token_bytes(precision), MOST_BATCH_BYTES)
    hand_over = HandOver(model, precision, source, target, form.page_size)
    patterns = make_patterns(hand_over, made, prefill, decode, rail=form.rail == "yes")
    try:
        write_patterns(folder, patterns, _made_from(form))
    except OSError as error:
        raise KvdeckError(f"can't write {error.filename or folder}: {error.strerror}", "free disk space") from error
    return folder / "metadata.yaml"


def _made_from(form: GeneratorForm) -> dict[str, Any]:
    """Return the options of `kvdeck matgen generate` that make the same."""
    renamed = {"prefill_nodes": "num_prefill_nodes", "decode_nodes": "num_decode_nodes", "precision": "dtype"}
    values = {renamed.get(name, name): value for name, value in asdict(form).items() if name not in ("lengths", "rail")}
    return {**values, "max_batch_mem": MOST_BATCH_BYTES, "rail_optimized": form.rail == "yes", "seed": None,
            "isl": list(form.requests)}  # fmt: skip


def kept(form: GeneratorForm) -> dict[str, Any]:
    """Return the form as stored in the UI state."""
    return asdict(form)


def remembered(found: object) -> GeneratorForm:
    """Return the form of a stored mapping; a default for what is missing or invalid."""
    form = GeneratorForm()
    if not isinstance(found, dict):
        return form
    fields = {item.key: item for column in COLUMNS for item in column}
    for name, value in found.items():
        item = fields.get(name)
        if item is None or type(value) is not type(getattr(form, name)):
            continue
        if item.kind == "number" and not 1 <= value <= MOST:
            continue
        if item.options and value not in item.options:
            continue
        form = replace(form, **{name: value})
    return form
