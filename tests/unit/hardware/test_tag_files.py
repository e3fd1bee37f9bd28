"""Time-tag files: what is written is read; a museum of bad inputs; PicoQuant's layout against an independent reader."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.datatypes import TimeTags
from common.errors import InputError
from hardware.formats import files, open_writer, ptu, read_tags, readers, write_tags
from hardware.formats.bench_files import command as bench
from hardware.formats.convert import command

NAMES = sorted(files.FORMATS)
KEEPS_FLAGS = ("feather", "parquet", "text")


def batch(times: list[int], channels: list[int], until_ps: int | None = None, overflow: bool = False) -> TimeTags:
    until = until_ps if until_ps is not None else max(times, default=0)
    return TimeTags(np.array(times, np.int64), np.array(channels, np.uint8), until, overflow)


def merged(path: Path, name: str | None = None, faults: files.Faults = "raise") -> list[tuple[int, int]]:
    tags = []
    for part in read_tags(path, name, faults=faults, chunk_tags=3):
        tags += list(zip(part.times_ps.tolist(), part.channels.tolist(), strict=True))
    return tags


@st.composite
def recordings(draw: st.DrawFn) -> list[TimeTags]:
    gaps = draw(st.lists(st.integers(0, 1 << 40), max_size=12))
    times = [1000 * int(t) for t in np.cumsum(gaps)]
    channels = [draw(st.integers(1, 3)) for _ in times]
    cut = draw(st.integers(0, len(times)))
    return [batch(times[:cut], channels[:cut]), batch(times[cut:], channels[cut:], max(times, default=0) + 7)]


@pytest.mark.parametrize("name", NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(recording=recordings())
def test_what_is_written_is_read(tmp_path: Path, name: str, recording: list[TimeTags]) -> None:
    path = tmp_path / "tags"
    assert write_tags(path, recording, name) == sum(map(len, recording))
    expected = [pair for b in recording for pair in zip(b.times_ps.tolist(), b.channels.tolist(), strict=True)]
    if name.startswith("a1"):  # units of 1/256 ns; two clicks of one detector at one time may be one
        expected = sorted({(t, c) for t, c in expected})
        assert [(round(t / 1000), c) for t, c in sorted(set(merged(path, name)))] == [
            (t // 1000, c) for t, c in expected
        ]
    else:
        assert merged(path, name) == expected
    if name in KEEPS_FLAGS:
        assert max((b.until_ps for b in read_tags(path, name)), default=0) == recording[-1].until_ps


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_recording(tmp_path: Path, name: str) -> None:
    write_tags(tmp_path / "tags", [], name)
    assert merged(tmp_path / "tags", name) == []
    times, channels = getattr(readers, name.replace("-", "_"))(tmp_path / "tags")
    assert (times.dtype, times.size, channels.dtype, channels.size) == (np.int64, 0, np.uint8, 0)


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("x.feather", "feather"),
        ("x.PTU", "ptu"),
        ("x.parquet", "parquet"),
        ("x.a1", "a1"),
        ("y.a1X.dat", "a1"),
        ("x.qutag", "qutag"),
        ("x.csv", "text"),
    ],
)
def test_the_format_follows_from_the_name_or_the_first_bytes(tmp_path: Path, file_name: str, name: str) -> None:
    write_tags(tmp_path / file_name, [batch([1000, 2000, 3000], [1, 2, 1])])
    assert files.detect(tmp_path / file_name).name == name
    if files.FORMATS[name].magic:
        (tmp_path / file_name).rename(tmp_path / "nameless")
        assert files.detect(tmp_path / "nameless").name == name
        assert len(merged(tmp_path / "nameless")) == 3


def test_the_order_of_words_of_a1_files_is_found(tmp_path: Path) -> None:
    times = list(range(1_000_000, 2**45, 2**38 + 12345))
    for name in ("a1", "a1-legacy"):
        write_tags(tmp_path / "x.a1", [batch(times, [i % 4 for i in range(len(times))])], name)
        with read_tags(tmp_path / "x.a1") as tags:
            assert tags.info.format == name
            assert sum(map(len, tags)) == len(times)


@pytest.mark.parametrize("name", KEEPS_FLAGS)
def test_lost_tags_stay_lost(tmp_path: Path, name: str) -> None:
    recording = [batch([5], [0], 10), batch([20], [1], 30, overflow=True), batch([], [], 40)]
    write_tags(tmp_path / "tags", recording, name, metadata={"run": "7"})
    read = list(read_tags(tmp_path / "tags", name))
    assert [b.until_ps for b in read if b.overflow] == [30] if name != "parquet" else any(b.overflow for b in read)
    assert max(b.until_ps for b in read) == 40


@pytest.mark.parametrize("name", [name for name in NAMES if name not in KEEPS_FLAGS])
def test_formats_without_flags_refuse_lost_tags(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot say that tags are missing"):
        write_tags(tmp_path / "tags", [batch([1], [1], overflow=True)], name)


def test_metadata_and_resolution_travel(tmp_path: Path) -> None:
    for name in ("feather", "parquet"):
        write_tags(tmp_path / name, [batch([1], [1])], name, resolution_ps=4.5, metadata={"serial": "äß"})
        with read_tags(tmp_path / name) as tags:
            assert (tags.info.resolution_ps, tags.info.metadata["serial"]) == (4.5, "äß")


def test_a_spool_that_was_never_closed_is_read_to_its_last_batch(tmp_path: Path) -> None:
    path = tmp_path / "live.feather"
    writer = open_writer(path)
    writer.append(batch([1, 2], [0, 1], 5))
    assert merged(path) == [(1, 0), (2, 1)]
    writer.append(batch([6], [2], 9))
    assert merged(path) == [(1, 0), (2, 1), (6, 2)]
    writer.close()
    writer.close()
    assert [b.until_ps for b in read_tags(path)] == [5, 9]


def test_simultaneous_clicks_of_an_a1_event_are_tags_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "x.a1").write_bytes(struct.pack("<QQQ", 256 << 10 | 0b0101, 300 << 10 | 16, 512 << 10 | 0b1000))
    assert merged(tmp_path / "x.a1") == [(1000, 0), (1000, 2), (2000, 3)]


def test_an_a1_counter_that_turns_over_is_followed(tmp_path: Path) -> None:
    events = [(2**54 - 256) << 10 | 1, 256 << 10 | 2]
    (tmp_path / "x.a1").write_bytes(struct.pack("<QQ", *events))
    assert merged(tmp_path / "x.a1") == [(2**54 * 125 // 32 - 1000, 0), (2**54 * 125 // 32 + 1000, 1)]


def test_qutag_files_with_and_without_header(tmp_path: Path) -> None:
    write_tags(tmp_path / "x.qutag", [batch([7, 9, 11, 12, 13], [1, 2, 3, 4, 5])])
    bare = (tmp_path / "x.qutag").read_bytes()
    (tmp_path / "y.qutag").write_bytes(bytes(range(200, 240)) + bare)
    assert merged(tmp_path / "x.qutag") == merged(tmp_path / "y.qutag")
    with read_tags(tmp_path / "y.qutag") as tags:
        assert tags.info.metadata["header_bytes"] == "40"


@pytest.mark.parametrize("line", ["5 1", "5,1", "5;1", "  5\t1", "5 , 1  "])
def test_text_in_its_common_dresses(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.txt").write_text(f"Time tag; channel\n# a remark\n\n{line}\n")
    assert merged(tmp_path / "x.txt") == [(5, 1)]


# -- PTU ---------------------------------------------------------------------------------------------------------------


def ptu_file(
    path: Path, kind: int, records: list[int], *, resolution_s: float = 1e-12, count: int | None = None
) -> Path:
    """A file of the genuine layout with the given records."""
    entries = [
        ptu._entry("File_Comment", ptu.TEXT, b"made for a test"),
        ptu._entry("TTResultFormat_TTTRRecType", ptu.INTEGER, kind),
        ptu._entry("TTResultFormat_BitsPerRecord", ptu.INTEGER, 32),
        ptu._entry("MeasDesc_GlobalResolution", ptu.FLOAT, resolution_s),
        ptu._entry("MeasDesc_Resolution", ptu.FLOAT, resolution_s),
        ptu._entry("Measurement_Mode", ptu.INTEGER, 2),
        ptu._entry("TTResult_SyncRate", ptu.INTEGER, 0),
        ptu._entry("TTResult_NumberOfRecords", ptu.INTEGER, len(records) if count is None else count),
        ptu._entry("Header_End", ptu.EMPTY, 0),
    ]
    path.write_bytes(ptu.MAGIC + b"1.0.00\0\0" + b"".join(entries) + np.array(records, "<u4").tobytes())
    return path


@pytest.mark.parametrize("kind", sorted(ptu.VARIANTS))
def test_every_variant_agrees_with_an_independent_reader(tmp_path: Path, kind: int) -> None:
    """`ptufile` (BSD) decodes every record; photons must be ours to the last picosecond."""
    ptufile = pytest.importorskip("ptufile")
    rng = np.random.default_rng(kind)
    if kind == ptu.PICOHARP_T2:
        times = np.sort(rng.integers(0, 1 << 27, 200))
        records = (rng.integers(0, 5, 200) << 28 | times).tolist()
        records[60:60] = [15 << 28, 15 << 28]
        records[120:120] = [15 << 28]
    else:
        records = (rng.integers(0, 8, 200) << 25 | np.sort(rng.integers(0, 1 << 25, 200))).tolist()
        overflow = 127 << 25
        records[150:150] = [overflow | 1]
        records[50:50] = [overflow | 1, overflow | (5 if kind != 0x00010204 else 1), 66 << 25 | 1]
    records = sorted_within_wraps(records, kind)
    path = ptu_file(tmp_path / "x.ptu", kind, records, resolution_s=4e-12)
    with ptufile.PtuFile(path) as file:
        theirs = file.decode_records()
    photons = theirs[theirs["channel"] >= 0]
    times, channels = readers.ptu(path)
    assert times.size > 0
    assert times.tolist() == (4 * photons["time"].astype(np.int64)).tolist()
    shift = 0 if kind == ptu.PICOHARP_T2 else 1
    assert channels.tolist() == (photons["channel"] + shift).tolist()


def sorted_within_wraps(records: list[int], kind: int) -> list[int]:
    """Photons between two special records in the order of their times."""
    bits = 28 if kind == ptu.PICOHARP_T2 else 25
    special = (lambda r: r >> 28 == 15) if kind == ptu.PICOHARP_T2 else (lambda r: r >> 25 > 64)
    out: list[int] = []
    run: list[int] = []
    for record in [*records, None]:
        if record is None or special(record):
            out += sorted(run, key=lambda r: r & (1 << bits) - 1)
            run = []
            if record is not None:
                out.append(record)
        else:
            run.append(record)
    return out


def test_ours_is_read_by_an_independent_reader(tmp_path: Path) -> None:
    ptufile = pytest.importorskip("ptufile")
    times = np.cumsum(np.random.default_rng(3).integers(0, 1 << 30, 500))
    write_tags(tmp_path / "x.ptu", [batch(times.tolist(), [1 + i % 4 for i in range(500)])])
    with ptufile.PtuFile(tmp_path / "x.ptu") as file:
        theirs = file.decode_records()
        assert file.is_t3 is False
    photons = theirs[theirs["channel"] >= 0]
    assert photons["time"].astype(np.int64).tolist() == times.tolist()
    assert photons["channel"].tolist() == [i % 4 for i in range(500)]


def test_a_recording_that_was_never_closed_is_read_to_its_end(tmp_path: Path) -> None:
    assert merged(ptu_file(tmp_path / "x.ptu", ptu.HYDRAHARP_V2_T2, [5, 6], count=0)) == [(5, 1), (6, 1)]


# -- the museum of bad inputs ------------------------------------------------------------------------------------------


def damaged(path: Path, name: str, change) -> Path:
    write_tags(path, [batch([1000, 2000, 300_000], [1, 2, 1]), batch([400_000], [1])], name)
    path.write_bytes(change(path.read_bytes()))
    return path


MUSEUM = {
    "ptu-header-cut": ("ptu", lambda b: b[:50], "header ends in the middle of an entry at byte 16"),
    "ptu-entry-longer-than-file": (
        "ptu", lambda b: b[:56] + struct.pack("<q", 1 << 40) + b[64:], "claims 1099511627776 bytes"),
    "ptu-unknown-entry-type": ("ptu", lambda b: b[:52] + b"\x77\0\0\0" + b[56:], "unknown type 0x00000077"),
    "ptu-records-cut-in-the-middle": ("ptu", lambda b: b[:-6], "file ends after record 2 and 2 bytes of another"),
    "ptu-records-missing": ("ptu", lambda b: b[:-4], "file ends after record 3 .*header says 4 records"),
    "ptu-illegal-record": ("ptu", lambda b: b[:-4] + struct.pack("<I", 100 << 25), r"record 3 \(byte \d+\) is 0xc8"),
    "ptu-time-goes-back": ("ptu", lambda b: b[:-4] + struct.pack("<I", 7), r"from 300000 ps to 7 ps at record 3"),
    "ptu-time-overflows": (
        "ptu",
        lambda b: b[:-4] + struct.pack("<I", 0xFFFFFFFF) * 5000,
        r"record \d+ \(byte \d+\) is 0xffffffff: .*time beyond all measure",
    ),
    "ptu-t3": ("ptu", lambda b: b.replace(struct.pack("<q", 0x01010204), struct.pack("<q", 0x01010304)), "T3 mode"),
    "ptu-fractional-unit": (
        "ptu", lambda b: b.replace(struct.pack("<d", 1e-12), struct.pack("<d", 1.5e-12)), "no whole number of ps"),
    "ptu-unit-is-nan": (
        "ptu", lambda b: b.replace(struct.pack("<d", 1e-12), struct.pack("<d", float("nan"))), "no whole number"),
    "ptu-without-record-type": ("ptu", lambda b: b.replace(b"TTResultFormat_TTTRRecType", b"T" * 26), "no usable"),
    "not-a-ptu-at-all": ("ptu", lambda b: b"hello world, this is no PTU", "not a PTU file"),
    "a1-cut": ("a1", lambda b: b[:-3], r"middle of event 3 \(byte 29\)"),
    "a1-time-goes-back": ("a1", lambda b: b[8:16] + b[:8], r"goes back from 2000 ps to 1000 ps at event 1 \(byte 8\)"),
    "qutag-cut": ("qutag", lambda b: b[:-1], r"middle of record 3 \(byte 30\)"),
    "qutag-channel-out-of-range": ("qutag", lambda b: b + struct.pack("<qH", 1 << 40, 999), "channel 999"),
    "qutag-time-goes-back": ("qutag", lambda b: b + struct.pack("<qH", 5, 1), "from 400000 ps to 5 ps at record 4"),
    "feather-cut": ("feather", lambda b: b[: len(b) // 2], "damaged or cut|not an Arrow file"),
    "feather-schema-damaged": ("feather", lambda b: b[:30] + bytes(60) + b[90:], "feather|Arrow"),
    "parquet-cut": ("parquet", lambda b: b[:-20], "not a Parquet file, or cut"),
    "parquet-page-damaged": ("parquet", lambda b: b[:4] + bytes(40) + b[44:], "the batch at row 0 is damaged"),
    "text-not-numbers": ("text", lambda b: b + b"hello\n", "line 8 is not a time in ps and a channel: 'hello'"),
    "text-channel-too-large": ("text", lambda b: b + b"900000 256\n", "line 8: channel 256"),
    "text-time-too-large": ("text", lambda b: b + b"9000000000000000000 1\n", "line 8: the time .* beyond all measure"),
    "text-time-goes-back": ("text", lambda b: b + b"3 1\n", "from 400000 ps to 3 ps at line 8"),
}  # fmt: skip


@pytest.mark.parametrize("defect", MUSEUM)
def test_museum(tmp_path: Path, defect: str) -> None:
    name, change, message = MUSEUM[defect]
    path = damaged(tmp_path / "tags", name, change)
    with pytest.raises(InputError, match=message) as found:
        merged(path, name)
    assert found.value.remedy
    assert "tags" in str(found.value)


@pytest.mark.parametrize(
    "defect", [d for d in MUSEUM if d.endswith(("goes-back", "cut", "missing", "middle", "illegal-record", "range"))
               and d not in ("ptu-header-cut", "parquet-cut", "feather-cut")]
)  # fmt: skip
def test_a_fault_voids_its_block_and_no_more(tmp_path: Path, defect: str) -> None:
    """Whole tags before the fault come through unmarked; the batch with the fault says overflow; order is kept."""
    name, change, _ = MUSEUM[defect]
    batches = list(read_tags(damaged(tmp_path / "tags", name, change), name, faults="void", chunk_tags=1))
    assert any(b.overflow for b in batches)
    times = np.concatenate([b.times_ps for b in batches])
    assert (np.diff(times) >= 0).all()
    if name != "a1" or defect == "a1-cut":
        whole = np.concatenate([b.times_ps for b in batches if not b.overflow])
        assert whole.tolist()[:2] == [1000, 2000]


def test_missing_files_and_unknown_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_tags(tmp_path / "none.ptu")
    with pytest.raises(InputError, match="did you mean 'feather'"):
        read_tags(tmp_path / "none", "fether")
    (tmp_path / "x.dat").write_bytes(b"1234567890123456")
    with pytest.raises(InputError, match="neither its first bytes nor its name"):
        read_tags(tmp_path / "x.dat")
    with pytest.raises(InputError, match=r"hold a channel of 0\.\.3"):
        write_tags(tmp_path / "x.a1", [batch([1], [4])])
    with pytest.raises(InputError, match="hold a time of 0"):
        write_tags(tmp_path / "x.ptu", [batch([-1], [4])])


def test_arrow_files_of_others(tmp_path: Path) -> None:
    """Other integer types are converted; missing values, other columns and floats are refused by name."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    table = pa.table({"channel": pa.array([1, 2], pa.uint16()), "time_tag": pa.array([5, 9], pa.uint64())})
    parquet.write_table(table, tmp_path / "x.parquet")
    feather.write_feather(table, tmp_path / "x.feather")  # compressed with lz4, as its default is
    assert merged(tmp_path / "x.parquet") == merged(tmp_path / "x.feather") == [(5, 1), (9, 2)]
    for column, kind, values, message in (
        ("time_ps", pa.float64(), [1.0, 2.0], "not whole numbers"),
        ("time_ps", pa.int64(), [1, None], "1 values are missing"),
        ("time_ps", pa.int64(), [1, 2**62 + 1], "beyond all measure"),
        ("time", pa.int64(), [1, 2], "no column 'time_ps'"),
    ):
        feather.write_feather(
            pa.table({column: pa.array(values, kind), "channel": pa.array([1, 1], pa.uint8())}), tmp_path / "y.feather"
        )
        with pytest.raises(InputError, match=message):
            merged(tmp_path / "y.feather")


def test_convert(tmp_path: Path) -> None:
    write_tags(tmp_path / "x.ptu", [batch([1000, 2000, 3000], [1, 2, 1])])
    run = CliRunner().invoke(command, [str(tmp_path / "x.ptu"), str(tmp_path / "x.parquet"), "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["tags"] == 3
    assert merged(tmp_path / "x.parquet") == [(1000, 1), (2000, 2), (3000, 1)]
    again = CliRunner().invoke(command, [str(tmp_path / "x.ptu"), str(tmp_path / "x.parquet")])
    assert isinstance(again.exception, InputError)


def test_bench_answers_with_every_format_and_its_peer(tmp_path: Path) -> None:
    pytest.importorskip("ptufile")
    arguments = ["--tags", "3000", "--runs", "1", "--quiet", "--json", "--plot", str(tmp_path / "files.png")]
    run = CliRunner().invoke(bench, arguments)
    assert run.exit_code == 0, run.output
    rows = json.loads(run.stdout)["rows"]
    assert {(row["name"], row["parameters"]["format"]) for row in rows} == {
        (what, name) for what in ("read", "write") for name in NAMES
    }
    assert all(row["unit"] == "tags/s" and row["median"] > 0 for row in rows)
    (ours,) = [row for row in rows if row["peer"] is not None]
    assert (ours["peer"], ours["parameters"]["format"]) == ("ptufile", "ptu")
    assert (tmp_path / "files.png").stat().st_size > 1000


SUFFIXES = [".feather", ".parquet", ".ptu", ".a1", ".qutag", ".txt"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("alias", ["itself", "symbolic link", "hard link"])
def test_a_recording_is_never_converted_onto_itself(tmp_path: Path, suffix: str, alias: str) -> None:
    source = tmp_path / f"same{suffix}"
    write_tags(source, [batch([1000, 2000, 300_000], [1, 2, 1])])
    target = source if alias == "itself" else tmp_path / f"alias{suffix}"
    if alias == "symbolic link":
        target.symlink_to(source)
    elif alias == "hard link":
        target.hardlink_to(source)
    before = source.read_bytes()
    result = CliRunner().invoke(command, ["--force", str(source), str(target)])
    assert isinstance(result.exception, InputError)
    assert "the recording itself" in str(result.exception)
    assert source.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("there", [True, False])
def test_a_bad_source_leaves_the_target_as_it_was(tmp_path: Path, suffix: str, there: bool) -> None:
    """Neither a cut target nor a stub that reads as a recording of no tags and stops the next try."""
    bad, target = tmp_path / "bad.txt", tmp_path / f"good{suffix}"
    bad.write_text("1000 1\n2000 2\nnonsense\n")
    if there:
        write_tags(target, [batch([5, 6], [1, 1])])
    before = target.read_bytes() if there else None
    result = CliRunner().invoke(command, ["--force", str(bad), str(target)])
    assert isinstance(result.exception, InputError)
    assert (target.read_bytes() if target.exists() else None) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"bad.txt", *([target.name] if there else [])})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_is_no_recording(tmp_path: Path, suffix: str) -> None:
    stub = tmp_path / f"stub{suffix}"
    stub.touch()
    result = CliRunner().invoke(command, [str(stub), str(tmp_path / "out.txt")])
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "out.txt").exists()
