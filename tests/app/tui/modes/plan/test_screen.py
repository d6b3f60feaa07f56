"""The Plan screen: what the keys do, what is shown, and what is sent, saved and copied."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from kvdeck.app.tui.bandwidth import BandwidthHistory, BandwidthPoint, BandwidthReader, LayoutComparison
from kvdeck.app.tui.current_plan import planned
from kvdeck.app.tui.dialogs.picker import Choice, Picker, matching
from kvdeck.app.tui.form_fields import LAYOUTS
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.modes.plan.figures import command_rows, figure_rows, grid_rows
from kvdeck.app.tui.modes.plan.form import COLUMNS, PlanForm, block_spec, read_plan
from kvdeck.app.tui.modes.plan.panes import CommandPane, Figures, Grid, ModelLine, PlanPane
from kvdeck.app.tui.modes.plan.picture import block_rows, lesson, moves_in
from kvdeck.app.tui.modes.plan.run_settings import block_choice
from kvdeck.app.tui.modes.run.form import Form
from kvdeck.app.tui.modes.run.form_pane import FormPane
from kvdeck.app.tui.state import Doctor, EngineState, PathReport
from kvdeck.app.tui.widgets.lines import Row
from kvdeck.engine.planning.model_files import catalogue, find_model
from kvdeck.engine.planning.precision import PRECISIONS
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.records import PATHS, Verdict
from kvdeck.sessions.store.store import Store
from tests.app.conftest import Answered, DeckOfFiles
from tests.support.builders import run as a_run
from tests.support.builders.models import write_config

BIG, SMALL = (120, 40), (80, 24)
FIELDS = {field.key: field for column in COLUMNS for field in column}
R1 = PlanForm(model=find_model("deepseek-r1"), pp=16, isl=10000, requests=10, page_size=256, doctor=a_run.doctor())


def text(rows: list[Row]) -> str:
    return "\n".join("".join(part for part, _ in row) for row in rows)


async def open_plan(pilot: Pilot[None]) -> None:
    pilot.app.doctor = a_run.doctor()
    pilot.app.post_message(EngineChanged(EngineState("connected", "", 4242)))
    await pilot.press("1")
    await pilot.pause()


async def test_every_change_shows_at_once(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await open_plan(pilot)
        shown = deck.screen.query_one(Figures)
        assert "65,536 B = 64 KiB in 32 layers" in shown.plain
        await pilot.press("plus")
        assert "524,288 B = 512 KiB" in shown.plain
        assert "--max_block_size 524288" in deck.screen.query_one(CommandPane).plain
        assert "▸512 KiB" in deck.screen.query_one(Grid).plain
        await pilot.press("right", "enter", *"1000", "enter")
        assert "│ 62.5 MiB " in shown.plain


async def test_a_model_is_searched_and_taken(deck: Answered):
    async with deck.run_test(size=SMALL) as pilot:
        await open_plan(pilot)
        await pilot.press("m", *"deepseek-r", "enter")
        assert "DeepSeek R1  61 layers · MLA 576" in deck.screen.query_one(ModelLine).plain
        await pilot.press("m", "escape")
        assert not isinstance(deck.screen, Picker)


async def test_a_config_json_is_typed(deck: Answered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.json"
    path.write_text('{"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "hidden_size": 512}')
    async with deck.run_test(size=BIG) as pilot:
        await open_plan(pilot)
        await pilot.press("m", *"config.json", "enter")
        form = deck.screen.query_one(PlanPane).form
        assert (form.model.layers, form.file) == (4, str(path))
        path.write_text('{"architectures": ["BertModel"]}')
        await pilot.press("m", *"config.json", "enter")
        assert deck.screen.query_one(PlanPane).form == form


async def test_coming_back_shows_what_was_measured_meanwhile(deck: Answered, monkeypatch: pytest.MonkeyPatch):
    looked = []

    async def load_bandwidth(hostname: str) -> BandwidthHistory:
        looked.append(hostname)
        return a_run.measured()

    monkeypatch.setattr(deck.requests, "load_bandwidth", load_bandwidth)
    async with deck.run_test(size=BIG) as pilot:
        await open_plan(pilot)
        before = len(looked)
        await pilot.press("2")
        await pilot.press("1")
        await pilot.pause()
        assert len(looked) > before


async def test_r_sends_the_block_to_the_engine_and_goes_there(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await open_plan(pilot)
        await pilot.press("plus", "r")
        await pilot.pause()
        ((kind, spec),) = deck.requests.asked
        assert kind == "run"
        assert spec_from_mapping(spec).geometry.block_bytes == 524288
        assert spec["paths"] == ["HostToHost"]
        assert deck.current_mode == "run"


async def test_e_carries_the_block_into_the_run_form(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("2", "v", "down", "down", "plus", "v", "v")  # a plain block size, that the plan's replaces
        await open_plan(pilot)
        await pilot.press("plus", "right", "enter", *"512", "enter", "e")
        await pilot.pause()
        assert deck.requests.asked == []
        assert deck.current_mode == "run"
        form = deck.screen.query_one(FormPane).form
        assert spec_from_mapping(form.to_mapping()).geometry.block_bytes == 524288
        assert (form.to_mapping()["paths"], form.spec.batch, form.spec.blocks) == (["HostToHost"], 32, 512)
        assert form.problem() == ""


def test_a_working_set_beyond_the_memory_is_left_to_the_worker():
    small = replace(R1, doctor=Doctor(host={"memory_available_bytes": 4 << 30}))
    assert (block_choice(small).batch, block_choice(small).blocks) == (40, 400)
    large = replace(small, requests=10_000)
    assert (block_choice(large).batch, block_choice(large).blocks) == (40, None)
    assert block_choice(replace(large, isl=10**7)).batch is None
    assert block_choice(replace(small, doctor=Doctor())).batch is None


def planned_with(precision: str) -> list[str]:
    """The models that can have a precision: a packing of MLA's latent needs one."""
    packed = PRECISIONS[precision].packed
    return [
        name for name, model in catalogue().items() if not packed or any(part.packed_bytes for part in model.parts())
    ]


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_every_plan_carries_a_block_of_its_size(precision: str):
    for name in planned_with(precision):
        form = replace(R1, model=find_model(name), precision=precision, pp=1)
        assert Form().with_block(block_choice(form)).spec.geometry.block_bytes == form.plan().group.block_bytes


async def test_the_plan_is_remembered_and_its_block_offered(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        assert planned(deck.memory) is None
        await open_plan(pilot)
        await pilot.press("plus", "plus")
        before = deck.screen.query_one(PlanPane).form
    found = planned(deck.memory)
    assert found is not None
    assert found.block_bytes == 16 * 65536, "over all four ranks"
    assert "llama-3.1-8b" in found.title
    again = DeckOfFiles(memory=json.loads(json.dumps(deck.memory)))
    async with again.run_test(size=BIG) as pilot:
        await open_plan(pilot)
        assert again.screen.query_one(PlanPane).form == before


@pytest.mark.parametrize("figures", [1, {"block_bytes": -1}, {"block_bytes": True}, {}])
def test_a_memory_that_holds_no_plan(figures):
    assert planned({}) is planned({"plan": 1}) is planned({"plan": {"figures": figures}}) is None


async def test_what_is_remembered_of_a_plan_may_be_broken(deck: Answered):
    deck.memory["plan"] = {"model": "/gone/config.json", "strategy": {"tp_size": 2}}
    async with deck.run_test(size=BIG) as pilot:
        await open_plan(pilot)
        assert deck.screen.query_one(PlanPane).form.tp == 1


async def test_what_can_not_run_says_why_and_stays(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await open_plan(pilot)
        await pilot.press("right", "right", *["plus"] * 3, "r")
        await pilot.pause()
        assert deck.requests.asked == []
        assert deck.current_mode == "plan"
        assert "no GPU" in deck.screen.query_one(PlanPane).plain


async def test_save_copy_and_open(deck: Answered, tmp_path: Path):
    deck.requests.plans = tmp_path / "plans"
    async with deck.run_test(size=BIG) as pilot:
        await open_plan(pilot)
        await pilot.press("plus", "plus", "w")
        deck.screen.query_one(CommandPane).focus()
        await pilot.press("y")
        assert deck.clipboard.startswith("nixlbench \\\n")
        assert (deck.requests.plans / "nixlbench.sh").read_text() == deck.clipboard + "\n"
        saved = deck.screen.query_one(PlanPane).form
        (file,) = deck.requests.plans.glob("*.yaml")
        assert file.name == "llama-3.1-8b-tp4-pp1-isl8192-page16.yaml"
        deck.screen.query_one(PlanPane).focus()
        await pilot.press("minus", "minus")
        assert deck.screen.query_one(PlanPane).form != saved
        await pilot.press("o", "enter")
        assert deck.screen.query_one(PlanPane).form == saved


async def test_the_same_figures_again_paint_nothing(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await open_plan(pilot)
        painted = []
        deck.post_display_hook = lambda: painted.append(1)  # type: ignore[method-assign]
        deck.post_message(EngineChanged(EngineState("connected", "", 4242)))
        await pilot.pause()
        assert painted == []


async def test_low_screens_change_between_figures_and_sweep(deck: Answered):
    async with deck.run_test(size=SMALL) as pilot:
        await open_plan(pilot)
        shown = deck.screen.query_one(Figures)
        for said in ("64 KiB, 512 MiB", "16,384 B = 16 KiB", "O_DIRECT", "RAM 8 GiB", "HostToHost LS"):
            assert said in shown.plain
        assert not deck.screen.query_one(Grid).display
        await pilot.press("g")
        assert deck.screen.query_one(Grid).display
        assert not shown.display


def test_deepseek_as_the_issue_has_it():
    shown = text(figure_rows(R1, BandwidthHistory(), 120, 40))
    assert "35,136 B ≈ 34.3 KiB in 61 layers" in shown
    assert "589,824 B = 576 KiB" in shown
    assert "13 × 4, 3 × 3" in shown
    assert "stage 0, 4 layers" in shown
    assert "not compared with FC here" in shown
    assert "--max_batch_size 5958 --max_block_size 589824" in text(command_rows(R1, 120))
    assert "--max_batch_size 23829 --max_block_size 147456" in text(command_rows(replace(R1, access="layer"), 120))


def test_windows_and_replicas_are_said():
    mixed = replace(R1, model=find_model("gpt-oss-120b"), tp=16)
    shown = text(figure_rows(mixed, BandwidthHistory(), 120, 40))
    assert "sliding" in shown
    assert "window 128" in mixed.model.attention
    assert "each of 2 TP ranks has the same copy: fewer KV heads than ranks" in shown


def test_a_hybrids_state_is_shown_and_takes_room():
    hybrid = replace(R1, model=find_model("qwen3-next-80b-a3b"), pp=3, tp=2, requests=1, osl=0)
    shown = text(figure_rows(hybrid, BandwidthHistory(), 120, 40))
    assert "39,518,208 B ≈ 37.7 MiB per request of any length" in shown
    assert "37.7 MiB per request, not KV" in text(figure_rows(hybrid, BandwidthHistory(), 80, 14))
    host = Doctor(host={"memory_available_bytes": hybrid.plan().room_bytes()})
    assert ": 1.00 such caches" in text(figure_rows(replace(hybrid, doctor=host), BandwidthHistory(), 120, 40))


def test_stages_say_whose_rule_they_are():
    assert "1 × 16, 3 × 15 · TensorRT-LLM's rule" in text(figure_rows(replace(R1, pp=4), BandwidthHistory(), 120, 40))
    by_vllm = replace(R1, pp=4).stepped(FIELDS["pp_rule"], 1)
    assert "2 × 15, 1 × 16, 1 × 15 · vLLM's rule" in text(figure_rows(by_vllm, BandwidthHistory(), 120, 40))
    given = replace(R1, pp=2, pp_layers=(1, 60))
    assert "1 × 1, 1 × 60 · given" in text(figure_rows(given, BandwidthHistory(), 120, 40))
    assert given.stepped(FIELDS["pp"], 1).pp_layers == ()


def test_time_comes_from_the_nearest_block_that_was_measured():
    near = replace(R1, path="HostToDisk", page_size=4 * R1.page_size)
    shown = text(figure_rows(near, a_run.measured(), 99, 40))
    assert f"169 ms at 1.40 GB/s · 2 MiB blocks with POSIX in {a_run.NAME}" in shown
    assert " FC" in moves_in(near, near.plan(), a_run.measured())[0]
    far = replace(R1, path="HostToDisk")
    assert "not compared with FC here" in text(figure_rows(far, a_run.measured(), 120, 40))
    assert "not measured here" in text(figure_rows(far, a_run.measured(), 99, 40))
    assert moves_in(far, far.plan(), a_run.measured()) == ("–", "not measured: r runs it on HostToDisk")
    other = replace(near, doctor=Doctor((PathReport("HostToDisk", "GDS", "ready", "", ""),)))
    assert moves_in(other, other.plan(), a_run.measured())[0] == "–", "another backend"
    assert moves_in(near, near.plan(), a_run.measured())[1] == f"HostToDisk POSIX, {a_run.NAME}"


def test_until_doctor_has_reported_no_backends_figures_are_shown():
    form = replace(R1, path="HostToDisk", page_size=4 * R1.page_size, doctor=Doctor(looking=True))
    assert moves_in(form, form.plan(), a_run.measured()) == ("–", "doctor has not reported")
    assert "GB/s" not in text(figure_rows(form, a_run.measured(), 90, 40))
    assert "HostToDisk FC     – · doctor has not reported" in text(figure_rows(form, a_run.measured(), 90, 40))
    assert lesson(form, form.plan(), a_run.measured())[0].endswith(": doctor has not reported")
    grid = grid_rows(replace(form, path="HostToHost"), a_run.measured(), 120)
    assert "– · doctor has not reported" in text(grid)
    assert {tone.removeprefix("!") for row in grid[2:-1] for _, tone in row} == {"", "dim"}
    failed = replace(form, doctor=Doctor(error="no engine"))
    assert moves_in(failed, failed.plan(), a_run.measured()) == ("–", "doctor failed: 9 says why")


def test_the_grid_is_coloured_by_the_backend_that_a_run_would_use():
    assert {"ok", "warn"} & {tone for row in grid_rows(R1, a_run.measured(), 120)[2:-1] for _, tone in row}
    other = replace(R1, doctor=Doctor((PathReport("HostToHost", "Mooncake", "ready", "", ""),)))
    grid = grid_rows(other, a_run.measured(), 120)
    assert {tone.removeprefix("!") for row in grid[2:-1] for _, tone in row} == {"", "dim"}
    assert "no block-size sweep measured on HostToHost with Mooncake" in text(grid)


def test_what_pieces_cost_is_what_a_run_here_found_with_its_interval():
    form = replace(R1, page_size=16)
    answer, tone = lesson(form, form.plan(), a_run.measured())
    took = "2.94× the time of FC (2.91–2.97; 64 KiB blocks, UCX, sweep)"
    assert answer == f"LS moves pieces of 9 KiB: here it took {took}"
    assert tone == "!"
    assert "r compares both layouts" in lesson(form, form.plan(), BandwidthHistory())[0]


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict", "words"),
    [
        (1.01, 0.93, 1.09, "undecided", "slower than FC here? can't tell (0.93–1.09; "),
        (1.0, 0.99, 1.01, "no difference", "here it took the same time as FC (0.99–1.01; "),
        (0.8, 0.78, 0.82, "faster", "here it took 0.80× the time of FC (0.78–0.82; "),
    ],
)
def test_a_ratio_is_said_as_far_as_the_run_decided_it(
    ratio: float, low: float, high: float, verdict: Verdict, words: str
):
    found = LayoutComparison("HostToHost", 64 << 10, ratio, low, high, verdict, "one", "UCX")
    form = replace(R1, page_size=16)
    assert words in lesson(form, form.plan(), BandwidthHistory(comparisons=(found,)))[0]


def test_the_block_is_drawn_in_both_layouts_and_nothing_is_cut():
    plan = PlanForm().plan()
    shown = [text([row]) for row in block_rows(plan, 120)]
    assert "1 descriptor of" in shown[1]
    assert shown[2].count("█") == 32
    assert "64 descriptors of" in shown[2]
    assert max(map(len, shown)) <= 120
    point = a_run.measured().at("HostToHost", LAYOUTS[1], 70_000)
    assert point is not None
    assert (point.layout, point.block_bytes) == ("ls", 65536)


def test_rooms_are_this_hosts():
    host = {"gpus": [{"memory_bytes": 80 << 30, "memory_free_bytes": 40 << 30}], "memory_available_bytes": 1 << 30}
    shown = text(figure_rows(replace(R1, osl=0, pp=1, doctor=Doctor(host=host)), BandwidthHistory(), 120, 40))
    assert "VRAM 40 GiB: 11.9 such caches" in shown
    assert "RAM 1 GiB: 29.8 %" in shown
    assert "disk: unknown" in shown


def test_the_knee_is_where_larger_blocks_bring_little():
    assert a_run.measured().knee("HostToHost") == 1 << 20
    assert a_run.measured().knee("HostToDisk") is None
    assert "[" in text(grid_rows(R1, a_run.measured(), 120))
    assert "no block-size sweep" in text(grid_rows(replace(R1, path="DiskToHost"), a_run.measured(), 120))
    assert "can't be read" in text(grid_rows(R1, BandwidthHistory(error="the sessions can't be read"), 120))


def test_what_is_no_plan_says_why_in_every_pane():
    wrong = replace(R1, pp=62)
    assert wrong.problem() == "PP 62 is more than the 61 layers of deepseek-r1"
    shown = text(figure_rows(wrong, BandwidthHistory(), 80, 14))
    assert wrong.problem() in shown
    assert "one stage per layer" in shown
    assert "PP 62" in text(command_rows(wrong, 80))
    assert "–" in text(grid_rows(wrong, BandwidthHistory(), 80))


@pytest.mark.parametrize("width", [80, 120, 200])
def test_nothing_is_wider_than_its_pane(width: int):
    for name in catalogue():
        form = replace(R1, model=find_model(name), pp=1)
        for rows in (figure_rows(form, a_run.measured(), width, 14), grid_rows(form, a_run.measured(), width),
                     command_rows(form, width)):  # fmt: skip
            assert max(len("".join(part for part, _ in row)) for row in rows) <= width, name
        for split in ({}, {"tp": 4, "pp": 3}, {"tp": 16, "pp": 5, "pp_rule": "sglang"}):
            rows = figure_rows(replace(form, **split), a_run.measured(), width, 14)
            assert len(rows) <= 14, (name, split)
            assert replace(form, **split).problem() or "HostToHost LS" in text(rows)


def test_every_field_steps_there_and_back():
    for field in FIELDS.values():
        form = replace(R1, tp=4, pp=4, cp=2, dp=2)
        assert form.stepped(field, 1).stepped(field, -1) == form, field.key
    assert R1.typed(FIELDS["isl"], "0") == R1
    assert R1.typed(FIELDS["osl"], "0").osl == 0
    assert R1.typed(FIELDS["isl"], "77").isl == 77
    assert replace(R1, isl=1).stepped(FIELDS["isl"], -1).isl == 1


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_every_block_becomes_a_run_of_its_size(precision: str):
    for name in planned_with(precision):
        form = replace(R1, model=find_model(name), precision=precision, pp=1)
        group = form.plan().group
        assert spec_from_mapping(block_spec(group, precision)).geometry.block_bytes == group.block_bytes


@pytest.mark.parametrize("path", PATHS)
def test_every_path_has_its_command(path: str):
    assert "nixlbench" in replace(R1, path=path).command(R1.plan())


def test_a_plan_survives_its_file(tmp_path: Path):
    import yaml

    form = replace(R1, tp=2, layouts=frozenset({LAYOUTS[2]}), path="DiskToHost", precision="nvfp4", access="layer",
                   pp=2, pp_rule="vllm", pp_layers=(30, 31))  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(form.to_mapping()))
    assert read_plan(tmp_path / "a.yaml", replace(PlanForm(), doctor=form.doctor)) == form
    (tmp_path / "b.yaml").write_text("strategy: {kvcache_quant_mode: fp7}\n")
    with pytest.raises(UsageError, match="fp7"):
        read_plan(tmp_path / "b.yaml", form)
    kvbench = write_config(tmp_path, "block", 8, 32)
    read = read_plan(kvbench, form)
    assert (read.model, read.path, read.tp, read.pp, read.isl) == (form.model, form.path, 8, 32, 10000)


def test_measured_reads_finished_sessions_of_this_host(tmp_path: Path):
    store = Store(tmp_path)
    for name in ("one", "two"):
        store.create(name, {}, "")
        session = a_run.session(name)
        store.write(msgspec.structs.replace(session, host={"hostname": "dgx-01" if name == "one" else "other"}))
    reader = BandwidthReader(store)
    found = reader.read("dgx-01")
    assert {point.session for point in found.points} == {"one"}
    assert len(found.points) == 6
    (disk,) = [each for each in found.comparisons if each.path == "HostToDisk"]
    of_session = next(each for each in a_run.session("one").comparisons if each.path == "HostToDisk")
    assert (disk.backend, disk.session, disk.verdict) == ("POSIX", "one", of_session.verdict)
    assert (disk.low, disk.ratio, disk.high) == (of_session.low, of_session.ratio, of_session.high)
    assert reader.read("dgx-01") == found
    assert isinstance(found.points[0], BandwidthPoint)


def test_a_comparison_the_other_way_round_is_turned(tmp_path: Path):
    session = a_run.session("one")
    turned = [
        msgspec.structs.replace(each, baseline=each.candidate, candidate=each.baseline, ratio=0.8, low=0.5, high=0.9,
                                verdict="faster")
        for each in session.comparisons
    ]  # fmt: skip
    store = Store(tmp_path)
    store.create("one", {}, "")
    store.write(msgspec.structs.replace(session, comparisons=tuple(turned)))
    found = BandwidthReader(store).read("dgx-01").comparisons[0]
    assert (found.ratio, found.low, found.high, found.verdict) == (1 / 0.8, 1 / 0.9, 2.0, "slower")


def test_the_search_wants_every_word():
    choices = [Choice("qwen3-8b", "36 GQA"), Choice("llama-3.1-8b", "32 GQA")]
    assert [choice.key for choice in matching(choices, "8b 32")] == ["llama-3.1-8b"]


def test_a_models_own_precision_and_what_was_assumed(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "torch_dtype": "bfloat16"}')
    form = replace(R1, pp=1, tp=1).with_model(find_model(str(tmp_path)), str(tmp_path))
    assert form.precision == "bf16"
    assert "bf16 by torch_dtype" in form.hint(FIELDS["precision"])
    shown = text(figure_rows(form, BandwidthHistory(), 120, 60))
    assert "bf16 (torch_dtype): 2 B per element" in shown
    assert "LlamaConfig's default" in shown
    sparse = replace(form, model=find_model("deepseek-v3.2"), precision="fp8", tp=2)
    shown = text(figure_rows(sparse, BandwidthHistory(), 120, 60))
    assert "packs it in 656 B" in shown
    assert "each of 2 TP ranks has the same copy" in shown
