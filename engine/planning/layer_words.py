"""Which kind of cache each layer keeps: words in a `config.json`, or the rule of its family's class.

A word that isn't known is refused: it may be an attention that keeps another cache than full attention.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from kvdeck.engine.planning.model_fields import LAYERS, WINDOW, Fields
from kvdeck.engine.planning.model_numbers import checked_layers, cut
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import many

WORDS = {
    **dict.fromkeys(("full_attention", "attention", "full", "global", "global_attention"), "full"),
    **dict.fromkeys(("sliding_attention", "sliding", "local", "local_attention", "sliding_window", "swa"), "sliding"),
    **dict.fromkeys(("chunked_attention", "chunked"), "chunked"),
    **dict.fromkeys(("indexed_attention", "deepseek_sparse_attention", "qwen_sparse_attention"), "full"),
    **dict.fromkeys(("linear_attention", "linear"), "linear"),
    **{word: word for word in ("mamba", "mamba2", "conv", "recurrent", "mlp", "moe", "ssm", "hybrid")},
    "minimax_m3_sparse": "sparse",
    "compressed_sparse_attention": "compressed_sparse",
    "heavily_compressed_attention": "heavily_compressed",
}
"""Our name of each word for a type of layer: transformers', those it has renamed, and published files'."""
_OF_FAMILY = {"hybrid": ("zamba", "zamba2"), "compressed_sparse": ("deepseek_v4",),
              "heavily_compressed": ("deepseek_v4",), "sparse": ("minimax_m3_vl_text",)}  # fmt: skip
"""Words that mean one thing only in these families."""
STATELESS_WORDS = {"linear", "mamba", "mamba2", "conv", "recurrent", "mlp", "moe", "ssm", "none"}
"""Words of layers without KV."""
_LETTERS = {"M": "mamba", "*": "full", "-": "mlp", "E": "moe", "L": "sliding", "G": "full", "F": "full", "S": "sliding"}
_LISTS = ("layer_types", "layers_block_type", "attention_layers")
_INSTEAD = (
    *("sliding_window_pattern", "_sliding_window_pattern", "full_attention_interval", "max_window_layers"),
    *("use_sliding_window", "hybrid_override_pattern", "no_rope_layers", "no_rope_layer_interval", "full_attn_idxs"),
    *("attn_layer_period", "attn_layer_offset", "attn_layer_indices", "layer_switch", "order_of_interleaved_layers"),
    *("hybrid_layer_ids", "hybrid_layer_pattern", "global_attn_every_n_layers", "block_types", "layer_group_size"),
    *("attention_types", "attn_type_list", "prefix_dense_sliding_window_pattern", *_LISTS),
)
"""Keys that say what each layer is; one of them decides, and the rest aren't needed."""


def layer_words(fields: Fields, family: str, rule: str) -> list[str]:
    """Return each layer's word: what the file lists, or what the family's rule makes of its keys.

    Args:
        family: The model's `model_type` as transformers spells it; empty if it is unknown.
        rule: Name of the family's rule, with its number after a colon (`every:6`); empty if unknown.

    Raises:
        UsageError: A word or a pattern is unknown, a list has another length than the model, or a window's
            layers aren't said.
    """
    stated = fields.count(LAYERS) if fields.has(*LAYERS) else None
    found = _written_out(fields, family, stated)
    if found is None:
        layers = _layers(fields, stated)
        found = _by_rule(fields, rule, layers)
    else:
        layers = stated or len(found)
        fields.seen.update((*LAYERS, *_INSTEAD))
        if "sliding" not in found:
            fields.seen.update(WINDOW)
    checked_layers(LAYERS[0], layers, fields.source)
    if stated is not None:
        found = _without_prediction(fields, found, layers)
    if len(found) != layers:
        raise UsageError(
            f"{fields.source} lists {many(len(found), 'layer')}, not {layers}", "correct its list of layers"
        )
    if family.startswith("gemma4") and found[-1] == "sliding":
        found = [*found[:-1], "full"]  # as its class has it
    return _shared(fields, found)


def _layers(fields: Fields, stated: int | None) -> int:
    if stated is None:
        stated = fields.needed(LAYERS)
    return checked_layers(LAYERS[0], stated, fields.source)


def _without_prediction(fields: Fields, found: list[str], layers: int) -> list[str]:
    """Return the words without those of layers that predict further tokens, which some lists append."""
    more = fields.whole("num_nextn_predict_layers") or 0
    return found[:layers] if len(found) == layers + more else found


def _word(item: object, fields: Fields, key: str, family: str) -> str:
    word = WORDS.get(item) if isinstance(item, str) else None
    if word is None or family not in _OF_FAMILY.get(word, (family,)):
        raise UsageError(
            f"{key} in {fields.source} has the layer type {cut(item)}, whose KV cache is unknown here",
            "describe its layers in a YAML file",
        )
    return word


def _written_out(fields: Fields, family: str, stated: int | None) -> list[str] | None:
    """Return what the file lists layer by layer."""
    for key in _LISTS:
        if listed := fields.listed(key):
            return [_word(item, fields, key, family) for item in listed]
    for reader in (_letters, _numbered, _by_index, _compressed, _linear_config, _sparse_config, _windows):
        if (found := reader(fields, family, stated)) is not None:
            return found
    return None


def _letters(fields: Fields, _: str, stated: int | None) -> list[str] | None:
    for key in ("hybrid_override_pattern", "sliding_window_pattern"):
        pattern = fields.config.get(key)
        if isinstance(pattern, str) and pattern:
            fields.seen.add(key)
            unknown = [letter for letter in pattern if letter not in _LETTERS]
            if unknown:
                raise fields.wrong(key, pattern, f"letters out of {''.join(_LETTERS)}; {unknown[0]!r} is unknown")
            if key == "hybrid_override_pattern":
                return [_LETTERS[letter] for letter in pattern]
            layers = _layers(fields, stated)
            return [_LETTERS[letter] for letter in itertools.islice(itertools.cycle(pattern), layers)]
    return None


def _numbered(fields: Fields, family: str, _: int | None) -> list[str] | None:
    """Return the words of lists of 0 and 1."""
    for key, words in {"attn_type_list": ("linear", "full"), "hybrid_layer_pattern": ("full", "sliding")}.items():
        if found := fields.numbers(key):
            if max(found) > 1:
                raise fields.wrong(key, found, "a list of 0 and 1")
            return [words[one] for one in found]
    if (groups := fields.listed("attention_types")) is not None:  # GPT-Neo: [[["global", "local"], 12]]
        try:
            listed = [word for words, times in groups for _n in range(times) for word in words]
        except (TypeError, ValueError) as error:
            raise fields.wrong("attention_types", groups, "a list of [[words], times]") from error
        return [_word(item, fields, "attention_types", family) for item in listed]
    return None


def _by_index(fields: Fields, family: str, stated: int | None) -> list[str] | None:
    """Return the words of lists of the layers that have attention."""
    names = {"attn_layer_indices": "mamba", "full_attn_idxs": "conv"}
    for key, other in names.items():
        if (found := fields.numbers(key)) is not None:
            return _marked(fields, key, found, _layers(fields, stated), "full", other)
    if family.startswith("zamba") and (found := fields.numbers("hybrid_layer_ids")) is not None:
        return _marked(fields, "hybrid_layer_ids", found, _layers(fields, stated), "hybrid", "mamba")
    return None


def _marked(fields: Fields, key: str, found: list[int], layers: int, there: str, other: str) -> list[str]:
    if found and max(found) >= layers:
        raise fields.wrong(key, found, f"layers below {layers}")
    return [there if layer in found else other for layer in range(layers)]


def _compressed(fields: Fields, family: str, _: int | None) -> list[str] | None:
    if family != "deepseek_v4" or (ratios := fields.numbers("compress_ratios")) is None:
        return None
    words = {0: "sliding", 4: "compressed_sparse", 128: "heavily_compressed"}
    if unknown := [ratio for ratio in ratios if ratio not in words]:
        raise fields.wrong(
            "compress_ratios", ratios, f"a list of {', '.join(map(str, words))}; {unknown[0]} is unknown"
        )
    return [words[ratio] for ratio in ratios]


def _linear_config(fields: Fields, _: str, stated: int | None) -> list[str] | None:
    linear = fields.mapping("linear_attn_config")
    if not linear or not linear.get("full_attn_layers"):
        return None
    full = fields.over(linear).numbers("full_attn_layers") or []
    layers = _layers(fields, stated)
    return _marked(fields, "full_attn_layers", [layer - 1 for layer in full], layers, "full", "linear")


def _sparse_config(fields: Fields, family: str, _: int | None) -> list[str] | None:
    sparse = fields.mapping("sparse_attention_config")
    if not sparse or family != "minimax_m3_vl_text":
        return None
    inner = fields.over(sparse)
    if inner.flag("use_sparse_attention") is False or (found := inner.numbers("sparse_attention_freq")) is None:
        return None
    return ["sparse" if one else "full" for one in found]


def _windows(fields: Fields, family: str, _: int | None) -> list[str] | None:
    """Return the words of a window given layer by layer; null is full attention."""
    value = fields.config.get("sliding_window")
    if not isinstance(value, (list, tuple)) or not value:
        return None
    fields.seen.add("sliding_window")
    if not all(one is None or (isinstance(one, int) and not isinstance(one, bool) and one >= 0) for one in value):
        raise fields.wrong("sliding_window", value, "a whole number, or one per layer")
    if not family:
        raise UsageError(
            f"sliding_window in {fields.source} is one number per layer, and its model_type is unknown here",
            "describe its layers in a YAML file",
        )
    return ["sliding" if one else "full" for one in value]


def _shared(fields: Fields, words: list[str]) -> list[str]:
    """Return the words with `shared` for layers that read another layer's KV."""
    layers = len(words)
    if number := fields.whole("num_kv_shared_layers"):
        if number >= layers:
            raise fields.wrong("num_kv_shared_layers", number, f"below the {layers} layers")
        words = [*words[: layers - number], *["shared"] * number]
    if (sources := fields.numbers("kv_source_layers")) is not None:
        if len(sources) != layers or any(source > layer for layer, source in enumerate(sources)):
            raise fields.wrong("kv_source_layers", sources, f"an earlier layer for each of the {layers}")
        words = [word if sources[layer] == layer else "shared" for layer, word in enumerate(words)]
    factor = fields.whole("cla_share_factor")
    if fields.flag("use_cla") and factor:
        words = [word if layer % factor == 0 else "shared" for layer, word in enumerate(words)]
    return words


def _by_rule(fields: Fields, rule: str, layers: int) -> list[str]:
    """Return the words of a file that lists none."""
    name, _, number = rule.partition(":")
    fallback = int(number) if number else 0
    if fields.flag("use_sliding_window") is False:
        fields.seen.update((*WINDOW, "max_window_layers"))
    if fields.has("attention_chunk_size") and (fields.has("no_rope_layers") or "no_rope_layers" in fields.config):
        name = name or "llama4"
    if fields.has("attn_layer_period"):
        return _period(fields, layers)
    if fields.has("full_attention_interval"):
        return _interval(fields, layers, 0)
    if name:
        return _RULES[name](fields, layers, fallback)
    window = fields.find(WINDOW)[1]
    if not window or fields.flag("use_sliding_window") is False:
        return ["full"] * layers
    if fields.has("sliding_window_pattern", "_sliding_window_pattern", "layer_switch"):
        return _every(fields, layers, 0)
    raise UsageError(
        f"sliding_window in {fields.source} is {cut(window)}, and no key says which layers it is for",
        "add layer_types, or give the model's published config.json",
    )


def _full(_fields: Fields, layers: int, _number: int) -> list[str]:
    return ["full"] * layers


def _every(fields: Fields, layers: int, number: int) -> list[str]:
    """Every so-many-th layer is full, the rest have a window."""
    if fields.flag("use_sliding_window") is False or not fields.find(WINDOW)[1]:
        return ["full"] * layers
    keys = ("sliding_window_pattern", "_sliding_window_pattern", "layer_switch", "global_attn_every_n_layers")
    order = fields.find(("order_of_interleaved_layers",))[1]
    if order not in (None, "local_attn_first"):
        raise fields.wrong("order_of_interleaved_layers", order, "local_attn_first")
    step = fields.count(keys) or number
    first = (fields.whole("first_k_dense_replace") or 0) if fields.has("prefix_dense_sliding_window_pattern") else 0
    prefix = fields.count(("prefix_dense_sliding_window_pattern",)) or 1
    return [
        ("full" if (i + 1) % prefix == 0 else "sliding") if i < first
        else "full" if (i - first + 1) % step == 0 else "sliding"
        for i in range(layers)
    ]  # fmt: skip


def _every_last(fields: Fields, layers: int, number: int) -> list[str]:
    return [*_every(fields, layers, number)[:-1], "full"]


def _first(fields: Fields, layers: int, number: int) -> list[str]:
    step = fields.count(("global_attn_every_n_layers",)) or number
    return ["full" if i % step == 0 else "sliding" for i in range(layers)]


def _window(fields: Fields, layers: int, _: int) -> list[str]:
    """All layers have the window, if there is one; these classes ignore `max_window_layers`."""
    fields.seen.add("max_window_layers")
    on = fields.find(WINDOW)[1] and fields.flag("use_sliding_window") is not False
    return ["sliding" if on else "full"] * layers


def _window_if(fields: Fields, layers: int, _: int) -> list[str]:
    fields.seen.update((*WINDOW, "max_window_layers"))
    return _window(fields, layers, 0) if fields.flag("use_sliding_window") else ["full"] * layers


def _qwen2(fields: Fields, layers: int, _: int) -> list[str]:
    """Layers from `max_window_layers` on have the window, if `use_sliding_window` is true."""
    whole = fields.whole("max_window_layers")
    fields.seen.update(WINDOW)
    if not fields.flag("use_sliding_window") or not fields.find(WINDOW)[1]:
        return ["full"] * layers
    return ["full" if i < (whole or 0) else "sliding" for i in range(layers)]


def _dots1(fields: Fields, layers: int, _: int) -> list[str]:
    whole = fields.whole("max_window_layers") or 0
    return ["sliding" if fields.find(WINDOW)[1] and i >= whole else "full" for i in range(layers)]


def _rope(fields: Fields, layers: int) -> list[int]:
    """Return 1 for layers with RoPE, 0 for those without."""
    listed = fields.numbers("no_rope_layers")
    step = fields.count(("no_rope_layer_interval",)) or 4
    found = listed or [int((i + 1) % step != 0) for i in range(layers)]
    if len(found) < layers:
        raise fields.wrong("no_rope_layers", found, f"one number for each of the {layers} layers")
    return found[:layers]


def _smollm3(fields: Fields, layers: int, _: int) -> list[str]:
    window = fields.find(WINDOW)[1]
    on = fields.flag("use_sliding_window") and window
    return ["sliding" if on and not rope else "full" for rope in _rope(fields, layers)]


def _llama4(fields: Fields, layers: int, _: int) -> list[str]:
    if not fields.find(("attention_chunk_size",))[1]:
        return ["full"] * layers
    return ["chunked" if rope else "full" for rope in _rope(fields, layers)]


def _mimo(_fields: Fields, layers: int, _number: int) -> list[str]:
    return ["full" if i == 0 or (i + 1) % 6 == 0 else "sliding" for i in range(layers)]


def _interval(fields: Fields, layers: int, number: int) -> list[str]:
    step = fields.count(("full_attention_interval",)) or number
    return ["full" if (i + 1) % step == 0 else "linear" for i in range(layers)]


def _kimi(_fields: Fields, layers: int, _number: int) -> list[str]:
    return ["full" if i and i % 4 == 0 else "linear" for i in range(layers)]


def _group(fields: Fields, layers: int, _: int) -> list[str]:
    step = fields.needed(("layer_group_size",))
    return ["full" if (i + 1) % step == 0 else "linear" for i in range(layers)]


def _period(fields: Fields, layers: int, _: int = 0) -> list[str]:
    step, offset = fields.needed(("attn_layer_period",)), fields.whole("attn_layer_offset") or 0
    return ["full" if i % step == offset else "mamba" for i in range(layers)]


def _mamba(_fields: Fields, layers: int, _number: int) -> list[str]:
    return ["mamba"] * layers


def _hybrid(_fields: Fields, layers: int, _number: int) -> list[str]:
    return ["hybrid"] * layers


def _zamba(fields: Fields, layers: int, _: int) -> list[str]:
    step, offset = fields.needed(("attn_layer_period",)), fields.whole("attn_layer_offset") or 0
    return ["mamba", "mamba", "hybrid", *("hybrid" if i % step == offset else "mamba" for i in range(layers - 3))]


def _zamba2(fields: Fields, layers: int, _: int) -> list[str]:
    if layers != 54:
        return _listed(fields, layers, 0)
    return ["hybrid" if i in (6, 12, 18, 24, 30, 36, 42, 47, 51) else "mamba" for i in range(layers)]


def _gpt_neo(fields: Fields, layers: int, _: int) -> list[str]:
    return [("full", "sliding")[i % 2] for i in range(layers)] if layers == 24 else _listed(fields, layers, 0)


def _cycle(fields: Fields, layers: int, _: int) -> list[str]:
    """RecurrentGemma: `block_types` repeat; its attention has a window."""
    own = fields.listed("_block_types") if "_block_types" in fields.config else fields.listed("block_types")
    words = [str(item) for item in own or ()]
    known = {"recurrent": "recurrent", "attention": "sliding"}
    if unknown := [word for word in words if word not in known]:
        raise fields.wrong("block_types", words, f"recurrent and attention; {unknown[0]!r} is unknown")
    return [known[word] for word in itertools.islice(itertools.cycle(words), layers)]


def _minimax(_fields: Fields, layers: int, _number: int) -> list[str]:
    return ["linear" if i % 2 else "full" for i in range(layers)]


def _double(_fields: Fields, layers: int, _number: int) -> list[str]:
    """LongCat-Flash: two attentions in each of `num_layers`; `num_hidden_layers` counts both."""
    return ["full"] * layers


def _deepseek_v4(_fields: Fields, layers: int, _number: int) -> list[str]:
    names = ("heavily_compressed", "compressed_sparse")
    return [names[0] if i < 2 else names[i % 2] for i in range(layers)]


def _listed(fields: Fields, layers: int, _: int) -> list[str]:
    raise UsageError(
        f"{fields.source} doesn't say which of its {layers} layers have attention", "give the published config.json"
    )


_RULES: dict[str, Callable[[Fields, int, int], list[str]]] = {
    "full": _full, "every": _every, "every_last": _every_last, "first": _first, "window": _window,
    "window_if": _window_if, "qwen2": _qwen2, "dots1": _dots1, "smollm3": _smollm3, "llama4": _llama4, "mimo": _mimo,
    "interval": _interval, "kimi": _kimi, "group": _group, "period": _period, "mamba": _mamba, "hybrid": _hybrid,
    "zamba": _zamba, "zamba2": _zamba2, "cycle": _cycle, "minimax": _minimax, "double": _double,
    "deepseek_v4": _deepseek_v4, "listed": _listed, "gpt_neo": _gpt_neo, "indices": _listed, "lfm2": _full,
    "falcon": _full, "bigcode": _full,
}  # fmt: skip
"""Rules of classes for files that don't list their layers; each from the class's `__post_init__`."""
