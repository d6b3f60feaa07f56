"""How many bytes a KVBM block has: told by number or plan, or learned from counters of both. KVBM's byte counters are
known by name from Dynamo's own list of names; no sample prints them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kvdeck.app.text.monitor_report import monitor_lines
from kvdeck.app.tui.modes.plan.form import PlanForm
from kvdeck.engine.planning.model_files import find_model
from kvdeck.engine.telemetry.block_size import BlockSize, learned, told
from kvdeck.engine.telemetry.checks import check
from kvdeck.engine.telemetry.sample import Flow, Snapshot, from_mapping, take, to_mapping
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from kvdeck.engine.telemetry.tracker import Track
from kvdeck.sessions.errors import UsageError
from tests.support.programs.metrics_server import sample

OBJECTS = """kvbm_offload_blocks_d2h 40
kvbm_offload_blocks_d2o 10
kvbm_offload_bytes_object {}
kvbm_onboard_blocks_o2d 0
kvbm_onboard_bytes_object 0
"""


def moment(*texts: str, **told_size: object) -> Snapshot:
    endpoint, track = Endpoint("http://127.0.0.1:1/metrics"), Track("kvbm", "kvbm")
    for text in texts:
        reading = endpoint._reading(text)
        track.took(reading, reading.t_ns)
        last = take([(track, 1.0)], reading.t_ns, **told_size)  # type: ignore[arg-type]
    return replace(last, checks=check(last))


def to_host(snapshot: Snapshot) -> Flow:
    return next(flow for flow in snapshot.flows if (flow.source_tier, flow.target_tier) == ("G1", "G2"))


def test_a_byte_counter_of_one_move_tells_of_all() -> None:
    snapshot = moment(OBJECTS.format(10 * 524_288))
    flow = to_host(snapshot)
    assert (flow.bytes_total, flow.bytes_from_blocks) == (40 * 524_288, True)
    assert flow.bytes_claim == "derived from kvbm_offload_bytes_object and the blocks of kvbm offload_blocks_d2o"
    said = next(flow for flow in snapshot.flows if flow.target_tier == "G4")
    assert (said.bytes_total, said.bytes_from_blocks, said.bytes_claim) == (10 * 524_288, False, "")
    assert from_mapping(to_mapping_and_back(snapshot)) == snapshot
    report = "\n".join(line.text for line in monitor_lines(snapshot, 100))
    assert "≈ blocks of 524,288 B = 512 KiB, derived from kvbm_offload_bytes_object" in report


def to_mapping_and_back(snapshot: Snapshot) -> dict[str, object]:
    import orjson

    read: dict[str, object] = orjson.loads(orjson.dumps(to_mapping(snapshot)))
    return read


def test_what_was_learned_stays_while_one_counter_is_ahead() -> None:
    still, ahead = OBJECTS.format(10 * 524_288), OBJECTS.format(16 * 524_288)
    assert to_host(moment(still, ahead)).bytes_total == 40 * 524_288, "6 blocks on their way are not counted yet"
    settled = ahead.replace("d2o 10", "d2o 16")
    assert to_host(moment(still, ahead, settled, settled)).bytes_total == 40 * 524_288
    assert to_host(moment(OBJECTS.format(10 * 524_288 + 1))).bytes_total is None, "no whole number of bytes"


def test_counters_that_disagree_teach_nothing() -> None:
    base = Flow("s", "a", "G1", "G4", "m", "c", bytes_total=100.0, blocks_total=10.0)
    assert learned([base]) == BlockSize(10.0, "derived from m and the blocks of a")
    assert learned([base, replace(base, name="b", bytes_total=110.0)]) is None
    assert learned([replace(base, bytes_from_blocks=True)]) is None, "not from what was made of it"
    assert learned([replace(base, blocks_total=0.0)]) is None
    assert learned([replace(base, blocks_per_s=1.0)]) is None, "it moves"


def test_the_samples_say_no_bytes_of_blocks() -> None:
    snapshot = moment(sample("dynamo_kvbm_metrics_host_replay.prom").decode())
    assert to_host(snapshot).bytes_total is None
    assert not [found for found in snapshot.checks if found.id == "block-size"]


@pytest.mark.parametrize(("size", "fires"), [(524_288.0, False), (262_144.0, True)])
def test_a_size_that_was_told_is_held_against_the_counters(size: float, fires: bool) -> None:
    snapshot = moment(OBJECTS.format(10 * 524_288), block_bytes=size, block_claim="from the plan x")
    found = [one for one in snapshot.checks if one.id == "block-size"]
    assert bool(found) == fires
    assert to_host(snapshot).bytes_total == 40 * size, "what was told is taken"
    if fires:
        assert "262,144 B = 256 KiB (from the plan x), but kvbm reports 524,288 B = 512 KiB" in found[0].evidence


def save(folder: Path, form: PlanForm, name: str = "mine") -> Path:
    """As the Plan screen saves it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(form.to_mapping(), sort_keys=False))
    return path


def test_a_saved_plan_gives_the_block(tmp_path: Path) -> None:
    form = PlanForm(precision="bfloat16", page_size=128)
    path = save(tmp_path, form)
    size = told("plan:mine", tmp_path)
    assert size.bytes == 32 * 2 * 8 * 128 * 2 * 128, "layers, K and V, heads, their size, bfloat16, tokens"
    assert size.claim == "from the plan mine: 128 tokens of llama-3.1-8b"
    assert told(str(path), tmp_path / "elsewhere") == size
    save(tmp_path, replace(form, tp=4, pp=2))
    split = told("plan:mine", tmp_path)
    assert split.bytes == size.bytes, "a block over all ranks is as large as on one"
    assert split.claim.endswith("over 8 ranks")
    save(tmp_path, replace(form, tp=16))
    assert told("plan:mine", tmp_path).bytes == 2 * size.bytes, "with 8 heads on 16 ranks each is kept twice"


def test_what_gives_no_size(tmp_path: Path) -> None:
    save(tmp_path, PlanForm())
    save(tmp_path, PlanForm(model=find_model("gpt-oss-120b")), "mixed")
    (tmp_path / "bare.yaml").write_text("strategy: {tp_size: 2}\n")
    for text, words in {
        "0": "is not a size",
        "-5": "is not a size",
        "many": "is not a size",
        "plan:other": "unknown plan 'other'",
        "plan:../mine": "unknown plan",
        "plan:bare": "has no model",
        "plan:mixed": "several kinds",
        str(tmp_path / "none.yaml"): "is not a size",
    }.items():
        with pytest.raises(UsageError, match=words):
            told(text, tmp_path)
    assert told("4096", tmp_path) == BlockSize(4096.0, "as given with --block-bytes")
