import gzip
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciscribe.errors import DataMissingError, InputError, UnknownNameError
from ciscribe.io import genome as genome_module
from ciscribe.io.genome import Genome, write_fasta
from ciscribe.sequence import encode

LETTERS = {"chr2": "acgtNNNNryACGTTGCAagg" * 7, "chr1": "GGATCCn" * 11 + "T", "chrM": "ACGTA"}
KINDS = ("plain", "gzip", "bgzip")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=KINDS)
def fasta(request, tmp_path):
    return write_letters(tmp_path, request.param)


def write_letters(folder, kind, width=13, letters=LETTERS):
    lines = [
        f">{name} a description\n" + "".join(f"{s[i : i + width]}\n" for i in range(0, len(s), width))
        for name, s in letters.items()
    ]
    data = "".join(lines).encode()
    path = folder / ("genome.fa" if kind == "plain" else "genome.fa.gz")
    if kind == "bgzip":
        with pysam.BGZFile(str(path), "wb") as handle:
            handle.write(data)
    else:
        path.write_bytes(gzip.compress(data) if kind == "gzip" else data)
    return path


def test_genome__gives_sizes_and_codes_in_file_order(fasta):
    genome = Genome(fasta)
    assert genome.chrom_sizes == {name: len(s) for name, s in LETTERS.items()}
    assert list(genome.chrom_sizes) == ["chr2", "chr1", "chrM"]
    for (name, codes), (expected, letters) in zip(genome.iter_codes(), LETTERS.items(), strict=True):
        assert name == expected
        np.testing.assert_array_equal(codes, encode(letters))
        np.testing.assert_array_equal(genome.codes(name), codes)


def test_fetch__reads_lower_case_as_upper_and_other_letters_as_n(fasta):
    codes = Genome(fasta).fetch("chr2", 0, 12)
    assert codes.dtype == np.uint8
    assert codes.tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 0, 1]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (-3, 2, [4, 4, 4, 0, 1]),
        (3, 8, [3, 0, 4, 4, 4]),
        (-1, 6, [4, 0, 1, 2, 3, 0, 4]),
        (2, 2, []),
        (-7, -4, [4, 4, 4]),
        (11, 13, [4, 4]),
    ],
)
def test_fetch__off_end_positions_are_n_and_the_length_always_fits(fasta, start, end, expected):
    assert Genome(fasta).fetch("chrM", start, end).tolist() == expected


def test_fetch__long_pieces_are_read_in_chunks(fasta, monkeypatch):
    monkeypatch.setattr(genome_module, "_CHUNK", 17)
    np.testing.assert_array_equal(Genome(fasta).fetch("chr2", -2, 101)[2:], encode(LETTERS["chr2"])[:101])


def test_fetch__unknown_chromosome_and_backward_interval(fasta):
    genome = Genome(fasta)
    with pytest.raises(UnknownNameError, match="did you mean 'chr1'"):
        genome.fetch("Chr1", 0, 3)
    with pytest.raises(ValueError, match="start <= end"):
        genome.fetch("chr1", 5, 3)


def test_genome__ragged_lines_are_read_in_sequence(tmp_path):
    path = tmp_path / "ragged.fa"
    path.write_text(">a\nACG\nT\nACGTA\n>b\n\nGG\n")
    genome = Genome(path)
    assert genome.chrom_sizes == {"a": 9, "b": 2}
    np.testing.assert_array_equal(genome.fetch("a", 2, 6), encode("GTAC"))


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True),
        st.binary(min_size=1, max_size=67),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 23),
    st.sampled_from(["g.fa", "g.fa.gz"]),
)
def test_write_fasta__round_trip(tmp_path_factory, raw, width, name):
    sequences = {chrom: np.frombuffer(data, np.uint8) % 5 for chrom, data in raw.items()}
    path = tmp_path_factory.mktemp("fasta") / name
    write_fasta(path, sequences, width)
    genome = Genome(path)
    assert list(genome.chrom_sizes) == list(sequences)
    for chrom, codes in sequences.items():
        np.testing.assert_array_equal(genome.codes(chrom), codes)


def test_write_fasta__failure_in_the_middle_leaves_the_old_file(tmp_path):
    def sequences():
        yield "a", encode("ACGT")
        raise KeyboardInterrupt

    class Broken(dict):
        def items(self):
            return sequences()

    for name in ("g.fa", "g.fa.gz"):
        path = tmp_path / name
        write_fasta(path, {"old": encode("GATTACA")})
        with pytest.raises(KeyboardInterrupt):
            write_fasta(path, Broken())
        assert Genome(path).chrom_sizes == {"old": 7}
        assert not list(tmp_path.glob(".partial-*"))


# -- processes and threads -----------------------------------------------------------------------------------


def _child(genome, jobs, queue):
    queue.put([genome.fetch(*job).tolist() for job in jobs])


@pytest.mark.parametrize(("method", "kind"), [("fork", "plain"), ("fork", "bgzip"), ("spawn", "bgzip")])
def test_genome__two_processes_read_the_right_bases_at_once(tmp_path, method, kind):
    rng = np.random.default_rng(3)
    sequences = {c: rng.integers(0, 5, 20_011).astype(np.uint8) for c in ("chr1", "chr2")}
    path = tmp_path / ("g.fa" if kind == "plain" else "g.fa.gz")
    write_fasta(path, sequences)
    genome = Genome(path)
    genome.fetch("chr1", 0, 5)  # an open handle that the children must not share
    starts = rng.integers(0, 19_000, 211)
    jobs = [(f"chr{1 + i % 2}", int(s), int(s) + 101) for i, s in enumerate(starts)]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_child, args=(genome, jobs, queue))
    child.start()
    ours = [genome.fetch(*job).tolist() for job in jobs]
    theirs = queue.get(timeout=120)
    child.join()
    assert ours == theirs == [sequences[c][a:b].tolist() for c, a, b in jobs]


def test_genome__pickle_drops_handles_and_sequences(fasta):
    genome = Genome(fasta)
    genome.codes("chr1")
    copy = pickle.loads(pickle.dumps(genome))
    assert len(pickle.dumps(genome)) < 2000
    np.testing.assert_array_equal(copy.codes("chr1"), genome.codes("chr1"))


def test_genome__threads_have_their_own_handles(tmp_path):
    codes = np.random.default_rng(5).integers(0, 4, 50_021).astype(np.uint8)
    write_fasta(tmp_path / "g.fa", {"a": codes})
    genome = Genome(tmp_path / "g.fa")
    starts = range(0, 50_000, 97)
    with ThreadPoolExecutor(3) as pool:
        for start, got in zip(starts, pool.map(lambda s: genome.fetch("a", s, s + 23), starts), strict=True):
            np.testing.assert_array_equal(
                got, np.pad(codes[start : start + 23], (0, max(0, start + 23 - 50_021)), constant_values=4)
            )


# -- indexes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "bgzip"])
def test_genome__read_only_folder_puts_the_index_into_the_cache(tmp_path, monkeypatch, kind):
    folder = tmp_path / "data"
    folder.mkdir()
    path = write_letters(folder, kind)
    real = genome_module.TemporaryDirectory

    def refuse(dir, prefix):
        if dir == folder:
            raise PermissionError("read-only")
        return real(dir=dir, prefix=prefix)

    monkeypatch.setattr(genome_module, "TemporaryDirectory", refuse)
    np.testing.assert_array_equal(Genome(path).codes("chr1"), encode(LETTERS["chr1"]))
    assert os.listdir(folder) == [path.name]
    assert list((tmp_path / "cache" / "ciscribe" / "fasta").glob("*.fai"))
    monkeypatch.setattr(genome_module, "_make_index", lambda *_: pytest.fail("the cached index was not used"))
    assert Genome(path).chrom_sizes["chrM"] == 5


def test_genome__nowhere_to_put_an_index_still_reads(tmp_path, monkeypatch):
    path = write_letters(tmp_path, "plain")
    monkeypatch.setattr(genome_module, "_make_index", lambda *_: False)
    np.testing.assert_array_equal(Genome(path).fetch("chr1", 1, 8), encode(LETTERS["chr1"])[1:8])


def test_genome__stale_index_is_not_trusted(tmp_path):
    path = write_letters(tmp_path, "plain")
    Genome(path)
    fai = tmp_path / "genome.fa.fai"
    write_letters(tmp_path, "plain", width=7)  # same sequences, other lines
    os.utime(fai, (1, 1))
    old = fai.read_bytes()
    np.testing.assert_array_equal(Genome(path).codes("chr2"), encode(LETTERS["chr2"]))
    assert fai.read_bytes() == old


# -- bad input -----------------------------------------------------------------------------------------------


def test_genome__missing_file(tmp_path):
    with pytest.raises(DataMissingError, match=r"nothing is there.*check the path"):
        Genome(tmp_path / "absent.fa")
    with pytest.raises(DataMissingError, match="a folder is there"):
        Genome(tmp_path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"chr1\t5\t9\n", "must start with '>'"),
        (b">chr1\n>chr2\n", "names but no bases"),
        (gzip.compress(b"", mtime=0), "must start with '>'"),
        (gzip.compress(b"@read\nACGT\n", mtime=0), "must start with '>'"),
    ],
)
def test_genome__not_a_fasta(tmp_path, data, says):
    path = tmp_path / "g.fa"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says):
        _ = Genome(path).chrom_sizes


@pytest.mark.parametrize("kind", ["gzip", "bgzip"])
@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_genome__truncated_compressed_file(tmp_path, kind, kept):
    letters = {"a": "".join(np.random.default_rng(7).choice(list("ACGT"), 200_003))}
    path = write_letters(tmp_path, kind, 61, letters)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=r"truncated.*again"):
        _ = Genome(path).codes("a")


@pytest.mark.parametrize("newer", [True, False])
def test_genome__truncated_plain_file_disagrees_with_its_index(tmp_path, newer):
    path = write_letters(tmp_path, "plain")
    Genome(path)
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    moment = path.stat().st_mtime + (9 if newer else -9)
    os.utime(tmp_path / "genome.fa.fai", (moment, moment))
    with pytest.raises(InputError, match=r"truncated.*chr1|truncated.*chrM"):
        Genome(path)


def test_genome__repeated_and_missing_names(tmp_path):
    path = tmp_path / "g.fa.gz"
    for text, says in ((b">a\nAC\n>a\nGT\n", "'a' more than once"), (b">\nAC\n", "no name")):
        path.write_bytes(gzip.compress(text))
        with pytest.raises(InputError, match=says):
            _ = Genome(path).chrom_sizes


@pytest.mark.realdata
def test_genome__worm(data_dir):
    genome = Genome(data_dir / "worm" / "ce10.fa.gz")
    assert sum(genome.chrom_sizes.values()) == 100_286_070
    assert (genome.fetch("chrI", 0, 7) == encode("GCCTAAG")).all()
    assert len(genome.fetch("chrM", -5, 13_800)) == 13_805
