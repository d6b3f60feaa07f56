"""The pages of allocated memory, as the kernel tells them."""

from __future__ import annotations

import resource

import pytest

from kvdeck.engine.host import host_facts
from kvdeck.engine.io import memory
from kvdeck.engine.io.pages import PageBytes, all_huge, counted, pages_text
from kvdeck.sessions.units import size_text

FACTS = host_facts()
PLAIN = f"{size_text(resource.getpagesize())} pages"
SIZES = (1000, (5 << 20) + 12_345)


def smaps(start: int, size: int, **fields: int) -> str:
    """The text of one mapping; fields in KiB."""
    lines = "".join(f"{name}: {value:>8} kB\n" for name, value in fields.items())
    return f"{start:x}-{start + size:x} rw-p 00000000 00:00 0 \nSize: {size >> 10} kB\n{lines}VmFlags: rd wr mr\n"


@pytest.mark.parametrize("size", SIZES)
def test_plain_memory_is_plain_even_where_every_mapping_is_huge(size: int) -> None:
    buffer = memory.allocate(size)
    assert buffer.pages == PageBytes(plain=size)
    assert pages_text([buffer.pages]) == PLAIN
    buffer.close()


@pytest.mark.skipif(FACTS.huge_pages not in ("madvise", "always"), reason="no transparent huge pages on this host")
@pytest.mark.parametrize("size", SIZES)
def test_huge_pages_are_there_if_the_host_gives_them(size: int) -> None:
    buffer = memory.allocate(size, huge_pages=True)
    assert buffer.address % memory.HUGE_PAGE == 0
    pages = buffer.pages
    assert pages is not None
    assert pages.reserved + pages.transparent + pages.plain == size
    assert pages.plain < size, "the host has huge pages, but the kernel gave none"
    buffer.array[:] = 7
    buffer.close()


@pytest.mark.skipif(FACTS.huge_pages_free < 3, reason="no huge pages are reserved on this host")
@pytest.mark.parametrize("size", SIZES)
def test_reserved_huge_pages_come_first(size: int) -> None:
    buffer = memory.allocate(size, huge_pages=True)
    assert buffer.pages == PageBytes(reserved=size)
    buffer.close()


def test_a_reserve_that_is_too_small_is_no_error() -> None:
    size = (FACTS.huge_pages_free + 8) * memory.HUGE_PAGE
    assert memory._reserved(size) is None or FACTS.huge_page_bytes != memory.HUGE_PAGE


def test_the_pages_of_a_part_are_counted_by_the_parts_of_its_mapping() -> None:
    text = smaps(0x1000, 0x400000, KernelPageSize=4, Rss=4096, AnonHugePages=2048)
    assert counted(text, 0x2000, 1000) == PageBytes(transparent=500, plain=500)
    reserved = smaps(0x800000, 0x200000, KernelPageSize=2048, Rss=0, AnonHugePages=0)
    assert counted(text + reserved, 0x800000, 0x200000) == PageBytes(reserved=0x200000)


def test_memory_that_is_not_mapped_or_not_touched_is_not_judged() -> None:
    text = smaps(0x1000, 0x1000, KernelPageSize=4, Rss=0, AnonHugePages=0)
    assert counted(text, 0x1000, 0x1000) is None
    assert counted(text, 0x9000, 0x1000) is None
    assert counted("", 0, 1) is None


def test_kinds_are_told_in_words() -> None:
    assert pages_text([PageBytes(reserved=5), PageBytes(reserved=7)]) == "reserved huge pages"
    assert (
        pages_text([PageBytes(transparent=60), PageBytes(plain=40)]) == f"60 % transparent huge pages and 40 % {PLAIN}"
    )
    assert pages_text([PageBytes(transparent=999, plain=1)]) == "transparent huge pages"
    assert pages_text([]) is None
    assert pages_text([PageBytes(plain=1), None]) is None
    assert all_huge(["reserved huge pages", "transparent huge pages"])
    assert not all_huge(["transparent huge pages", PLAIN])
