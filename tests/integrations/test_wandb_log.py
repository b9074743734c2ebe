"""Transaction logs are read to the last whole record, whatever was done to the bytes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations.wandb_log import Damage, TransactionLog, UnreadableLogError
from tests.integrations.wandb_logs import BLOCK, HEADER, framed, log_of, output

TEXTS = [str(number) * size for number, size in enumerate((5, 40_000, 1, 70_000, 12, 300, 32_000, 9, 4))]
PAYLOADS = [output(text).SerializeToString() for text in TEXTS]
LOG, ENDS = framed(PAYLOADS)
STARTS = [len(HEADER), *ENDS[:-1]]


def read(path: Path, content: bytes) -> tuple[list[str], Damage]:
    path.write_bytes(content)
    log = TransactionLog(path)
    return [record.output_raw.line for record in log.records()], log.damage


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "run-abc.wandb"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=90_000), max_size=6))
def test_whatever_was_written_is_read(file: Path, contents: list[bytes]) -> None:
    texts = [content.hex() for content in contents]
    assert read(file, log_of(*map(output, texts))) == (texts, Damage())


@given(st.integers(len(HEADER), len(LOG) - 1))
def test_of_a_log_that_is_cut_off_all_whole_records_are_read(file: Path, cut: int) -> None:
    whole = [text for text, end in zip(TEXTS, ENDS, strict=True) if end <= cut]
    texts, damage = read(file, LOG[:cut])
    assert texts == whole
    assert damage.stretches == 0
    begun = [start for start, end in zip(STARTS, ENDS, strict=True) if start < cut < end]
    is_padding = bool(begun) and not any(LOG[begun[0] : cut]) and BLOCK - begun[0] % BLOCK < 7
    assert damage.torn_at == (begun[0] if begun and not is_padding else None)


@given(st.integers(len(HEADER), len(LOG) - 1), st.integers(1, 255))
def test_a_wrong_byte_costs_no_record_before_it_and_none_of_later_blocks(file: Path, at: int, change: int) -> None:
    texts, damage = read(file, LOG[:at] + bytes([LOG[at] ^ change]) + LOG[at + 1 :])
    spans = list(zip(TEXTS, STARTS, ENDS, strict=True))
    next_block = (at // BLOCK + 1) * BLOCK
    kept = [text for text, start, end in spans if end <= at or start >= next_block]
    assert [text for text in texts if text in kept] == kept
    assert set(texts) <= set(TEXTS)
    is_padding = any(end <= at < end + 7 and (end + 7) // BLOCK > end // BLOCK for end in ENDS)
    if not is_padding:
        assert len(texts) < len(TEXTS)
        assert (damage.stretches, damage.torn_at) != (0, None)
        assert damage.sentence


@settings(deadline=None)
@given(st.binary(max_size=2 * BLOCK))
def test_any_bytes_are_read_without_another_error(file: Path, content: bytes) -> None:
    read(file, HEADER + content)


@given(st.binary(max_size=200))
def test_chunks_of_any_content_are_read_without_another_error(file: Path, payload: bytes) -> None:
    texts, _ = read(file, framed([payload, output("after").SerializeToString()])[0])
    assert texts[-1] == "after"


@pytest.mark.parametrize("content", [b"", b":W&", b":W&B\xe1\xbe\x01" + LOG[7:], b"SQLite format 3\0"])
def test_a_file_that_is_no_log_is_said_to_be_none(file: Path, content: bytes) -> None:
    with pytest.raises(UnreadableLogError, match="does not begin"):
        read(file, content)


def test_a_zeroed_block_is_one_stretch(file: Path) -> None:
    texts, damage = read(file, LOG[:BLOCK] + bytes(BLOCK) + LOG[2 * BLOCK :])
    assert set(texts) < set(TEXTS)
    assert texts[-1] == TEXTS[-1]
    assert damage.stretches == 1
    assert damage.sentence is not None
    assert damage.sentence.startswith("one stretch is damaged")


def test_records_that_are_too_large_are_passed_over(file: Path) -> None:
    file.write_bytes(LOG)
    log = TransactionLog(file, max_record=50_000)
    texts = [record.output_raw.line for record in log.records()]
    assert texts == [text for text in TEXTS if len(text) < 50_000]
    assert (log.damage.stretches, log.damage.first) == (1, STARTS[3])


def test_a_large_log_is_not_held_in_memory(file: Path) -> None:
    file.write_bytes(log_of(*(output("x" * 100_000) for _ in range(300))))
    tracemalloc.start()
    count = sum(1 for _ in TransactionLog(file).records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 300
    assert peak < 2_000_000
