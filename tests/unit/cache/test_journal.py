"""The journal of a build: cut or damaged anywhere, its records are those that were written."""

from pathlib import Path

import numpy as np
import pytest

from plifctl.cache.journal import Journal, Record


def records(n: int) -> list[Record]:
    rng = np.random.default_rng(n)
    return [
        Record(f"a/{k}é", rng.bytes(32), k, k + 1, k + 2, k + 3, k + 4, rng.bytes(32), rng.bytes(k * 7))
        for k in range(n)
    ]


def written(path: Path, n: int) -> list[Record]:
    journal = Journal(path, "x")
    journal.append(records(n)[:2])
    journal.append(records(n)[2:])
    journal.close(keep=True)
    return records(n)


def test_journal_opened_again_has_its_records(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "x")
    journal.append(records(5))
    assert list(journal.records()) == records(5)
    journal.close(keep=True)
    again = Journal(tmp_path / "j", "x")
    assert list(again.records()) == records(5)
    assert again.source_digests == {record.name: record.source_digest for record in records(5)}
    assert again.nbytes == (tmp_path / "j").stat().st_size
    again.close(keep=False)
    assert not (tmp_path / "j").exists()


def test_journal_cut_anywhere_continues_after_the_last_complete_record(tmp_path: Path) -> None:
    path = tmp_path / "j"
    all_of_them = written(path, 5)
    original = path.read_bytes()
    for end in range(len(original)):
        path.write_bytes(original[:end])
        journal = Journal(path, "x")
        there = list(journal.records())
        assert there == all_of_them[: len(there)]
        journal.append(all_of_them[len(there) :])
        assert list(journal.records()) == all_of_them
        journal.close(keep=True)
        assert path.read_bytes() == original


def test_journal_record_with_a_flipped_byte_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "j"
    all_of_them = written(path, 5)
    original = path.read_bytes()
    for place in range(len(original)):
        path.write_bytes(original[:place] + bytes([original[place] ^ 0x41]) + original[place + 1 :])
        journal = Journal(path, "x")
        there = list(journal.records())
        assert there == all_of_them[: len(there)]
        assert len(there) < 5
        journal.close(keep=True)


@pytest.mark.parametrize("other", ["y", "xx", ""])
def test_journal_records_of_another_identity_are_dropped(tmp_path: Path, other: str) -> None:
    written(tmp_path / "j", 3)
    journal = Journal(tmp_path / "j", other)
    assert list(journal.records()) == []
    journal.append(records(2))
    journal.close(keep=True)
    again = Journal(tmp_path / "j", other)
    assert list(again.records()) == records(2)
    again.close(keep=False)


def test_journal_of_several_records_of_one_name_the_last_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "x")
    first, second = records(1)[0], records(1)[0]._replace(source_digest=b"\1" * 32)
    journal.append([first])
    journal.append([second])
    assert journal.source_digests == {first.name: second.source_digest}
    journal.close(keep=False)
